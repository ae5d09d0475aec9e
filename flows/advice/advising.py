"""What advice is drawn from: pilot runs on mixtures of sources, and distances; and the stage that draws it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from flows import sources
from flows.advice.advised import METRIC, Pilot, manifest, told, write_advice
from flows.advice.pilots import Blend, Stock, mix, mixtures, ordered
from flows.choose import Question, check_clean
from flows.course import Course
from flows.exams import Exams
from flows.measure import measure, read_whole
from flows.race import Race
from flows.recipes import Advise, Pilots, Recipe
from flows.run import Counts, Run
from selection.advice import Advice, Advisor, Evidence, Remark
from selection.advisors import NEEDS, least_mixtures
from selection.cosine import cosines, unit_rows
from selection.mixing import largest_remainder
from selection.ot_mixture import distance_to
from selection.scaling import Scaling
from warehouse.errors import InputError
from warehouse.records import Rows
from warehouse.store import Artifact, Draft, Work

ADVICE_VERSION = 2
EPSILON = 0.01  # of the mean cost: how far transport is smoothed where a forecast reads distances
SAMPLE_ROWS = 256  # of each source that stand for it where distances are measured
BREAKDOWNS = (InputError, RuntimeError, MemoryError)
"""What a pilot run may fail by and the others still go on: a loss that diverges, rows that train nothing, memory."""


def asked_of(recipe: Recipe) -> Advise:
    """The part of a recipe that `winnow advise` is asked with. Raises `InputError` where there is none."""
    if recipe.advise is None:
        raise InputError("the recipe does not say what to advise on: give `advise`, for instance {advisor: projektor}")
    return recipe.advise


def pilots_of(asked: Advise) -> Pilots:
    """The pilot runs that are asked for. Raises `InputError` where there are none."""
    if asked.pilots is None:
        raise InputError(
            f"advisor {asked.advisor!r} learns from pilot runs: give `advise.pilots`, "
            "for instance {sizes: [200, 800], mixtures: 8, seeds: [0, 1]}"
        )
    return asked.pilots


@dataclass(frozen=True, slots=True)
class Advising:
    """The parts of one request that every step needs."""

    race: Race
    asked: Advise
    question: Question
    stock: Stock
    exams: Exams

    @property
    def run(self) -> Run:
        return self.race.run

    @property
    def seed(self) -> int:
        return self.race.recipe.seed

    def evidence(self) -> Evidence:
        """The sources, the budget, and what the advisor needs that no run is trained for."""
        needs, stock = NEEDS[self.asked.advisor], self.stock
        known = Evidence(stock.names, stock.available, self.asked.budget or 1, METRIC)
        if needs.distance:
            return self._measured(known)
        return self._named(known, stock.rows) if needs.rows else known

    def _named(self, known: Evidence, rows: Sequence[Rows]) -> Evidence:
        """With the sources and keys of `rows` of each source."""
        source_of = np.repeat(np.array(self.stock.names, np.object_), [len(each) for each in rows])
        keys = sources.read(self.question.pool).keys()[np.concatenate(rows)]
        return replace(known, source_of=source_of, keys=keys)

    def _measured(self, known: Evidence) -> Evidence:
        """With the costs between some rows of each source and all targets, and the distance of any mixture."""
        assert self.question.target is not None  # it was checked
        spec, sampled = self.race.meter.spec(), self.stock.sampled(SAMPLE_ROWS, self.seed)
        pool, target = sources.read(self.question.pool), sources.read(self.question.target)
        together = np.concatenate(sampled)
        for name, reader, rows in (("pool", pool, np.sort(together)), ("target", target, None)):
            title = f"measure {spec.name} of {name}"
            work = partial(measure, self.run, name, self.race.meter, [spec], reader, self.race.workers, rows)
            self.race.engine.call(title, work)
        vectors = [read_whole(self.run, spec, target), read_whole(self.run, spec, pool, together)]
        costs = 2 - 2 * cosines(*(unit_rows(each).values for each in vectors))
        place = np.repeat(np.arange(len(sampled)), [len(each) for each in sampled])
        distance = distance_to(costs, place, np.ones(len(costs)), EPSILON * (float(costs.mean()) or 1.0))
        return replace(self._named(known, sampled), costs=costs, distance=distance)

    def blends(self, advisor: Advisor) -> list[Blend]:
        """The mixtures of all pilot runs. Raises `InputError` where the advisor needs more of them."""
        pilots = pilots_of(self.asked)
        least = least_mixtures(advisor, len(self.stock.names), len(pilots.sizes), len(pilots.seeds))
        if pilots.mixtures < least:
            raise InputError(
                f"advisor {self.asked.advisor!r} needs runs on {least} mixtures of {len(self.stock.names)} sources, "
                f"found {pilots.mixtures}: give `advise.pilots.mixtures: {least}` or weigh fewer `advise.sources`"
            )
        tried = mixtures(self.stock.available, pilots.mixtures, np.random.default_rng(self.seed))
        return [Blend(shares, n, seed, "pilot") for n in pilots.sizes for shares in tried for seed in pilots.seeds]

    def pilots(self, blends: Sequence[Blend]) -> list[Pilot]:
        """Every run trained and assessed. Raises `InputError` where all of them failed."""
        course = self.race.course(self.exams)
        mixed = self.race.engine.call("mix pilots", partial(self._mixed, blends))
        check_clean(mixed, self.question.pool, self.exams.held_out)
        steps = [
            (f"pilot {blend.title(self.stock)}", partial(self._pilot, course, blend, mixture))
            for blend, mixture in zip(blends, mixed, strict=True)
        ]
        found: list[Pilot] = self.race.engine.map(steps)
        if all(pilot.evaluation is None for pilot in found):
            raise InputError(f"all {len(found)} pilot runs failed; the first: {found[0].error}")
        return found

    def _mixed(self, blends: Sequence[Blend]) -> list[Artifact]:
        return [mix(self.run, self.question, self.stock, blend) for blend in blends]

    def _pilot(self, course: Course, blend: Blend, mixture: Artifact) -> Pilot:
        title = blend.title(self.stock)
        try:
            tuned = course(title, mixture, blend.seed)[-1]
            assessed = self.race.examiner(self.exams)(f"assess {title}", tuned)
        except BREAKDOWNS as error:
            cause = getattr(error, "cause", error)  # from a Ray worker it comes wrapped, with its traceback
            self.run.listener.say(f"failed: pilot {title}: {cause}")
            return Pilot(blend, mixture, error=f"{type(cause).__name__}: {cause}")
        return Pilot(blend, mixture, assessed[0])

    def advice(self, advisor: Advisor, evidence: Evidence, pilots: Sequence[Pilot]) -> Artifact:
        """What the advisor says, as the table `advice`, as JSON, and the rows of each manifest."""
        asked, question = self.asked, self.question
        inputs: dict[str, Any] = {
            "pool": question.pool.key,
            "candidates": question.candidates.key,
            "pilots": [
                {"mixture": each.mixture.key, "evaluation": each.evaluation.key if each.evaluation else ""}
                for each in pilots
            ],
        }
        if evidence.distance is not None and question.target is not None:
            inputs |= {"target": question.target.key, "signals": {"representation": self.race.meter.spec().key}}
        params = {
            "advisor": asked.advisor, "params": asked.params, "budget": asked.budget, "sources": list(self.stock.names),
            "sample": SAMPLE_ROWS,
            "pilots": pilots_of(asked).model_dump() if NEEDS[asked.advisor].pilots else None,
        }  # fmt: skip
        work = Work("advice", ADVICE_VERSION, params, inputs, seed=self.seed)

        def make(draft: Draft) -> Counts:
            said = _said(advisor, evidence, pilots)
            write_advice(draft, work, asked, self.stock, said, pilots)
            failed = sum(each.evaluation is None for each in pilots)
            return Counts(len(pilots), len(pilots) - failed, {"failed": failed} if failed else {})

        return self.run.stage(f"advise {asked.advisor}", work, make)

    def files(self, advice: Artifact) -> list[Artifact]:
        """The training files of an advice: one of the advised mixture, or one for each stage of the manifests."""
        said = told(advice)
        if said["manifests"]:
            rows = np.concatenate(self.stock.rows)
            return [
                ordered(self.run, self.question, self.stock, advice, each["name"], rows[manifest(advice, each["name"])])
                for each in said["manifests"]
            ]
        if not said["shares"] or self.asked.budget is None:
            return []
        budget = self.asked.budget
        counts = largest_remainder(np.array([said["shares"][name]["value"] for name in self.stock.names]), budget)
        return self._mixed([Blend(counts / budget, budget, self.seed, "advised")])


def with_runs(evidence: Evidence, blends: Sequence[Blend]) -> Evidence:
    """`evidence` with runs on `blends` whose metric, not known yet, is 1."""
    shares = np.stack([blend.shares for blend in blends])
    distances = None
    if evidence.distance is not None:
        each, place = np.unique(shares, axis=0, return_inverse=True)
        distances = np.array([evidence.distance(mixture)[0] for mixture in each])[place]
    return replace(
        evidence,
        sizes=np.array([blend.n for blend in blends], np.float64),
        shares=shares,
        values=np.ones(len(blends)),
        seeds=np.array([blend.seed for blend in blends], np.int64),
        distances=distances,
    )


def rehearsed(advisor: Advisor, evidence: Evidence) -> Advice:
    """What the advisor would say to these runs whatever they gave: that they are too few or too far from the budget.

    Raises `InputError` where no values could make them enough.
    """
    known = advisor.floor if isinstance(advisor, Scaling) and advisor.floor is not None else 0.0
    values = np.full(evidence.r, 1 + 2 * known)  # above the floor that the runs are taken to have
    try:
        return advisor(replace(evidence, values=values, distance=None))
    except InputError as error:
        raise InputError(f"`advise.pilots` do not suffice, nothing was trained: {error}") from None


def doubted(said: Advice) -> Advice:
    """`said`, with a warning where it forecasts what no loss can be."""
    below = [name for name, each in said.forecasts.items() if each.value < 0 and not name.startswith("gain over")]
    if not below:
        return said
    detail = f"no {METRIC} is below 0, but that of {', '.join(below)} is: the runs are too small to read a line from"
    return replace(said, warnings=[*said.warnings, Remark("bounded_metric", detail)])


def _said(advisor: Advisor, evidence: Evidence, pilots: Sequence[Pilot]) -> Advice:
    try:
        return doubted(advisor(evidence))
    except InputError as error:
        failed = [pilot.error for pilot in pilots if pilot.error]
        raise InputError(f"{error}; the first that failed: {failed[0]}" if failed else str(error)) from None

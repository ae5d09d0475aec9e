"""DEITA's two scorers made here: seeds drawn, evolved and graded, one training run for each grade, and a check of both.

The check is on seeds that were kept out of training: how often a scorer orders two texts of one seed as the judge did.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.statistics import bootstrap, share
from flows import race as racing
from flows import sources
from flows.choose import CANDIDATES_FILE, Choice, Question, select
from flows.engine import Engine
from flows.race import Race
from flows.recipes import MethodEntry, Recipe, Scorers, Train
from flows.run import Counts, Listener, Run, begun
from flows.scoring.grading import Voices, grade, voices_of
from flows.scoring.outcome import ScorerOutcome
from flows.synth.spend import check_voices
from flows.tune import WEIGHTS, train, trainer
from flows.workers import Workers
from models.fingerprint import fetch
from models.scorer import Grade, digits_of, grades
from models.tokens import load_tokenizer
from selection.limits import Limits
from selection.random_rows import Random
from synthesis.graded import Graded
from training.tuning.adapters import Adapter
from warehouse.errors import InputError
from warehouse.records import Floats, Rows
from warehouse.store import Artifact, Draft, Work

if TYPE_CHECKING:
    from models.local import LocalModel

HOLD_OUT_VERSION = 1
AGREEMENT_VERSION = 1
KEPT_OUT = 10  # one seed in this many is not trained on
LEAST_SEEDS = 4  # two to train on and two to check with
GRADES: tuple[Grade, ...] = get_args(Grade)


def asked_of(recipe: Recipe) -> Scorers:
    """The part of a recipe that `winnow scorers` is asked with. Raises `InputError` where there is none."""
    if recipe.scorers is None:
        raise InputError(
            "the recipe does not say what to make scorers of: give `scorers` with `generator`, `judge` and `base`, "
            "each a model"
        )
    return recipe.scorers


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts."""
    asked = asked_of(recipe)
    racing.check(seeding(recipe))
    tokenizer, _ = load_tokenizer(fetch(asked.base, trust_remote_code=asked.trust_remote_code), "raw")
    digits_of(tokenizer, asked.base)
    training(asked)
    check_voices(voices_of(asked, recipe).values(), recipe.spend)


def seeding(recipe: Recipe) -> Recipe:
    """The recipe that seeds are drawn with: `scorers.seeds` or its pool, cleaned, without what a test row asks."""
    given = asked_of(recipe).seeds
    changed: dict[str, Any] = {
        "name": f"{recipe.name}-seeds" if given else recipe.name, "pool": given or recipe.pool,
        "methods": [MethodEntry(name="random")], "budgets": [1],
        "budget_unit": "rows", "caps": {}, "floors": {}, "train": None, "tasks": [],
    }  # fmt: skip
    return recipe.model_copy(update=changed)


def training(asked: Scorers) -> Train:
    """How a scorer is tuned. Raises `InputError` for what makes no scorer that `deita` can load."""
    chosen = Train(
        base=asked.base,
        trainer=asked.trainer,
        params={"template": "raw"} | asked.params,
        trust_remote_code=asked.trust_remote_code,
    )
    made = trainer(chosen)
    if made.template != "raw":
        raise InputError(f"a scorer reads its prompt in no chat format: `scorers.params.template` is {made.template!r}")
    if isinstance(made.tuning, Adapter):
        raise InputError("a scorer is loaded as a whole model: `scorers.params.tuning` must be full, not an adapter")
    return chosen


def scorers(
    recipe: Recipe,
    home: Path,
    command: str,
    *,
    engine: Engine,
    workers: Workers,
    listener: Listener,
    ui: str | None = None,
    voices: Voices | None = None,
) -> ScorerOutcome:
    """Make the scorers that `recipe` asks for in `home`; finished stages are kept.

    `voices` are the models in the roles "generator" and "judge"; by default those that the recipe names.
    """
    with begun(recipe, home, command, listener) as run:
        asked, drawn = asked_of(recipe), seeding(recipe)
        race = Race.of(drawn, run, engine, workers)
        return Making(race, asked, voices or voices_of(asked, recipe)).outcome(ui)


@dataclass(frozen=True, slots=True)
class Taught:
    """What a scorer is trained on: the stage that graded, its rows as a pool, and those of them to train on."""

    grade: Grade
    graded: Artifact
    pool: Artifact
    kept: Artifact
    chosen: Artifact


@dataclass(frozen=True, slots=True)
class Making:
    """The parts of one request that every step needs."""

    race: Race
    asked: Scorers
    voices: Voices

    @property
    def run(self) -> Run:
        return self.race.run

    @property
    def seed(self) -> int:
        return self.race.recipe.seed

    def outcome(self, ui: str | None) -> ScorerOutcome:
        """Everything made; each grade is a step, and so is each scorer."""
        question, _ = self.race.question()
        seeds = self.race.engine.call("draw seeds", partial(self._seeds, question))
        taught = [self.race.engine.call(f"grade {each}", partial(self._taught, each, seeds)) for each in GRADES]
        made = self.race.engine.map([(f"scorer {each.grade}", partial(self._scorer, each)) for each in taught])
        return ScorerOutcome(
            run=self.run.log.run,
            home=str(self.run.store.home),
            ui=ui,
            seeds=self.asked.count,
            scorers=made,
            stages=self.run.log.stages(),
        )

    def _seeds(self, question: Question) -> Artifact:
        left = question.candidates.manifest["facts"]["rows_out"]
        if left < self.asked.count:
            raise InputError(f"{self.asked.count:,} seeds are asked for, {left:,} may be drawn: lower `scorers.count`")
        return self._drawn(question, self.asked.count)

    def _drawn(self, question: Question, count: int) -> Artifact:
        return select(self.run, question, Choice("random", {}, Random(), Limits(count), self.seed))

    def _taught(self, kind: Grade, seeds: Artifact) -> Taught:
        job = Graded(kind, self.asked.steps)
        graded = grade(self.run, job, seeds, self.voices, self.race.kitchen, self.race.workers)
        given = sources.synthesized(graded, job.source)
        pool = sources.ingest(self.run, f"{self.race.recipe.name} {job.source}", [given], self.race.workers)
        kept = hold_out(self.run, kind, pool)
        chosen = self._drawn(Question(pool, None, kept), kept.manifest["facts"]["rows_out"])
        return Taught(kind, graded, pool, kept, chosen)

    def _scorer(self, taught: Taught) -> dict[str, Any]:
        chosen = training(self.asked)
        tuned = train(self.run, f"train {taught.grade}", chosen, taught.chosen, self.seed, self.race.workers)
        checked = agreement(self.run, taught, tuned, chosen, self.seed, self.race.workers)
        facts = taught.graded.manifest["facts"]
        return {
            "grade": taught.grade,
            "path": str(tuned.folder / WEIGHTS),
            "key": tuned.key,
            "graded": facts["rows_out"],
            "dropped": facts["dropped"],
            "trained": tuned.manifest["facts"]["rows_out"],
            "agreement": checked.manifest["facts"]["agreement"],
            "by_length": checked.manifest["facts"]["by_length"],
        }


def hold_out(run: Run, kind: Grade, pool: Artifact) -> Artifact:
    """The graded rows to train on: all but those of one seed in ten.

    Left out are the seeds of the smallest ids, which are hashes of what the seeds say: a draw, and the same seeds for
    every scorer. Raises `InputError` where there are too few seeds to leave some out.
    """
    work = Work("hold_out", HOLD_OUT_VERSION, {"one_in": KEPT_OUT}, {"pool": pool.key})

    def make(draft: Draft) -> Counts:
        seeds = np.array([meta["seed"] for _, meta in graded_rows(pool)])
        known = np.unique(seeds)
        if len(known) < LEAST_SEEDS:
            raise InputError(
                f"{kind}: only {len(known)} seeds have graded texts, {LEAST_SEEDS} are needed to train and to check; "
                "raise `scorers.count` or name a stronger generator or judge"
            )
        kept = np.flatnonzero(~np.isin(seeds, known[: max(2, ceil(len(known) / KEPT_OUT))]))
        np.save(draft.folder / CANDIDATES_FILE, kept, allow_pickle=False)
        return Counts(len(seeds), len(kept), {"kept out": len(seeds) - len(kept)})

    return run.stage(f"hold out {kind}", work, make)


def graded_rows(pool: Artifact) -> list[tuple[str, dict[str, Any]]]:
    """Prompt and meta of every row of a graded pool, in its order."""
    reader = sources.read(pool)
    found = reader.in_order(np.arange(reader.n), ["messages", "meta"])
    return [(row["messages"][0]["content"], json.loads(row["meta"])) for _, part in found for row in part.to_pylist()]


def agreement(run: Run, taught: Taught, tuned: Artifact, chosen: Train, seed: int, workers: Workers) -> Artifact:
    """How often the scorer `tuned` orders texts that were kept out as the judge did, and how often their lengths do."""
    inputs = {"checkpoint": tuned.key, "pool": taught.pool.key, "kept": taught.kept.key}
    reads = {"max_length": trainer(chosen).max_length, "dtype": "float32"}
    work = Work("agreement", AGREEMENT_VERSION, reads, inputs, seed=seed)
    load = partial(_loaded, str(tuned.folder / WEIGHTS), reads | {"trust_remote_code": chosen.trust_remote_code})
    make = partial(_agreement, taught.pool, taught.kept, load, seed)
    return run.stage(f"check {taught.grade}", work, make, workers)


def _loaded(folder: str, options: Mapping[str, Any]) -> "LocalModel":
    from models.local import LocalModel

    return LocalModel.load(folder, **options)


def _agreement(pool: Artifact, kept: Artifact, load: Callable[[], "LocalModel"], seed: int, draft: Draft) -> Counts:
    rows, trained = graded_rows(pool), set(np.load(kept.folder / CANDIDATES_FILE, allow_pickle=False).tolist())
    left = [row for number, row in enumerate(rows) if number not in trained]
    scores = grades(load(), [prompt for prompt, _ in left])
    lengths = np.array([len(prompt) for prompt, _ in left], np.float64)
    judged = np.array([meta["score"] for _, meta in left], np.int64)
    seeds = [meta["seed"] for _, meta in left]
    for name, values in (("agreement", scores), ("by_length", lengths)):
        draft.facts[name] = ranked_alike(values, judged, seeds, np.random.default_rng(seed))
    steps = [meta["step"] for _, meta in left]
    pq.write_table(
        pa.table({"seed": seeds, "step": steps, "judge": judged, "scorer": scores}), draft.folder / "scores.parquet"
    )
    return Counts(len(rows), len(left), {"trained on": len(rows) - len(left)})


def ranked_alike(
    values: Floats, judged: Rows, seeds: Sequence[str], rng: np.random.Generator
) -> dict[str, float | int] | None:
    """The share of pairs of one seed's texts, told apart by the judge, that `values` (n,) order as `judged` (n,) does.

    A pair of equal values counts half. With its 95 % interval over seeds, because pairs of one seed go together, `n`
    pairs and their number of `seeds`; None where fewer than two seeds have such pairs.
    """
    right, owners = _pairs(values, judged, np.asarray(seeds))
    count = len(np.unique(owners))
    if count < 2:
        return None
    value = right.mean()
    found = bootstrap(right, rng, clusters=owners) if 0 < value < 1 else share(count if value else 0, count)
    assert found is not None  # where all pairs are right, or none, as many seeds as say so give the interval
    return asdict(replace(found, n=len(right))) | {"seeds": count}


def _pairs(values: Floats, judged: Rows, seeds: NDArray[np.str_]) -> tuple[Floats, Rows]:
    """Of every pair of rows of one seed that the judge told apart: 1, 0.5 or 0 for its order, and its seed's number."""
    right, owners = [np.zeros(0)], [np.zeros(0, np.int64)]
    for number, seed in enumerate(np.unique(seeds)):
        mine = np.flatnonzero(seeds == seed)
        first, second = mine[np.array(np.triu_indices(len(mine), 1))]
        ordered = np.sign(values[first] - values[second]) * np.sign(judged[first] - judged[second])
        right.append((1 + ordered[judged[first] != judged[second]]) / 2)
        owners.append(np.full(len(right[-1]), number))
    return np.concatenate(right), np.concatenate(owners)

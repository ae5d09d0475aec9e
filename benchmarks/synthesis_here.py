"""What the synthesis study works with: generated sums in several wordings, and the project's own flows in one home."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval.compare import Tables
from flows.engine import PlainEngine
from flows.outcome import RaceOutcome
from flows.race import check_race, race
from flows.recipes import Recipe
from flows.run import Silent
from flows.synth.job import check, synth
from flows.synth.outcome import SynthOutcome
from flows.tune import WEIGHTS
from flows.workers import HereWorkers
from synthesis.world import World
from warehouse.catalogue import query
from warehouse.records import Estimate, Example, Message
from warehouse.store import Store

SKILLS = ("arithmetic", "sequence", "counting", "comparison", "units")  # those whose answers are numbers
WORDINGS = (
    "{}", "The answer is {}.", "Answer: {}", "{} is the answer.", "So the answer is {}.",
    "Well, the answer is {}.", "I find that the answer is {}.", "It is clear that the answer is {}.",
)  # fmt: skip
POOL, ASKED, TESTED = 240, 200, 300  # rows that a learner is tuned on, questions it is asked, test problems
PASSES = 2000  # rows that any training run reads, repeats counted: 125 steps of 16
MAX_TOKENS = 24
TASK = {"name": "numeric_match", "max_tokens": MAX_TOKENS}
CLEAN = ["duplicate_id", *({"name": name, "action": "off"} for name in ("exact_duplicate", "near_duplicate"))]


def worded(row: Example, rng: np.random.Generator, wordings: Sequence[str] = WORDINGS) -> Example:
    """A row of the world with its right answer in one of `wordings`."""
    reply = wordings[int(rng.integers(len(wordings)))].format(row.meta["answer"])
    return replace(row, messages=(row.messages[0], Message("assistant", reply)))


def different(seed: int, rows: int) -> list[Example]:
    """Clean rows of the pool split, no problem twice."""
    world = World(4 * rows, skills=SKILLS, sources={"clean": 1.0})
    found = {row.meta["problem"]: row for row in world.examples(seed, 0, world.rows)}
    return list(found.values())[:rows]


def material(seed: int) -> tuple[list[Example], list[Example]]:
    """`POOL` rows to tune a learner on and `ASKED` rows of other problems to ask it about, in drawn wordings."""
    rng = np.random.default_rng(seed)
    rows = [worded(row, rng) for row in different(seed, POOL + ASKED)]
    return rows[:POOL], rows[POOL:]


@dataclass(frozen=True, slots=True)
class Home:
    """The home of a study, and what its parts do there: each is one run of the flows, cached like any.

    `tested` is the number of held-out problems that every model is tested on.
    """

    folder: Path
    tested: int = TESTED

    def file(self, name: str, rows: Sequence[Example]) -> dict[str, str]:
        """`rows` as a file, and the source that names it."""
        path = self.folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (
            {"messages": [{"role": m.role, "content": m.content} for m in row.messages], "source": row.source,
             "meta": dict(row.meta)}
            for row in rows
        )  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return {"path": str(path)}

    def recipe(self, name: str, pool: Sequence[Mapping[str, Any]], **parts: Any) -> Recipe:
        off = [{"name": "contamination", "action": "off"}] if "test" in parts else []
        return Recipe(**{"name": name, "data": str(self.folder), "pool": list(pool), "clean": [*CLEAN, *off]} | parts)

    def made(self, recipe: Recipe) -> SynthOutcome:
        """`winnow synth run` in this process."""
        check(recipe)
        return synth(recipe, self.folder, "synth", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())

    def raced(self, recipe: Recipe) -> RaceOutcome:
        """`winnow run` in this process."""
        check_race(recipe)
        return race(recipe, self.folder, "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = query(self.folder, sql).to_pylist()
        return found

    def generated(self, outcome: SynthOutcome) -> Iterator[dict[str, Any]]:
        """The meta of every row that a synthesis made, `reason` "" where it was accepted."""
        [made] = outcome.syntheses
        key = made["key"]
        yield from (
            json.loads(row["meta"]) | {"reason": row["reason"]}
            for row in self.rows(
                f"SELECT meta, '' AS reason FROM generations WHERE generation = '{key}' UNION ALL "
                f"SELECT meta, reason FROM rejects WHERE pool = '{key}'"
            )
        )

    def tuned(
        self, name: str, pool: Sequence[Mapping[str, Any]], rows: int, seed: int, draws: int = 0, **train: Any
    ) -> "Tuned":
        """winnow-tiny (or `base`) tuned on all `rows` rows of `pool`, and tested; `draws` is the recipe's seed."""
        chosen: dict[str, Any] = {"base": "winnow-tiny", "trainer": "sft_tiny"} | train
        chosen.setdefault("params", {"epochs": PASSES / rows})
        parts = {"methods": ["random"], "budgets": [rows], "seeds": [seed], "train": chosen, "tasks": [TASK]}
        test = self.file("test", list(World(self.tested, "test", SKILLS).examples(0, 0, self.tested)))
        outcome = self.raced(self.recipe(name, pool, test=[test], seed=draws, **parts))
        [key] = [stage["key"] for stage in outcome.stages if stage["stage"] == "train"]
        [row] = self.rows(f"SELECT steps, tokens FROM checkpoints WHERE checkpoint = '{key}'")
        return Tuned(self, key, rows, row["steps"], row["tokens"])


@dataclass(frozen=True, slots=True)
class Tuned:
    """A checkpoint of the study: what it read, and where it is."""

    home: Home
    key: str
    rows: int
    steps: int
    tokens: int

    @property
    def path(self) -> str:
        return str(Store.open(self.home.folder).folder("train", self.key) / WEIGHTS)

    @property
    def items(self) -> pa.Table:
        """What it answered to each test problem."""
        return query(self.home.folder, f"SELECT * FROM eval_items WHERE checkpoint = '{self.key}'")


def learner(home: Home, seed: int) -> Tuned:
    """winnow-tiny tuned on the pool of `seed` alone: the model that is asked, and the arm that others are compared
    with."""
    pool, _ = material(seed)
    return home.tuned(f"base-{seed}", [home.file(f"pool-{seed}", pool)], len(pool), seed)


def asked(home: Home, seed: int, synthesizer: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The source that asks the learner of `seed` about its questions."""
    seeds = [home.file(f"asked-{seed}", material(seed)[1])]
    models = {"learner": learner(home, seed).path}
    return {"synthesize": synthesizer, "seeds": seeds, "models": models, "params": dict(params)}


def items_of(arms: Mapping[int, Tuned]) -> Tables:
    return {seed: arm.items for seed, arm in arms.items()}


def markdown(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    rows = ["| " + " | ".join(map(str, line)) + " |" for line in (header, *lines)]
    return "\n".join([rows[0], "|---" * len(header) + "|", *rows[1:]])


def within(found: Estimate, digits: int = 2) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"

"""A synthesis as a stage: from seeds, models and a seed to accepted rows, refused rows, replies and what they cost."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq

from flows.recipes import Recipe
from flows.run import Counts, Run, Stopped
from flows.synth import rows
from flows.synth.asked import Synthesis
from flows.synth.spend import Caching, Purse, Till
from flows.voices import SpaceOnWorkers
from flows.workers import Workers
from models.converse import converse
from models.endpoint.spec import EndpointSpec
from warehouse.licences import TOGETHER
from warehouse.pools import example_of, opened
from warehouse.records import Example, canonical
from warehouse.store import Artifact, Draft, Work, load_artifact, sha256_file
from warehouse.tables import SELECTED_FILE, SYNTHESIS, write_rows

TELL_EVERY_S = 2.0
SYNTHESIZE_VERSION = 2
"""Rows that nobody answered are asked for again by the next run: a round. What a round made stays as it is."""


@dataclass(frozen=True, slots=True)
class Kitchen:
    """What rows are made with: the recipe's endpoints, what they may spend, and the seed of the draws."""

    endpoints: Mapping[str, EndpointSpec]
    purse: Purse
    seed: int

    @classmethod
    def of(cls, recipe: Recipe) -> "Kitchen":
        return cls(recipe.endpoints, Purse.of(recipe.spend), recipe.seed)


def synthesize(
    run: Run, name: str, asked: Synthesis, seeds: Artifact | None, kitchen: Kitchen, workers: Workers
) -> Artifact:
    """The rows of `asked`; a run after one that left rows unanswered asks for those again, and only for those.

    Where that changes nothing, the round before stands.
    """
    params = asked.params  # reads the files of the models

    def work(before: Artifact | None) -> Work:
        inputs = {} if seeds is None else {"seeds": seeds.key}
        again = {} if before is None else {"continues": before.key}
        return Work("synthesize", SYNTHESIZE_VERSION, params, inputs | again, seed=kitchen.seed)

    before: Artifact | None = None
    while (found := run.store.find(work(before))) is not None and found.manifest["facts"]["unanswered"]:
        before = found
    making = Making(run, name, asked, seeds, kitchen, workers)
    try:
        return run.stage(name, work(before), lambda draft: making(work(before).key, draft, before))
    except Unchanged:
        assert before is not None  # a first round has nothing to be equal to
        run.listener.say(f"{name}: {before.manifest['facts']['unanswered']:,} requests have no answer now either")
        run.record(name, before, computed=False, started=datetime.now(UTC), seconds=0.0)
        return before


class Unchanged(Exception):
    """A round came to the same rows, and the same reasons, as the one before."""


def oldest_alike(run: Run, made: Artifact) -> Artifact:
    """The first of the rounds up to `made` that accepted the same rows: what is made of them is made of that one."""
    while (key := made.manifest["inputs"].get("continues")) is not None:
        before = load_artifact(run.store.folder("synthesize", key))
        if before is None or before.manifest["files"][rows.ROWS_FILE] != made.manifest["files"][rows.ROWS_FILE]:
            break
        made = before
    return made


@dataclass(frozen=True, slots=True)
class Making:
    """One synthesis under way. The dialogues are led here; local models answer on the workers."""

    run: Run
    name: str
    asked: Synthesis
    seeds: Artifact | None
    kitchen: Kitchen
    workers: Workers

    def __call__(self, key: str, draft: Draft, before: Artifact | None) -> Counts:
        examples, licences = seeds_of(self.seeds)
        with (
            tempfile.TemporaryFile(dir=draft.folder.parent) as spool,
            self.open() as till,
        ):
            emitted = rows.Emitted(spool)
            self.converse(examples, emitted, till)
            maker = rows.Maker(
                key, self.asked.name, self.asked.source.params, self.kitchen.seed, self.asked.named, licences
            )
            rows.write(draft.folder, maker, emitted)
            refused = dict(emitted.counts)
            accepted = refused.pop("", 0)
            counts = Counts(accepted + sum(refused.values()), accepted, refused)
            if before is not None and emitted.unanswered and _alike(before, draft, counts):
                raise Unchanged
            draft.facts.update(till.write(draft.folder, key, emitted.heard))
        draft.facts["models"] = self.asked.named
        draft.facts["unanswered"] = emitted.unanswered
        self._summary(key, draft, counts, before)
        return counts

    def _summary(self, key: str, draft: Draft, counts: Counts, before: Artifact | None) -> None:
        known = {name: draft.facts[name] for name in SYNTHESIS.names if name in draft.facts and name != "models"}
        row = known | {
            "generation": key,
            "continues": before.key if before is not None else None,
            "synthesizer": self.asked.name,
            "params": canonical(dict(self.asked.source.params)),
            "models": canonical(self.asked.named),
            "seed": self.kitchen.seed,
            "seeds": self.seeds.key if self.seeds is not None else None,
            "accepted": counts.rows_out,
            "refused": sum(counts.dropped.values()),
        }
        write_rows(draft.folder / "synthesis.parquet", SYNTHESIS, [row])

    def open(self, caching: Caching = "use") -> AbstractContextManager[Till]:
        return self.kitchen.purse.open(self.run.store.home, self.workers, caching)

    def converse(self, examples: Sequence[Example], emitted: rows.Emitted, till: Till) -> None:
        teller = Teller(self.run, self.name, emitted, till, len(examples))
        models = {role: till.model(voice) for role, voice in self.asked.voices.items()}
        encoders = {role: SpaceOnWorkers(space, self.workers) for role, space in self.asked.spaces.items()}
        job = self.asked.job(examples, np.random.default_rng(self.kitchen.seed))
        verifiers = self.asked.verifiers
        converse([job], models, encoders, emitted, verifiers=verifiers, beat=teller.beat, listen=emitted.listen)


def _alike(before: Artifact, draft: Draft, counts: Counts) -> bool:
    """Whether a round accepted and refused what the one before did."""
    if dict(counts.dropped) != dict(before.manifest["facts"]["dropped"]):
        return False
    known = before.manifest["files"][rows.ROWS_FILE]["sha256"]
    return sha256_file(draft.folder / rows.ROWS_FILE) == str(known)


def seeds_of(seeds: Artifact | None) -> tuple[list[Example], dict[str, frozenset[str]]]:
    """The rows to start from, of a pool or of a selection, and all licences of each by its sample id."""
    if seeds is None:
        return [], {}
    if seeds.stage == "select":
        chosen = pq.read_table(seeds.folder / SELECTED_FILE, columns=["messages", "source", "meta", "licence"])
        found = [(example_of(row), row["licence"]) for row in chosen.to_pylist()]
    else:
        pool = opened(seeds.folder)
        found = list(zip(pool.examples(np.arange(pool.n)), pool.column("licence").tolist(), strict=True))
    licences: dict[str, frozenset[str]] = {}
    for example, licence in found:
        mine = frozenset((licence or rows.UNKNOWN).split(TOGETHER))
        licences[example.sample_id] = licences.get(example.sample_id, frozenset()) | mine
    return [example for example, _ in found], licences


@dataclass(slots=True)
class Teller:
    """Tells the run's listener how far a synthesis is, at most every other second."""

    run: Run
    name: str
    emitted: rows.Emitted
    till: Till
    seeds: int
    told: float = -TELL_EVERY_S

    def beat(self) -> None:
        """Tell, and end the conversation where the run has ended. Raises `Stopped`."""
        if self.run.stopping.is_set():
            raise Stopped(f"{self.name}: stopped; what was answered is kept, and the same command goes on")
        self.tell()

    def tell(self) -> None:
        now = time.monotonic()
        if now - self.told < TELL_EVERY_S:
            return
        self.told = now
        done = min(len(self.emitted.parents), self.seeds) if self.seeds else sum(self.emitted.counts.values())
        self.run.listener.progress(self.name, done, self.seeds or None, self.note(done))

    def note(self, done: int) -> str:
        """Rows by outcome, then what was asked and what it cost, now and by the end."""
        counts = self.emitted.counts
        parts = [f"{counts['']:,} accepted", *(f"{n:,} {reason}" for reason, n in counts.most_common() if reason)]
        return ", ".join(parts) + self.till.note(done / self.seeds if self.seeds else 0.0)

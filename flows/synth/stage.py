"""A synthesis as a stage: from seeds, models and a seed to accepted rows, refused rows, replies and what they cost."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq

from flows.recipes import Recipe
from flows.run import Counts, Run
from flows.synth import rows
from flows.synth.asked import Synthesis
from flows.synth.spend import Caching, Purse, Till
from flows.voices import SpaceOnWorkers
from flows.workers import Workers
from models.converse import Place, converse
from models.endpoint.spec import EndpointSpec
from models.protocol import UNANSWERED
from warehouse.pools import example_of, opened
from warehouse.records import Example
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import SELECTED_FILE

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
    """The rows of `asked`; a run after one that left rows unanswered asks for those again, and only for those."""

    def work(number: int) -> Work:
        again = {"round": number} if number else {}
        inputs = {"seeds": seeds.key} if seeds is not None else {}
        return Work("synthesize", SYNTHESIZE_VERSION, asked.params | again, inputs, seed=kitchen.seed)

    number = 0
    while (found := run.store.find(work(number))) is not None and found.manifest["facts"]["unanswered"]:
        number += 1
    making = Making(run, name, asked, seeds, kitchen, workers)
    return run.stage(name, work(number), lambda draft: making(work(number).key, draft))


@dataclass(frozen=True, slots=True)
class Making:
    """One synthesis under way. The dialogues are led here; local models answer on the workers."""

    run: Run
    name: str
    asked: Synthesis
    seeds: Artifact | None
    kitchen: Kitchen
    workers: Workers

    def __call__(self, key: str, draft: Draft) -> Counts:
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
            draft.facts.update(till.write(draft.folder, key, emitted.heard))
        draft.facts["models"] = self.asked.named
        refused = dict(emitted.counts)
        accepted = refused.pop("", 0)
        draft.facts["unanswered"] = sum(refused.get(reason, 0) for reason in UNANSWERED)
        return Counts(accepted + sum(refused.values()), accepted, refused)

    def open(self, caching: Caching = "use") -> AbstractContextManager[Till]:
        return self.kitchen.purse.open(self.run.store.home, self.workers, caching)

    def converse(self, examples: Sequence[Example], emitted: rows.Emitted, till: Till) -> None:
        teller = Teller(self.run, self.name, emitted, till, len(examples))

        def emit(place: Place, made: rows.Made, heard: rows.Heard) -> None:
            emitted(place, made, heard)
            teller.tell()

        models = {role: till.model(voice) for role, voice in self.asked.voices.items()}
        encoders = {role: SpaceOnWorkers(space, self.workers) for role, space in self.asked.spaces.items()}
        job = self.asked.job(examples, np.random.default_rng(self.kitchen.seed))
        converse([job], models, encoders, emit, verifiers=self.asked.verifiers)


def seeds_of(seeds: Artifact | None) -> tuple[list[Example], dict[str, str | None]]:
    """The rows to start from, of a pool or of a selection, and the licence of each by its sample id."""
    if seeds is None:
        return [], {}
    if seeds.stage == "select":
        chosen = pq.read_table(seeds.folder / SELECTED_FILE, columns=["messages", "source", "meta", "licence"])
        found = [(example_of(row), row["licence"]) for row in chosen.to_pylist()]
    else:
        pool = opened(seeds.folder)
        found = list(zip(pool.examples(np.arange(pool.n)), pool.column("licence").tolist(), strict=True))
    return [example for example, _ in found], {example.sample_id: licence for example, licence in found}


@dataclass(slots=True)
class Teller:
    """Tells the run's listener how far a synthesis is, at most every other second."""

    run: Run
    name: str
    emitted: rows.Emitted
    till: Till
    seeds: int
    begun: float = field(default_factory=time.monotonic)
    told: float = -TELL_EVERY_S

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

"""The course of an arm: its training stages one after the other, and the merge of what several seeds made.

The rows of later stages are prepared once for the whole run; those that ask what a test row asks are left out.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.contaminated import unasked
from flows.recipes import Recipe, Source, Stage, Train
from flows.run import Counts, Run
from flows.scale import check_shared
from flows.sources import located, read
from flows.tune import BLENDED_FILE, WEIGHTS, Start, later, trainer, tune
from flows.workers import Workers
from models.fingerprint import fetch
from training.dpo import Dpo
from training.merge import Cat, Linear, Merge, merge_of, shares
from training.sft import Sft
from training.tuning.fitting import check_fit
from warehouse import pair_files, sources
from warehouse.errors import InputError
from warehouse.records import Checkpoint, canonical
from warehouse.store import TRAINED_ON, Artifact, Draft, Work
from warehouse.tables import CHECKPOINT, MESSAGES, SELECTED_FILE, write_rows
from warehouse.trained_rows import key_of_rows

PAIRS_VERSION = 2
BLEND_VERSION = 2
MERGE_VERSION = 1
ROWS = pa.schema([("messages", MESSAGES), ("meta", pa.string())])
FEW = 1000  # annotated rows below which demonstrations alone do better ("Balancing the Budget", 2025)
HELD_OUT = "asks what a test row asks"

HeldOut = Mapping[str, Artifact]


def check(recipe: Recipe) -> None:
    """Raise `InputError` for what can be known to be wrong with the stages and the merge before work starts."""
    chosen = recipe.train
    if chosen is None:
        return
    _check_trainers(chosen)
    for name, stage in stages(chosen).items():
        if learns_from_rows(stage, chosen):
            continue
        if stage.replay:
            raise InputError(f"{name} of `then` learns from pairs, so no rows of the selection are replayed in it")
        for source in pair_sources(stage, Path(recipe.data)):
            pair_files.probe_pairs(source)
    if chosen.merge is not None:
        way = merge_of(chosen.merge.name, chosen.merge.params)
        if len(recipe.seeds) < 2:
            raise InputError("`merge` merges the checkpoints of several seeds: give `seeds`, such as [0, 1, 2]")
        if isinstance(way, Linear | Cat):
            shares(way.weights, len(recipe.seeds))
        if way.spec.name == "cat" and (chosen.then or chosen.prune or trainer(chosen).tuning.spec.name != "lora"):
            raise InputError("merge `cat` joins LoRA adapters of the base model: tune with `lora`, or merge by `mean`")


def _check_trainers(chosen: Train) -> None:
    """Raise `InputError` for a tuning that does not fit the base model, and for what `scale` cannot share.

    Stages that learn from pairs run in one process, and a run says so.
    """
    folder = fetch(chosen.base, trust_remote_code=chosen.trust_remote_code)
    for each in (trainer(chosen), *(later(stage, chosen) for stage in chosen.then)):
        check_fit(each.tuning, folder, chosen.trust_remote_code)
        if isinstance(each, Sft):
            check_shared(each, chosen.scale)


def stages(chosen: Train) -> dict[str, Stage]:
    """The later stages by the names that runs give them."""
    return {f"stage {number}": stage for number, stage in enumerate(chosen.then, 2)}


def rows_of(chosen: Train) -> dict[str, Sequence[Source]]:
    """Stage to the sources of the conversations that it reads, of those later stages that read some."""
    return {name: stage.rows for name, stage in stages(chosen).items() if learns_from_rows(stage, chosen)}


def learns_from_rows(stage: Stage, chosen: Train) -> bool:
    """Whether a stage reads conversations, and not preference pairs."""
    return isinstance(later(stage, chosen), Sft)


def pair_sources(stage: Stage, data: Path) -> list[sources.Source]:
    """The files of a preference stage. Raises `InputError` for rows that are to be synthesized."""
    if any(source.path is None for source in stage.rows):
        raise InputError(f"trainer {stage.trainer!r} learns from pairs, which no synthesizer makes; give `path`")
    return [located(source, data).source for source in stage.rows]


def pairs(run: Run, name: str, stage: Stage, data: Path, held_out: HeldOut) -> Artifact:
    """The preference pairs of a stage, without those whose prompt asks what a test row asks."""
    given = pair_sources(stage, data)
    params = {"content": [pair_files.content_of(source) for source in given]}
    work = Work("pairs", PAIRS_VERSION, params, {"held_out": _keys(held_out)})

    def make(draft: Draft) -> Counts:
        asked = frozenset(each.decode() for test in held_out.values() for each in read(test).prompt_ids().tolist())
        made, funnel = pair_files.write_pairs(given, draft.folder, asked)
        draft.facts[TRAINED_ON] = made.key
        return Counts(funnel.rows_in, funnel.rows_out, dict(funnel.dropped))

    return run.stage(name, work, make)


def _keys(held_out: HeldOut) -> list[str]:
    return sorted(test.key for test in held_out.values())


@dataclass(frozen=True, slots=True)
class Course:
    """What the training of one run's arms shares.

    chosen    what the recipe says of training
    start     the weights that the first stage starts from
    sets      the prepared rows of each later stage, in order: a pool version, or pairs
    held_out  the sets that models are examined with
    """

    run: Run
    chosen: Train
    start: Start
    sets: tuple[Artifact, ...]
    held_out: HeldOut
    workers: Workers

    def __call__(self, title: str, selection: Artifact, seed: int) -> tuple[Artifact, ...]:
        """The checkpoints of all stages, first to last, trained on `selection` first."""
        made = [self._tune(f"train {title}", trainer(self.chosen), self.start, selection, seed)]
        for number, (stage, rows) in enumerate(zip(self.chosen.then, self.sets, strict=True), 2):
            name = f"{title}, stage {number}"
            replay = Replay(selection, stage.replay, seed, number) if stage.replay else None
            if learns_from_rows(stage, self.chosen):
                rows = blend(self.run, f"rows of {name}", rows, replay, self.held_out)
            made.append(self._tune(f"train {name}", later(stage, self.chosen), Start.after(made[-1]), rows, seed))
        return tuple(made)

    def _tune(self, name: str, trainer: Sft | Dpo, start: Start, rows: Artifact, seed: int) -> Artifact:
        return tune(self.run, name, trainer, start, rows, seed, self.chosen, self.workers)

    @property
    def conversations(self) -> dict[str, Artifact]:
        """The rows of each later stage that learns from conversations, by its name."""
        named = zip(stages(self.chosen), self.sets, strict=True)
        return {name: rows for name, rows in named if name in rows_of(self.chosen)}

    def merged(self, title: str, checkpoints: Sequence[Artifact], seed: int) -> Artifact:
        """The checkpoints of several seeds as one."""
        assert self.chosen.merge is not None  # asked for where the recipe merges
        way = merge_of(self.chosen.merge.name, self.chosen.merge.params)
        params = {"trainer": "merge", "params": {"name": way.spec.name, **way.spec.params}}
        inputs = {"checkpoints": [each.key for each in checkpoints]}
        work = Work("train", MERGE_VERSION, params, inputs, self.start.fingerprint, seed)
        folders = [each.folder / WEIGHTS for each in checkpoints]
        make = partial(_merge, way, folders, self.start, seed, self.chosen.trust_remote_code, work)
        return self.run.stage(f"merge {title}", work, make, self.workers)

    def advice(self, budgets: Sequence[int]) -> str | None:
        """What the run says of its preference stages, or None."""
        if all(learns_from_rows(stage, self.chosen) for stage in self.chosen.then):
            return None
        rows = min(budgets) + sum(each.manifest["facts"]["rows_out"] for each in self.sets)
        if rows >= FEW:
            return None
        return (
            f"note: {rows:,} annotated rows and pairs in all, fewer than {FEW:,}: with so few, demonstrations alone do "
            "better than a share of preference pairs; see docs/preferences.md"
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """A share of a selection's rows that a stage, known by its number, trains on once more."""

    selection: Artifact
    share: float
    seed: int
    stage: int

    def drawn(self) -> pa.Table:
        """At least one row; other stages draw others."""
        chosen = pq.read_table(self.selection.folder / SELECTED_FILE, columns=ROWS.names)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, self.stage]))
        rows = np.sort(rng.choice(len(chosen), max(1, round(self.share * len(chosen))), replace=False))
        return chosen.take(rows).cast(ROWS)


def blend(run: Run, name: str, rows: Artifact, replay: Replay | None, held_out: HeldOut) -> Artifact:
    """Rows of a later stage: all of `rows` that no test row asks, and what is replayed."""
    inputs: dict[str, Any] = {"rows": rows.key, "held_out": _keys(held_out)}
    params: dict[str, Any] = {}
    if replay:
        inputs |= {"selection": replay.selection.key}
        params |= {"replay": replay.share, "stage": replay.stage}
    work = Work("blend", BLEND_VERSION, params, inputs, seed=replay.seed if replay else None)

    def make(draft: Draft) -> Counts:
        pool = read(rows)
        kept = unasked(pool, held_out)
        again = replay.drawn() if replay else ROWS.empty_table()
        with pq.ParquetWriter(draft.folder / BLENDED_FILE, ROWS, compression="zstd") as file:
            for _, table in pool.take(kept, ROWS.names):
                file.write_table(table.cast(ROWS))
            file.write_table(again)
        draft.facts[TRAINED_ON] = key_of_rows(draft.folder / BLENDED_FILE)
        dropped = {HELD_OUT: pool.n - len(kept)} if len(kept) < pool.n else {}
        return Counts(pool.n + len(again), len(kept) + len(again), dropped)

    return run.stage(name, work, make)


def _merge(
    way: Merge, folders: Sequence[Path], start: Start, seed: int, trust_remote_code: bool, work: Work, draft: Draft
) -> Counts:
    from training.merge import merge
    from training.record import peak_memory

    began = time.perf_counter()
    checkpoints = [Checkpoint(folder, start.model, way.spec, "", seed) for folder in folders]
    merge(way, checkpoints, draft.folder / WEIGHTS, seed, trust_remote_code)
    row = {"checkpoint": work.key, "base": start.told, "base_fingerprint": start.fingerprint, "trainer": "merge",
           "params": canonical(work.params["params"]), "data": None, "seed": seed, "rows": 0, "tokens": 0,
           "label_tokens": 0, "steps": 0, "seconds": time.perf_counter() - began, "flops": 0.0,
           "peak_memory_bytes": peak_memory(), "precision": "float32"}  # fmt: skip
    write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [row])
    return Counts(0, 0)

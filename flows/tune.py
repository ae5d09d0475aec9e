"""The training stage: one selection, one seed, one checkpoint."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.choose import chosen_rows
from flows.recipes import Train
from flows.run import Counts, Run
from flows.workers import Workers
from models.fingerprint import fingerprint
from training.protocol import Trainer
from training.sft import Sft
from training.table import TRAINERS
from warehouse.errors import InputError
from warehouse.records import Dataset, Spec, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import CHECKPOINT, LOSSES, SELECTED_FILE, write_rows

TRAIN_VERSION = 1
WEIGHTS = "model"


@dataclass(frozen=True, slots=True)
class Order:
    """One training run as it is sent to a worker. `scratch` is kept until it is done, so that a killed one resumes."""

    checkpoint: str
    trainer: str
    params: dict[str, Any]
    spec: Spec
    base: str
    base_fingerprint: str
    data: Dataset
    seed: int
    scratch: Path


def trainer(chosen: Train) -> Sft:
    """The trainer a recipe names. Raises `InputError` for an unknown name or parameter, listing the known ones."""
    if chosen.trainer not in TRAINERS:
        raise InputError(f"unknown trainer {chosen.trainer!r}; known trainers: {', '.join(TRAINERS)}")
    params = chosen.params | ({"trust_remote_code": True} if chosen.trust_remote_code else {})
    if unknown := set(params) - set(Sft.__dataclass_fields__):
        raise InputError(
            f"trainer {chosen.trainer!r} has no parameter {', '.join(sorted(unknown))}; "
            f"known: {', '.join(Sft.__dataclass_fields__)}"
        )
    made = TRAINERS[chosen.trainer](**params)
    assert isinstance(made, Sft)  # every entry of the table is one, with other defaults
    return made


def train(run: Run, name: str, chosen: Train, selection: Artifact, seed: int, workers: Workers) -> Artifact:
    """Tune the base model on the rows of `selection`."""
    spec = trainer(chosen).spec
    base_fingerprint = fingerprint(chosen.base)
    work = Work("train", TRAIN_VERSION, {"trainer": spec.name, "params": dict(spec.params)}, {"data": selection.key},
                base_fingerprint, seed)  # fmt: skip
    order = Order(
        checkpoint=work.key,
        trainer=spec.name,
        params=dict(spec.params),
        spec=spec,
        base=chosen.base,
        base_fingerprint=base_fingerprint,
        data=data_of(selection),
        seed=seed,
        scratch=run.store.home / "tmp" / f"train-{work.key}",
    )
    return run.stage(name, work, partial(_train, order), workers)


def data_of(selection: Artifact) -> Dataset:
    """The chosen conversations, best first, and their weights where they are not all the same."""
    weights = chosen_rows(selection)["weight"]
    path = selection.folder / SELECTED_FILE
    return Dataset(path, selection.key, weights=None if (weights == weights[:1]).all() else weights)


def _train(order: Order, draft: Draft) -> Counts:
    made = TRAINERS[order.trainer](**order.params)
    weights = carried_out(made, order.base, order.data, order.seed, order.scratch, draft)
    facts = facts_of(weights)
    write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [_row(order, facts)])
    losses = pq.read_table(weights / "loss.parquet").to_pylist()
    write_rows(draft.folder / "losses.parquet", LOSSES, [{"checkpoint": order.checkpoint} | row for row in losses])
    return funnel(facts)


def carried_out(trainer: Trainer, base: str, data: Dataset, seed: int, scratch: Path, draft: Draft) -> Path:
    """Train in a folder that outlives a killed process, and move the result into the draft: its folder there."""
    with working_folder(scratch, draft.folder) as folder:
        trainer(base, data, folder, seed)
        shutil.move(folder, draft.folder / WEIGHTS)
    return draft.folder / WEIGHTS


def facts_of(weights: Path) -> dict[str, Any]:
    """What a training run says of itself."""
    facts: dict[str, Any] = json.loads((weights / "training.json").read_text())
    return facts


def funnel(facts: Mapping[str, Any]) -> Counts:
    """Rows that a training run was given and those it trained on."""
    dropped = dict(facts["funnel"])
    rows_in, kept = dropped.pop("rows_in"), dropped.pop("kept")
    return Counts(rows_in, kept, {reason: n for reason, n in dropped.items() if n})


@contextlib.contextmanager
def working_folder(lasting: Path, private: Path) -> Iterator[Path]:
    """A folder that outlives a killed process, so that training resumes; a private one while another run uses that."""
    lasting.mkdir(parents=True, exist_ok=True)
    with (lasting.with_suffix(".lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield private / "work"
            return
        yield lasting / "work"
        shutil.rmtree(lasting, ignore_errors=True)
        lasting.with_suffix(".lock").unlink()


def _row(order: Order, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "checkpoint": order.checkpoint,
        "base": order.base,
        "base_fingerprint": order.base_fingerprint,
        "trainer": order.trainer,
        "params": canonical(order.params),
        "data": order.data.key,
        "seed": order.seed,
        "rows": facts["funnel"]["kept"],
        "tokens": facts["tokens"],
        "label_tokens": round(facts["label_tokens_per_epoch"] * facts["trainer"]["epochs"]),
        "steps": facts["steps"],
        "seconds": facts["seconds"],
        "flops": float(facts["flops"]),
        "peak_memory_bytes": facts["peak_memory_bytes"],
        "precision": facts["precision"],
    }

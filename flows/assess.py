"""The evaluation stage: one checkpoint (or the untouched base model), one task, every item's outcome."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.assess import Assessment
from eval.assess import assess as examine
from eval.protocol import Task
from eval.table import TASKS
from flows.entries import make
from flows.recipes import Named, Recipe, Train
from flows.run import Counts, Run
from flows.tune import WEIGHTS, trainer
from flows.workers import Workers
from models.fingerprint import fingerprint
from warehouse.pools import PoolReader
from warehouse.records import Checkpoint, Example, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import EVAL_ITEMS, EVALUATION, write_rows

EVALUATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Exam:
    """One evaluation as it is sent to a worker. `tuned` None is the base model as it is."""

    evaluation: str
    checkpoint: str
    entry: Named
    base: str
    tuned: Checkpoint | None
    trust_remote_code: bool
    test: Path
    seed: int


def task(entry: Named, examples: Sequence[Example]) -> Task:
    """The task a recipe names, over `examples`. Raises `InputError` for an unknown name or parameter."""
    return make("task", TASKS, entry.name, entry.params, examples=tuple(examples))


def assess(
    run: Run, name: str, recipe: Recipe, checkpoint: Artifact | None, test: Artifact, workers: Workers
) -> list[Artifact]:
    """One evaluation per task of the recipe; `checkpoint` None is the base model as it is."""
    assert recipe.train is not None  # a recipe with tasks trains
    return [_assess(run, name, recipe.train, entry, checkpoint, test, recipe.seed, workers) for entry in recipe.tasks]


def _assess(
    run: Run,
    name: str,
    chosen: Train,
    entry: Named,
    tuned: Artifact | None,
    test: Artifact,
    seed: int,
    workers: Workers,
) -> Artifact:
    base = fingerprint(chosen.base)
    inputs = {"checkpoint": tuned.key if tuned else "", "test": test.key}
    work = Work("evaluate", EVALUATE_VERSION, {"task": entry.name, "params": entry.params}, inputs, base, seed)
    exam = Exam(
        evaluation=work.key,
        checkpoint=tuned.key if tuned else f"base:{base}",
        entry=entry,
        base=chosen.base,
        tuned=_checkpoint(tuned, chosen) if tuned else None,
        trust_remote_code=chosen.trust_remote_code,
        test=test.folder,
        seed=seed,
    )
    return run.stage(f"{name}: {entry.name}", work, partial(_examine, exam), workers)


def _checkpoint(tuned: Artifact, chosen: Train) -> Checkpoint:
    made_from = tuned.manifest["inputs"]["data"]
    return Checkpoint(tuned.folder / WEIGHTS, chosen.base, trainer(chosen).spec, made_from, tuned.manifest["seed"])


def _examine(exam: Exam, draft: Draft) -> Counts:
    from models.local import LocalModel, load_checkpoint

    test = PoolReader(exam.test)
    examples = test.examples(range(test.n))
    # near ties a greedy bf16 reply can depend on its batch; evaluations must not
    options: dict[str, Any] = {"trust_remote_code": exam.trust_remote_code, "dtype": "float32"}
    model = load_checkpoint(exam.tuned, **options) if exam.tuned else LocalModel.load(exam.base, **options)
    chosen = task(exam.entry, examples)
    answer = examine(chosen, model, exam.checkpoint, np.random.default_rng(exam.seed))
    _write(draft, exam, answer)
    return Counts(len(examples), len(chosen.items()), _left_out(len(examples), len(chosen.items())))


def _left_out(rows: int, items: int) -> dict[str, int]:
    return {"beyond the task's limit": rows - items} if items < rows else {}


def _write(draft: Draft, exam: Exam, answer: Assessment) -> None:
    spec = answer.report.task
    known = {"evaluation": exam.evaluation, "checkpoint": exam.checkpoint, "task": exam.entry.name}
    metrics = [
        {**known, "spec": spec.key, "params": canonical(dict(spec.params)), "metric": metric, "value": estimate.value,
         "low": estimate.low, "high": estimate.high, "n": estimate.n, "seed": exam.seed}
        for metric, estimate in answer.report.metrics.items()
    ]  # fmt: skip
    write_rows(draft.folder / "evaluation.parquet", EVALUATION, metrics)
    items = [known | row for row in answer.table().to_pylist()]
    write_rows(draft.folder / "eval_items.parquet", EVAL_ITEMS, items)

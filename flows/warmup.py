"""The warm-up run that LESS compares gradients at: an adapter trained on a random part of the candidates."""

from collections.abc import Mapping
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from flows.choose import Choice, Question, select
from flows.run import Counts, Run
from flows.tune import carried_out, data_of, facts_of, funnel
from flows.workers import Workers
from models.fingerprint import fingerprint
from selection.limits import Limits
from selection.random_rows import Random
from training.warmup import Warmup, less
from warehouse.store import Artifact, Draft, Work

WARMUP_VERSION = 1


def warm_up(
    run: Run, question: Question, base: str, given: Mapping[str, Any], seed: int, workers: Workers, max_length: int
) -> Artifact:
    """`base` warmed up on a random share of the candidates; the checkpoints are in the artifact's model folder."""
    n = question.candidates.manifest["facts"]["rows_out"]
    rows = max(1, ceil(given["warmup"] * n))
    drawn = select(run, question, Choice("random", {}, Random(), Limits(rows), seed))
    warmup = Warmup(less(max_length=max_length), given["checkpoints"])
    work = Work(
        "warmup", WARMUP_VERSION, {"trainer": warmup.spec.name, "params": dict(warmup.spec.params)},
        {"data": drawn.key}, fingerprint(base), seed,
    )  # fmt: skip
    scratch = run.store.home / "tmp" / f"warmup-{work.key}"
    return run.stage(f"warm up {Path(base).name}", work, partial(_train, warmup, base, drawn, seed, scratch), workers)


def _train(warmup: Warmup, base: str, drawn: Artifact, seed: int, scratch: Path, draft: Draft) -> Counts:
    return funnel(facts_of(carried_out(warmup, base, data_of(drawn), seed, scratch, draft)))

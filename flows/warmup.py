"""The warm-up run that LESS compares gradients at: an adapter trained on a random part of the candidates."""

import json
from functools import partial
from math import ceil
from pathlib import Path

from flows.choose import Choice, Question, select
from flows.meter import Meter
from flows.run import Counts, Run
from flows.tune import WEIGHTS, carried_out, data_of, facts_of, funnel
from flows.workers import Workers
from models.fingerprint import fingerprint
from selection.limits import Limits
from selection.random_rows import Random
from training.warmup import Warmup, less
from warehouse.store import ROWS_FROM, Artifact, Draft, Work

WARMUP_VERSION = 2


def warm_up(run: Run, question: Question, meter: Meter, asked: str, seed: int, workers: Workers) -> Artifact:
    """The warm-up that `meter` is asked for: its base model on a random share of the candidates; the meter is told."""
    given = json.loads(asked)
    base = meter.names[given["model"]][0]
    n = question.candidates.manifest["facts"]["rows_out"]
    drawn = select(run, question, Choice("random", {}, Random(), Limits(max(1, ceil(given["warmup"] * n))), seed))
    sft = less(max_length=meter.representation.max_length, trust_remote_code=base in meter.trusted)
    warmup = Warmup(sft, given["checkpoints"])
    work = Work(
        "warmup", WARMUP_VERSION, {"trainer": warmup.spec.name, "params": dict(warmup.spec.params)},
        {"data": data_of(drawn).key}, fingerprint(base), seed,
    )  # fmt: skip
    scratch = run.store.home / "tmp" / f"warmup-{work.key}"
    made = run.stage(f"warm up {Path(base).name}", work, partial(_train, warmup, base, drawn, seed, scratch), workers)
    meter.warmed[asked] = made.key, made.folder / WEIGHTS
    return made


def _train(warmup: Warmup, base: str, drawn: Artifact, seed: int, scratch: Path, draft: Draft) -> Counts:
    draft.facts[ROWS_FROM] = drawn.key
    return funnel(facts_of(carried_out(warmup, base, data_of(drawn), seed, scratch, draft)))

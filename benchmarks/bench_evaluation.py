"""Evaluation on a processor: likelihoods of choices and greedy replies, against lm-eval's own transformers backend.

python -m benchmarks.bench_evaluation [--json] [--items N]

The same items, the same weights (winnow-tiny after 450 rows, float32), the same prompts to the token, one thread for
both. lm-eval is timed at batch sizes 1, 16 and 64, and its best counts; 64 is what its "auto" settles on here, after
half a minute of trying that it is spared. Both sides answer once before they are timed and take turns; medians of three
rounds are shown, in items per second of processor time, which other processes disturb less than the clock. What both
answered is compared. Every round encodes its prompts anew.

Worked examples are part of the questions, as benchmarks ask them. Without them prompts share nothing, and most of the
time goes into the same matrix products on both sides; the goal is the same.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.evaluation_cases import MODEL, asked, chosen, longer, tuned
from benchmarks.frame import Row, run
from eval.choice import Choice
from eval.context import fitted
from eval.harness import Settings, ask, lm_of, load
from eval.protocol import TUNED
from eval.rows import RowTask
from eval.suite_rows import own_task
from eval.tasks import ExactMatch
from models.converse import converse
from models.encoded import Encoded
from models.local import LocalModel

T = TypeVar("T")
Sides = dict[str, Callable[[], list[float]]]
ROUNDS = 3
GOAL = 2.0
TOKENS = 32
LONG = 64
BATCHES = (1, 16, 64)
SHOTS = 8


def timed(sides: dict[str, Callable[[], T]]) -> tuple[dict[str, float], dict[str, T]]:
    """Median seconds of each side over the rounds, in which they take turns, and what each found."""
    found = {name: side() for name, side in sides.items()}  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.process_time()
            side()
            seconds[name].append(time.process_time() - start)
    return {name: median(each) for name, each in seconds.items()}, found


def scores(model: LocalModel, task: Choice) -> list[float]:
    """Prompts counted, choices scored and graded: all that `assess` does but intervals, which the peer is spared."""
    model.encoded = Encoded(model.backend, model.chat)  # nothing is remembered of the round before
    items = fitted(task.items(), model, task.truncate)
    return [score.values["accuracy"] for score in converse((task.attempt(item) for item in items), {TUNED: model})]


def replies(model: LocalModel, task: ExactMatch) -> list[float]:
    """Replies written and graded; the loss of the gold reply, which the peer does not measure, is left out."""
    model.encoded = Encoded(model.backend, model.chat)
    items = fitted(task.items(), model, task.truncate)
    written = model.complete([task.prompt(item) for item in items])
    pairs = zip(items, written, strict=True)
    return [task.grade(item, reply.text).values["exact_match"] for item, reply in pairs]


def theirs(lm: Any, task: RowTask, max_tokens: int) -> list[float]:
    samples = ask(lm, load(own_task(task.items(), max_tokens), Settings()))
    return [float(sample[sample["metrics"][0]]) for each in samples.values() for sample in each]


def against(model: LocalModel, task: Choice | ExactMatch, what: str) -> Iterator[Row]:
    if isinstance(task, ExactMatch):
        sides: Sides = {"ours": partial(replies, model, task)}
        tokens = task.max_tokens
    else:
        sides, tokens = {"ours": partial(scores, model, task)}, 1
    for size in BATCHES:
        lm = lm_of(model.network, model.tokenizer, model.chat.template, model.max_length, size)
        sides[f"batches of {size}"] = partial(theirs, lm, task, tokens)
    seconds, found = timed(sides)
    best = min((name for name in sides if name != "ours"), key=lambda name: seconds[name])
    speeds = [len(found["ours"]) / seconds[name] for name in ("ours", best)]
    yield Row(f"{what}, lm-eval in {best}", speeds[0], "items/s", GOAL, speeds[1], more_is_better=True)
    apart = float(np.abs(np.subtract(found["ours"], found[best])).sum())
    yield Row(f"{what}: items that score otherwise", apart, "items", 0.0)


def measure(folder: Path, n: int) -> Iterator[Row]:
    model, untaught = tuned(folder), LocalModel.load(MODEL, dtype="float32", device="cpu")
    torch.set_num_threads(1)
    short = chosen(asked("test", n, 1), 1)
    shown = longer(short, asked("validation", SHOTS, 2))
    worked = f"{SHOTS} worked examples"
    yield from against(model, Choice(tuple(shown)), f"{n} × 4 choices, {worked}")
    yield from against(model, ExactMatch(tuple(shown), max_tokens=TOKENS), f"{n} replies, {worked}")
    # a model that was not taught to end its replies writes long ones
    yield from against(untaught, ExactMatch(tuple(short), max_tokens=LONG), f"{n} replies of up to {LONG} tokens")
    yield from against(model, Choice(tuple(short)), f"{n} × 4 choices, short")
    yield from against(model, ExactMatch(tuple(short), max_tokens=TOKENS), f"{n} replies, short")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    given, sys.argv[1:] = parser.parse_known_args()
    with TemporaryDirectory() as temporary:
        sys.exit(run(partial(measure, given.folder or Path(temporary), given.items)))

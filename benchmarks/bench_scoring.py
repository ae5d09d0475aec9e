"""Likelihoods of replies: against transformers in batches of 8 as its examples write it, and with prompts shared;

gradients of LoRA factors.

One thread for all: two wait for each other wherever a core is shared, and then a minute's work takes ten. The three
ways of scoring take turns, part by part of the rows, each once: what else the machine does slows all alike, and the
slow peer is run once for both comparisons. 5,000 rows take about five minutes of one core.

python benchmarks/bench_scoring.py [--json] [--rows N]
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.frame import Row, best_of, generated, race, run
from models.chat import Tokens
from models.forward import pad
from models.gradients import gradients
from models.likelihood import LOGPROBS, response_values, score_responses
from models.local import LocalModel
from models.lora import fresh_factors
from warehouse.records import Message, Messages

MODEL = "winnow-tiny"
PARTS, FIRST = 5, 64  # parts of the rows that are scored in turn; rows that each way scores before time is taken


def text(median: float, rng: np.random.Generator, spread: float = 1) -> str:
    length = int(np.exp(rng.normal(np.log(median), spread)).clip(1, 10 * median))
    return generated(length, rng)


def conversations(n: int, rng: np.random.Generator) -> list[Messages]:
    """`n` rows with the lengths of instruction data: prompts of about 25 words, replies of about 20."""
    return [(Message("user", text(25, rng)), Message("assistant", text(20, rng))) for _ in range(n)]


def candidates(n: int, rng: np.random.Generator) -> list[Messages]:
    """`n` rows, 8 replies of about 20 words to each prompt of about 80."""
    prompts = [text(80, rng, spread=0.3) for _ in range(n // 8)]
    return [(Message("user", prompt), Message("assistant", text(20, rng, 0.5))) for prompt in prompts for _ in range(8)]


def by_transformers(network: torch.nn.Module, rows: Sequence[Tokens]) -> NDArray[np.float32]:
    """Mean negative log-likelihood of each row's reply: rows as they come, 8 at once, padded, labels masked."""
    found: list[float] = []
    for start in range(0, len(rows), 8):
        batch = rows[start : start + 8]
        ids, mask = pad([row.ids for row in batch], left=False)
        reply = pad([row.reply.astype(np.int32) for row in batch], left=False)[0] > 0
        labels = ids.masked_fill(~reply, -100)
        with torch.inference_mode():
            logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
            )
            found += (losses.sum(1) / (labels[:, 1:] >= 0).sum(1)).tolist()
    return np.array(found, np.float32)


def scored(model: LocalModel, rows: Sequence[Tokens]) -> NDArray[np.float32]:
    """As `by_transformers`, by ours."""
    return response_values(model.read(rows, LOGPROBS))[:, 0]


def in_turns(
    ways: Sequence[Callable[[Sequence[Tokens]], NDArray[np.float32]]], rows: Sequence[Tokens]
) -> list[tuple[float, NDArray[np.float32]]]:
    """Seconds and scores (n,) of each way, after a first call that is not counted."""
    for way in ways:
        way(rows[:FIRST])
    size = -(-len(rows) // PARTS)
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    taken = [[best_of(1, partial(way, part)) for way in ways] for part in parts]
    found = zip(*taken, strict=True)
    return [(sum(seconds for seconds, _ in each), np.concatenate([scores for _, scores in each])) for each in found]


def plain(model: LocalModel, rows: Sequence[Messages]) -> NDArray[np.float32]:
    return response_values(model.read(model.encode(rows), LOGPROBS))


def agree(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Within 1e-4 nats; a row whose reply was cut off has no score either way."""
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4, equal_nan=True)


def measure(n: int) -> Iterator[Row]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = LocalModel.load(MODEL, dtype="float32", device="cpu", template="grape")
    rows = conversations(n, rng)
    quick = LocalModel.load(MODEL, device="cpu", template="grape")
    ways = (partial(scored, model), partial(scored, quick), partial(by_transformers, model.network))
    (mine, exact), (rapid, rough), (theirs, losses) = in_turns(ways, model.encode(rows))
    agree(exact, losses)
    yield Row(f"{n:,} replies scored, float32, against transformers", mine, "s", 2, theirs)
    yield Row(f"{n:,} replies scored, {quick.dtype}, against transformers in float32", rapid, "s", 3, theirs)
    apart = float(np.nanmean(np.abs(rough - losses)))
    yield Row("mean difference from its scores, nats per token", apart, "", 0.02)
    shared = candidates(n // 4, rng)
    seconds, together, theirs, alone = race(2, partial(score_responses, model, shared), partial(plain, model, shared))
    agree(together[:, 0], alone[:, 0])
    yield Row(f"{len(shared):,} replies, 8 to a prompt of 80 words, against no sharing", seconds, "s", 1.2, theirs)
    few = rows[: n // 20]
    factors = fresh_factors(model, rank=8)
    seconds, _ = best_of(2, partial(gradients, model, factors, few, adam=False))
    yield Row("gradients of LoRA factors of rank 8", len(few) / seconds, "rows/s", 10, more_is_better=True)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rows", type=int, default=5_000)
    given, sys.argv[1:] = parser.parse_known_args()
    sys.exit(run(partial(measure, given.rows)))

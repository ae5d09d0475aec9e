"""Likelihoods of replies: against transformers in batches of 8 as its examples write it, and with prompts shared;

gradients of LoRA factors.

python benchmarks/bench_scoring.py [--json] [--rows N]
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
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


def plain(model: LocalModel, rows: Sequence[Messages]) -> NDArray[np.float32]:
    return response_values(model.read(model.encode(rows), LOGPROBS))


def agree(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Within 1e-4 nats; a row whose reply was cut off has no score either way."""
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4, equal_nan=True)


def measure(n: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    model = LocalModel.load(MODEL, dtype="float32", device="cpu", template="grape")
    rows = conversations(n, rng)
    tokens = model.encode(rows)
    peer = partial(by_transformers, model.network, tokens)
    seconds, mine, theirs, losses = race(2, lambda: response_values(model.read(tokens, LOGPROBS)), peer)
    agree(mine[:, 0], losses)
    yield Row(f"{n:,} replies scored, float32, against transformers", seconds, "s", 2, theirs)
    quick = LocalModel.load(MODEL, device="cpu", template="grape")
    seconds, rough, theirs, losses = race(2, lambda: response_values(quick.read(tokens, LOGPROBS)), peer)
    yield Row(f"{n:,} replies scored, {quick.dtype}, against transformers in float32", seconds, "s", 3, theirs)
    apart = float(np.nanmean(np.abs(rough[:, 0] - losses)))
    yield Row("mean difference from its scores, nats per token", apart, "", 0.02)
    shared = candidates(n // 4, rng)
    seconds, mine, theirs, alone = race(2, partial(score_responses, model, shared), partial(plain, model, shared))
    agree(mine[:, 0], alone[:, 0])
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

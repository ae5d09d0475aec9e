"""Asking for the log-probability of what the assistant says after a prompt, and what is read off it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.protocol import TUNED
from models.dialogue import Request, Score
from warehouse.records import Message, Messages


def scoring(before: Messages, turns: Sequence[Messages], heard: int | None) -> list[Request]:
    """The requests for the log-probability of the assistant's turns in each of `turns`, all of which follow `before`.

    A `Score` covers every turn of the assistant's. Where it is not known how many reply tokens were `heard` in
    `before`, a request of its own counts them.
    """
    asked: list[Request] = [Score(TUNED, (*before, *each)) for each in turns]
    unknown = heard is None and any(turn.role == "assistant" for turn in before)
    return asked + ([Score(TUNED, before)] if unknown else [])


def scored(replies: Sequence[NDArray[np.float32]], k: int, heard: int | None) -> list[NDArray[np.float32]]:
    """What the replies to `scoring` of k `turns` say: for each, natural log-probabilities of its reply tokens.

    The end token of each reply is included.
    """
    skip = sum(map(len, replies[k:])) if heard is None else heard
    return [each[skip:] for each in replies[:k]]


def reply_turn(text: str) -> Messages:
    return (Message("assistant", text),)


def loss_of(logprobs: NDArray[np.float32]) -> tuple[dict[str, float], dict[str, Any]]:
    """Per-token loss of a gold reply, in nats, and its tokens; no value where truncation left no token."""
    count = len(logprobs)
    values = {"nll": -float(np.sum(logprobs, dtype=np.float64)) / count} if count else {}
    return values, {"n_tokens": count}


def softmax(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (k,) from their unnormalised natural logarithms."""
    powers = np.exp(logs - logs.max())
    found: NDArray[np.float64] = powers / powers.sum()
    return found

"""The log-probability of one reply, whatever was said before it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.dialogue import Dialogue, Request, Score
from warehouse.records import Message, Messages


def reply_logprobs(role: str, question: Messages, reply: str) -> Dialogue[NDArray[np.float32]]:
    """Natural log-probability of each token of `reply`, its end token last, under the model in `role`.

    A `Score` covers all turns of the assistant's, so those within `question` are counted first and left out.
    """
    requests: list[Request] = [Score(role, (*question, Message("assistant", reply)))]
    if any(turn.role == "assistant" for turn in question):
        requests.append(Score(role, question))
    logprobs, *earlier = yield requests
    found: NDArray[np.float32] = logprobs[sum(map(len, earlier)) :]
    return found


def mean_logprob(logprobs: Sequence[float] | NDArray[np.float32]) -> float | None:
    """Mean natural log-probability per token, None where there is no token."""
    return float(np.mean(logprobs, dtype=np.float64)) if len(logprobs) else None

"""How well a refusal-aware model knows what it knows (R-Tuning, Zhang et al. 2024, §4.2): confidence, and whether the
right answers come first when sorted by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.calibration import average_precision
from eval.replying import told
from eval.statistics import bootstrap, share
from models.dialogue import Complete, Dialogue, each
from models.protocol import Completion, Prompt
from models.reply_logprobs import reply_logprobs
from models.sureness import ASKING, with_sureness
from warehouse.records import Estimate, Floats

AP_DRAWS = 1000
SURE = 0.5  # an answer counts as given where the model finds "sure" likelier than "unsure"


@dataclass(frozen=True, slots=True)
class Confidence:
    """A greedy answer, the geometric mean of its tokens' probabilities, and p(sure) / (p(sure) + p(unsure)).

    `told` is what the reply says of itself (`eval.replying.told`). Where it names a `failure` there is no answer, and
    all is 0.
    """

    answer: str
    answer_confidence: float
    sure_probability: float
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Half of each, in [0, 1]; higher is more confident."""
        return refusal_confidence(self.answer_confidence, self.sure_probability)


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """What `refusal_report` measures; a figure that no item gives is None.

    average_precision   of the answers sorted by confidence, which of them are right; None where none is right
    accuracy            share of right answers among all
    accuracy_answered   share of right answers among those the model is sure of; None where it is sure of none
    willingness         share of answers that the model is sure of
    """

    average_precision: Estimate | None
    accuracy: Estimate
    accuracy_answered: Estimate | None
    willingness: Estimate


def confidence(role: str, prompt: Prompt) -> Dialogue[Confidence]:
    """Ask the model in `role` for its answer to `prompt`, greedily, and then how sure it is.

    The answer ends where the model begins to say how sure it is. Its probability is that of its own tokens, without the
    end token. Both endings, "I am sure." and "I am unsure.", are scored as whole replies: what is before the last words
    is the same in both and cancels, however many tokens the words have.
    """
    (reply,) = yield [Complete(role, replace(prompt, temperature=0.0, stop=(*prompt.stop, ASKING)))]
    assert isinstance(reply, Completion)  # what `Complete` is answered by
    if reply.failure:
        return Confidence("", 0.0, 0.0, told(reply))
    answer = reply.text.strip()
    endings = [with_sureness(answer, sure) for sure in (True, False)]
    alone, sure, unsure = yield from each([answer, *endings], lambda text: reply_logprobs(role, prompt.messages, text))
    return Confidence(answer, answer_confidence(alone[:-1]), sure_probability(sure, unsure), told(reply))


def answer_confidence(logprobs: Sequence[float] | NDArray[np.float32]) -> float:
    """Geometric mean of token probabilities from their natural logarithms, in [0, 1]; 0 for an answer of no token."""
    return float(np.exp(np.mean(logprobs, dtype=np.float64))) if len(logprobs) else 0.0


def sure_probability(sure: NDArray[np.float32], unsure: NDArray[np.float32]) -> float:
    """p(sure) / (p(sure) + p(unsure)) from the log-probabilities of the tokens of both replies, in [0, 1]."""
    odds = float(np.sum(sure, dtype=np.float64)) - float(np.sum(unsure, dtype=np.float64))
    return float(np.exp(-np.logaddexp(0.0, -odds)))


def refusal_confidence(answer_confidence: float, sure_probability: float) -> float:
    """0.5 · answer confidence + 0.5 · p(sure)."""
    return 0.5 * answer_confidence + 0.5 * sure_probability


def refusal_report(
    right: NDArray[np.bool_], confidence: Floats, sure: Floats, rng: np.random.Generator
) -> RefusalReport:
    """What n answers tell: whether each is right (n,), its confidence (n,) and p(sure) (n,), with 95 % intervals over
    items."""
    if not len(right) == len(confidence) == len(sure) or not len(right):
        raise ValueError(f"{len(right)} verdicts, {len(confidence)} confidences and {len(sure)} of p(sure) do not fit")
    answered = sure > SURE
    return RefusalReport(
        average_precision=_average_precision(right, confidence, rng) if right.any() else None,
        accuracy=_share(right, rng),
        accuracy_answered=_share(right[answered], rng) if answered.any() else None,
        willingness=_share(answered, rng),
    )


def _share(values: NDArray[np.bool_], rng: np.random.Generator) -> Estimate:
    return share(int(values.sum()), len(values)) or bootstrap(values.astype(np.float64), rng)


def _average_precision(right: NDArray[np.bool_], confidence: Floats, rng: np.random.Generator) -> Estimate:
    """With a percentile interval of `AP_DRAWS` bootstrap draws; draws without a right answer say nothing and are left
    out."""
    value = average_precision(right, confidence)
    picks = rng.integers(0, len(right), (AP_DRAWS, len(right)))
    drawn = [average_precision(right[rows], confidence[rows]) for rows in picks if right[rows].any()]
    low, high = (float(q) for q in np.percentile([*drawn, value], (2.5, 97.5)))
    return Estimate(value, min(low, value), max(high, value), len(right))

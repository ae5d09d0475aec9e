"""Whether a model's confidence says how often it is right: calibration error, reliability table, Brier score, ranking.

Confidence is the probability that a model gives to its own answer, in [0, 1]: the softmax over the log-likelihoods of
the choices, or the geometric mean of the answer's token probabilities. Plain functions of arrays of n items.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Estimate, Floats

BINS = 10
Z = 1.96  # standard errors to each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class Bin:
    """The n items whose confidence lies in (low, high], their mean confidence and the share that is right.

    The first bin holds a confidence of 0 too. Without items both means are None. The share has Wilson's interval, of
    items drawn one by one.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: Estimate | None


def reliability(right: NDArray[np.bool_] | Floats, confidence: Floats, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability table: `bins` bins of equal width, empty ones included.

    Raises `ValueError` for arrays of two lengths or a confidence outside [0, 1].
    """
    which = _bin_of(right, confidence, bins)
    counts = np.bincount(which, minlength=bins)
    confidences, rights = (np.bincount(which, weights=x, minlength=bins) for x in (confidence, right))
    return tuple(
        Bin(b / bins, (b + 1) / bins, n, *((float(confidences[b] / n), wilson(rights[b], n)) if n else (None, None)))
        for b, n in enumerate(counts.tolist())
    )


def wilson(right: float, n: int) -> Estimate:
    """The share `right` / n with Wilson's 95 % interval (Wilson 1927)."""
    share, spread = right / n, Z**2 / n
    middle, reach = share + spread / 2, Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low, high = ((middle + sign * reach) / (1 + spread) for sign in (-1, 1))
    return Estimate(share, min(max(low, 0.0), share), max(min(high, 1.0), share), n)


def expected_calibration_error(right: NDArray[np.bool_] | Floats, confidence: Floats, bins: int = BINS) -> float:
    """ECE, in [0, 1], lower is better: Σ over bins n_b / n · |share right - mean confidence| (Naeini et al. 2015)."""
    which = _bin_of(right, confidence, bins)
    gaps = np.bincount(which, weights=np.asarray(right, np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def brier_score(probabilities: Floats, gold: NDArray[np.integer]) -> Floats:
    """(n,) Σ over the k choices of (p - 1 where it is the gold one, else p)², in [0, 2], lower is better (Brier 1950).

    `probabilities` (n, k) sum to 1 in each row; `gold` (n,) is the place of the right choice.
    """
    wanted = np.arange(probabilities.shape[1]) == np.asarray(gold)[:, None]
    scores: Floats = ((probabilities - wanted) ** 2).sum(axis=1)
    return scores


def average_precision(right: NDArray[np.bool_] | Floats, confidence: Floats) -> float:
    """Area under precision against recall when items are sorted by confidence, in [0, 1]; 0 where none is right.

    Σ (R_i - R_{i-1}) · P_i over the distinct confidences, highest first: items of equal confidence enter together.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    hits, sorted_by = np.cumsum(np.asarray(right, np.float64)[order]), np.asarray(confidence)[order]
    last = np.append(np.flatnonzero(np.diff(sorted_by)), len(order) - 1)  # of each run of equals
    if not hits[-1]:
        return 0.0
    gained = np.diff(hits[last], prepend=0.0)
    return float((gained * hits[last] / (last + 1)).sum() / hits[-1])


def refusal_precision(right: NDArray[np.bool_] | Floats, confidence: Floats, sure: Floats) -> float:
    """Average precision of answers sorted by 0.5 · confidence + 0.5 · p(sure) (R-Tuning, Zhang et al. 2024, §4.2)."""
    return average_precision(right, 0.5 * np.asarray(confidence) + 0.5 * np.asarray(sure))


def _bin_of(right: NDArray[np.bool_] | Floats, confidence: Floats, bins: int) -> NDArray[np.int64]:
    """(n,) the bin of each item."""
    if len(confidence) != len(right) or not len(right):
        raise ValueError(f"{len(confidence)} confidences and {len(right)} verdicts do not fit")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError(f"a confidence is a probability; found {confidence.min():g} to {confidence.max():g}")
    # edges as 0.1, not 1 / 10 summed up: (0.2, 0.3] must hold 0.3
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, confidence, side="left")

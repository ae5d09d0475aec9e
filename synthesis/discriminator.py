"""Telling real inputs from synthetic ones by their embeddings, and where to draw the line (after Trans-LoRA, 2024).

scikit-learn takes over a second to import, so it is imported where it is used.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from models.protocol import Vectors
from warehouse.records import Floats

Scorer: TypeAlias = Callable[[Vectors], Floats]
"""(n, d) float32 embeddings to (n,) scores; higher is more like the real inputs."""


def logistic(real: Vectors, synthetic: Vectors) -> Scorer:
    """The log-odds of being real, from a logistic regression in which both classes weigh alike."""
    from sklearn.linear_model import LogisticRegression

    vectors = np.concatenate([real, synthetic])
    labels = np.repeat([1, 0], [len(real), len(synthetic)])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(vectors, labels)
    return lambda points: np.asarray(model.decision_function(points), np.float64)


def nearest(real: Vectors, k: int) -> Scorer:
    """The mean cosine similarity to the `k` nearest real inputs; embeddings are of unit length."""
    k = min(k, len(real))

    def score(points: Vectors) -> Floats:
        similar = points.astype(np.float64) @ real.astype(np.float64).T
        return np.asarray(np.partition(similar, -k, axis=1)[:, -k:].mean(1))

    return score


def area_under_curve(real: Floats, synthetic: Floats) -> float:
    """The chance that a real input scores higher than a synthetic one, in [0, 1]: 0.5 where scores tell nothing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(_labels(real, synthetic), np.concatenate([real, synthetic])))


def best_threshold(real: Floats, synthetic: Floats) -> float:
    """The score from which on to accept, where Youden's J is largest: the share of real inputs accepted less that of
    synthetic ones. Of equally good scores the lowest."""
    from sklearn.metrics import roc_curve

    refused, accepted, thresholds = roc_curve(
        _labels(real, synthetic), np.concatenate([real, synthetic]), drop_intermediate=False
    )
    gain = accepted - refused
    return float(thresholds[np.flatnonzero(gain == gain.max())[-1]])


def _labels(real: Floats, synthetic: Floats) -> Floats:
    return np.repeat([1.0, 0.0], [len(real), len(synthetic)])

"""How far apart two samples lie: maximum mean discrepancy (Gretton et al. 2012, Lemma 6)."""

import numpy as np
from numpy.typing import NDArray

from models.protocol import Vectors
from warehouse.records import Floats

MOST = 2000  # points of a sample that are compared: 32 MB of distances


def squared_mmd(x: Vectors, y: Vectors, bandwidth: float) -> float | None:
    """The unbiased estimate of MMD² between samples (n, d) and (m, d) under exp(-|a - b|² / (2 bandwidth²)).

    0 in the mean where both come from one distribution, so it can be below 0; lower is nearer. None for a sample of
    less than two points. Of more than `MOST` points the first are taken.
    """
    if min(len(x), len(y)) < 2:
        return None
    x, y = x[:MOST], y[:MOST]
    xx, yy, xy = (_kernel(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y)))
    return _off_diagonal(xx) + _off_diagonal(yy) - 2 * float(xy.mean())


def median_distance(points: Vectors) -> float:
    """The median distance between two of the points (n, d), of the first `MOST`; 1 where most of them are equal."""
    few = points[:MOST]
    distances = np.sqrt(_squared_distances(few, few)[np.triu_indices(len(few), 1)])
    return float(np.median(distances)) or 1.0 if len(distances) else 1.0


def _kernel(a: Vectors, b: Vectors, bandwidth: float) -> Floats:
    found: Floats = np.exp(_squared_distances(a, b) / (-2 * bandwidth**2))
    return found


def _squared_distances(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: NDArray[np.float64] = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.maximum(found, 0.0)


def _off_diagonal(kernel: Floats) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))

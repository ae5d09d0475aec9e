"""How the numbers of a pool are spread, for the report's charts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 60
NARROW = 1e-9  # values that differ by a smaller share are all in one bin


def histogram(values: NDArray[Any]) -> dict[str, list[float]]:
    """`counts` (b,) of the finite `values` between `edges` (b + 1,), from the least to the largest of them.

    Values that are all the same lie in the middle of edges 1 apart.
    """
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low <= NARROW * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, BINS, (low, high))
    return {"edges": edges.tolist(), "counts": counts.tolist()}

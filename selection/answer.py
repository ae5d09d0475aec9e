"""How a method's rows become a `Selection`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Floats, Rows, Selection

HIGHER = "higher is better"
LOWER = "lower is better"
NONE = "none"


def selection(
    rows: Rows, scores: NDArray[Any], reasons: Sequence[str], direction: str, **diagnostics: Any
) -> Selection:
    """`rows` (k,) best first with equal weights; `direction` says how their `scores` (k,) read."""
    return Selection(
        rows=rows.astype(np.int64),
        weights=np.ones(len(rows)),
        scores=scores.astype(np.float64),
        reasons=tuple(reasons),
        diagnostics={"direction": direction, **diagnostics},
    )


def summary(scores: Floats, direction: str) -> dict[str, float | None]:
    """The `mean_score` of some `scores` (j,) and their `cut_off`, the worst as `direction` reads; None of none."""
    if not len(scores):
        return {"mean_score": None, "cut_off": None}
    return {"mean_score": float(scores.mean()), "cut_off": float(scores.max() if direction == LOWER else scores.min())}

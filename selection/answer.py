"""How a method's rows become a `Selection`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Rows, Selection

HIGHER = "higher is better"
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

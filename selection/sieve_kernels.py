"""The compiled loop of `selection/sieve.py`: rows rounded to bfloat16 in one pass over memory.

It holds no interpreter lock and checks no index. Sums may be taken in any order: their errors are bounded in any order,
and no answer depends on them.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numba import float32, njit, uint16, uint32
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """`function` as machine code, compiled at its first call and then kept on disk where that can be written."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    }
    try:
        return cast(Callable[P, T], njit(cache=True, **options)(function))
    except RuntimeError:
        return cast(Callable[P, T], njit(**options)(function))


@compiled
def centre_rows(
    rows: NDArray[np.float32],
    centre: NDArray[np.float32],
    halves: NDArray[np.uint16],
    scratch: NDArray[np.uint32],
    facts: NDArray[np.float32],
) -> None:
    """`rows` (b, d) of unit length less `centre` (d,), rounded to nearest: the bits of bfloat16 into `halves` (b, d).

    Into `facts` (3, b): each row's length as it came, the square of that less `centre`, and how far the rounding
    moved it. `scratch` is (2, d). Rows that are not finite or have no length give facts that are not finite.
    """
    single, near = scratch[0].view(np.float32), scratch[1].view(np.float32)
    d = rows.shape[1]
    for i in range(rows.shape[0]):
        total = float32(0)
        for j in range(d):
            total += rows[i, j] * rows[i, j]
        length = np.sqrt(total)
        scale = float32(1) / length
        for j in range(d):
            single[j] = rows[i, j] * scale - centre[j]
        for j in range(d):
            bits = scratch[0, j]
            # half of the last place kept, a little less where that place is even: ties go to even
            rounded = (bits + uint32(0x7FFF) + ((bits >> uint32(16)) & uint32(1))) >> uint32(16)
            halves[i, j] = uint16(rounded)
            scratch[1, j] = rounded << uint32(16)
        square = residue = float32(0)
        for j in range(d):
            square += single[j] * single[j]
            residue += (single[j] - near[j]) * (single[j] - near[j])
        facts[0, i] = length
        facts[1, i] = square
        facts[2, i] = np.sqrt(residue)

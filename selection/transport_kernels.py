"""The compiled loops of `selection/kept.py` and `selection/got_d.py`, and the short numbers that shares are kept as.

A code is the upper part of a float32 of 2⁻⁶³ to 1: 6 bits of its exponent and 10 of its mantissa, without a sign, so
that a share is kept to one part in 2¹¹ whatever its size. The loops hold no interpreter lock and check no index. Sums
are taken in an order that depends on the row's length alone.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numba import float32, int32, njit, uint16, uint32
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")
Single = NDArray[np.float32]
Codes = NDArray[np.uint16]

DROPPED = 13  # lower bits of a mantissa that a code leaves out
LEAST = (127 - 63) << 23  # the bits of 2⁻⁶³, whose code is 0
HALF = 1 << (DROPPED - 1)
GREATEST, SMALLEST = 2**31 - 1, -(2**31)  # of int32


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """`function` as machine code, compiled at its first call and then kept on disk where that can be written."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "arcp", "nsz", "nnan"},
    }
    try:
        return cast(Callable[P, T], njit(cache=True, **options)(function))
    except RuntimeError:
        return cast(Callable[P, T], njit(**options)(function))


@compiled
def exponents(
    costs: Single, scale: np.float32, offsets: Single, least: np.float32, shares: Single, largest: Single
) -> None:
    """Into `shares` (b, m) scale · costs + offsets (m,), less the `largest` (b,) of each row, but at least `least`.

    The largest is found among whole numbers that are ordered as the floats of the same bits are: a processor compares
    many of these at once.
    """
    m, bits, found = costs.shape[1], shares.view(np.int32), largest.view(np.int32)
    for j in range(costs.shape[0]):
        for i in range(m):
            shares[j, i] = costs[j, i] * scale + offsets[i]
        top = int32(SMALLEST)
        for i in range(m):
            order = bits[j, i] ^ ((bits[j, i] >> int32(31)) & int32(GREATEST))
            top = max(top, order)
        found[j] = top ^ ((top >> int32(31)) & int32(GREATEST))
        for i in range(m):
            exponent = shares[j, i] - largest[j]
            shares[j, i] = exponent if exponent > least else least


@compiled
def keep(shares: Single, mass: Single, codes: Codes, sums: Single, usage: Single, rest: Single) -> None:
    """Codes of `shares` (b, m), each in 2⁻⁶³ to 1, into `codes` (b, m).

    `sums` (2, b) of each row and of what its codes stand for; to `usage` (m,) is added the mass that the targets are
    given by rows of `mass` (b,), and to `rest` (m,) how much of it the codes leave out.
    """
    m, bits = shares.shape[1], shares.view(np.uint32)
    short = np.empty(m, np.uint32)
    kept = short.view(np.float32)
    for j in range(shares.shape[0]):
        for i in range(m):
            code = (bits[j, i] - uint32(LEAST) + uint32(HALF)) >> uint32(DROPPED)
            codes[j, i] = uint16(code)
            short[i] = (code << uint32(DROPPED)) + uint32(LEAST)
        total = around = float32(0)
        for i in range(m):
            total += shares[j, i]
            around += kept[i]
        sums[0, j], sums[1, j] = total, around
        one, other = mass[j] / total, mass[j] / around
        for i in range(m):
            given = one * shares[j, i]
            usage[i] += given
            rest[i] += given - other * kept[i]


@compiled
def recall(codes: Codes, weights: Single, mass: Single, sums: Single, usage: Single) -> None:
    """`sums` (b,) of the shares of `codes` (b, m) times `weights` (m,); to `usage` (m,) is added, but for the weights,
    what rows of `mass` (b,) give to the targets."""
    m = codes.shape[1]
    short = np.empty(m, np.uint32)
    kept = short.view(np.float32)
    for j in range(codes.shape[0]):
        for i in range(m):
            short[i] = (uint32(codes[j, i]) << uint32(DROPPED)) + uint32(LEAST)
        total = float32(0)
        for i in range(m):
            total += kept[i] * weights[i]
        sums[j] = total
        one = mass[j] / total
        for i in range(m):
            usage[i] += one * kept[i]

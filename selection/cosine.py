"""Cosines whose every bit is a function of the two vectors alone.

A floating-point matrix product depends on the order of its additions, hence on the block size, the number of threads,
the library and the processor; two copies of one row can then get two scores. Here unit vectors are rounded to
multiples of 2⁻²⁶ first. The products of entries are then multiples of 2⁻⁵² and, by Cauchy-Schwarz, every partial sum
of them is below 2, so float64 holds each one exactly and the order of the additions changes nothing. (Splitting so that
products are free of error: Ozaki, Ogita, Oishi and Rump 2012.) Rounding moves a cosine by at most √d · 2⁻²⁶, 3e-7 at
d = 384, and by about 1e-8 as a rule: less than storing the vectors in float32 did.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from selection.problem import Signal
from warehouse.records import Floats

GRID = 2.0**26
TILE_NUMBERS = 1 << 18  # numbers of float64 in flight at once: 2 MB, so that memory does not grow with the block
TILE_ROWS = 128  # but never fewer rows than this, which a matrix product needs to be fast
TARGETS_AT_ONCE = 64  # sparse rows meet dense targets in slabs of this many


@dataclass(frozen=True, slots=True)
class Units:
    """Rows of unit length, times GRID, rounded.

    values  (b, d) float64, dense or sparse, whole numbers; all 0 for a row without direction
    finite  (b,) bool, whether the row held numbers only
    zero    (b,) bool, whether the row is finite and its length 0
    """

    values: Signal
    finite: NDArray[np.bool_]
    zero: NDArray[np.bool_]


def unit_rows(rows: Signal) -> Units:
    """`rows`, (b, d) of any float type, dense or sparse, brought to unit length and rounded to the grid."""
    return _sparse_units(rows) if isinstance(rows, csr_matrix) else _dense_units(rows)


def cosines(targets: Signal, rows: Signal) -> Floats:
    """Cosines (m, b) float64 of `targets` (m, d) with `rows` (b, d), both the values of `Units`."""
    if isinstance(targets, csr_matrix) and isinstance(rows, csr_matrix):
        products = _sparse_products(targets, rows)
    else:
        products = np.asarray(targets @ rows.T)
    products *= GRID**-2
    return products


def tile_rows(rows: Signal) -> int:
    """How many of `rows` to bring to unit length at once."""
    return rows.shape[0] if isinstance(rows, csr_matrix) else max(TILE_ROWS, TILE_NUMBERS // max(rows.shape[1], 1))


def _dense_units(rows: NDArray[Any]) -> Units:
    values = np.array(rows, dtype=np.float64, order="C")
    # numpy adds along a contiguous row in an order fixed by d alone, so the length too is a function of the row
    squares = np.square(values).sum(axis=1)
    scale, finite, zero = _scales(squares)
    if not finite.all():
        values[~finite] = 0.0
    values *= scale[:, None]
    return Units(np.rint(values, out=values), finite, zero)


def _sparse_units(rows: csr_matrix) -> Units:
    values = rows.astype(np.float64)
    values.sum_duplicates()
    row_of = np.repeat(np.arange(rows.shape[0]), np.diff(values.indptr))
    squares = np.bincount(row_of, np.square(values.data), rows.shape[0]).astype(np.float64)
    scale, finite, zero = _scales(squares)
    data = np.where(finite[row_of], values.data, 0.0) * scale[row_of]
    return Units(csr_matrix((np.rint(data), values.indices, values.indptr), shape=rows.shape), finite, zero)


def _sparse_products(targets: csr_matrix, rows: csr_matrix) -> Floats:
    slabs = [targets[at : at + TARGETS_AT_ONCE] for at in range(0, targets.shape[0], TARGETS_AT_ONCE)]
    return np.concatenate([_slab_products(slab, rows) for slab in slabs])


def _slab_products(slab: csr_matrix, rows: csr_matrix) -> Floats:
    used = np.unique(slab.indices)  # in all other columns the targets are 0; without them the dense side stays in cache
    return np.asarray(rows[:, used] @ slab[:, used].T.toarray()).T


def _scales(squares: Floats) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """GRID over the length of each row (0 where it has none), which rows are finite, and which have length 0."""
    finite = np.isfinite(squares)
    positive = finite & (squares > 0)
    scale = np.where(positive, GRID / np.sqrt(np.where(positive, squares, 1.0)), 0.0)
    return scale, finite, finite & ~positive

"""One pass over the vectors of a signal: whether all are finite, which have no direction, and what they sum to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.cosine import Units, cosines, tile_rows, unit_rows
from selection.problem import Block, Problem, Signal, Sliced
from warehouse.errors import InputError
from warehouse.records import Floats, Rows


@dataclass(frozen=True, slots=True)
class Survey:
    """What the vectors of a signal are like.

    total  (d,) float64, their sum on the grid of `selection.cosine`: whole numbers, so exact in any order
    zero   the rows of length 0, ascending
    """

    total: Floats
    zero: Rows


def survey(problem: Problem, signal: str) -> Survey:
    """The vectors of all candidates. Raises `InputError` where one is not finite."""
    found = problem.reduce(_SurveyOfBlock(signal), _merge)
    if len(found.broken):
        raise InputError(
            f"{len(found.broken)} of {problem.n} candidate vectors in {signal!r} hold NaN or infinity, "
            f"the first is row {found.broken[0]}: measure them again"
        )
    return Survey(found.total, found.zero)


def cosines_with(problem: Problem, signal: str, direction: Floats) -> Floats:
    """(n,) cosines of all candidates with one `direction` (1, d) on the grid."""
    return np.concatenate(problem.reduce(_CosinesOfBlock(signal, direction), _chained))


def directions(vectors: NDArray[Any] | Sliced | Signal, rows: Rows) -> Floats:
    """(b, d) directions of some rows on the grid."""
    return np.asarray(unit_rows(np.asarray(vectors[rows])).values)


def unit_tiles(rows: Signal) -> Iterator[tuple[slice, Units]]:
    """`rows` (b, d) on the grid, one tile after the other, so that the float64 copy never grows with the block."""
    step = tile_rows(rows)
    for at in range(0, rows.shape[0], step):
        tile = slice(at, min(at + step, rows.shape[0]))
        yield tile, unit_rows(rows[tile])


@dataclass(frozen=True, slots=True)
class _Found:
    total: Floats
    zero: Rows
    broken: Rows


@dataclass(frozen=True, slots=True)
class _SurveyOfBlock:
    signal: str

    def __call__(self, block: Block) -> _Found:
        rows = block.signals[self.signal]
        total, zero, broken = np.zeros(rows.shape[1]), list[Rows](), list[Rows]()
        for tile, units in unit_tiles(rows):
            total += np.asarray(units.values).sum(axis=0)
            zero.append(np.flatnonzero(units.zero) + block.start + tile.start)
            broken.append(np.flatnonzero(~units.finite) + block.start + tile.start)
        return _Found(total, np.concatenate(zero), np.concatenate(broken))


def _merge(first: _Found, second: _Found) -> _Found:
    zero, broken = ((first.zero, second.zero), (first.broken, second.broken))
    return _Found(first.total + second.total, np.concatenate(zero), np.concatenate(broken))


@dataclass(frozen=True, slots=True)
class _CosinesOfBlock:
    signal: str
    direction: Floats

    def __call__(self, block: Block) -> tuple[Floats, ...]:
        return tuple(cosines(self.direction, units.values)[0] for _, units in unit_tiles(block.signals[self.signal]))


def _chained(first: tuple[Floats, ...], second: tuple[Floats, ...]) -> tuple[Floats, ...]:
    return first + second

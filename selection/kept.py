"""H over candidates whose shares are kept in two bytes each.

Rounding to so few bits would move the maximum. Here it counts only as far as prices move: where the shares are made,
at log-prices h⁰, the masses given are taken from the full numbers, and elsewhere it is

    r(h) = r⁰ + (r̃(h) − r̃(h⁰)),   b·g(h)/ε = b·g⁰/ε + (b·g̃(h) − b·g̃(h⁰))/ε − (r⁰ − r̃(h⁰))·(h − h⁰)

with r̃, g̃ those of the rounded shares: a correction of first order, with which the one is still the slope of the other.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selection.transport import NOTHING_SINGLE, CostRows, Kernel, Moment, chunks_of, folded
from selection.transport_kernels import Codes, exponents, keep, recall
from warehouse.records import Floats

PASS_NUMBERS = 1 << 20  # codes of a chunk: a pass reads each of them once
NEAR = 8.0  # the shares are made anew where a log-price moved by more: what is left out of them grows with the distance


class _Made(NamedTuple):
    """What some candidates add to the moment, and what their codes leave out of the masses."""

    softmin: float
    usage: Floats
    rest: Floats


@dataclass(slots=True)
class Kept:
    """The shares p_ij of n candidates of one ε, in memory as `codes` (n, m), and the curvature of a sample.

    rows     costs (b, m) of some candidates, float32
    b        (n,) masses of the candidates
    log_a    (m,)
    sampled  whose curvature is taken
    codes    shares at log-prices `base` over the largest of each row, which is with their rounding in `norms` (n,)
    rest     (m,) masses given at `base` less those that the codes give
    """

    rows: CostRows
    b: Floats
    log_a: Floats
    epsilon: float
    sampled: Kernel
    codes: Codes
    base: Floats = field(init=False)
    rest: Floats = field(init=False)
    norms: Floats = field(init=False)
    mass: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.norms, self.mass = np.empty(len(self.b)), self.b.astype(np.float32)
        self.base, self.rest = np.full((2, len(self.log_a)), np.nan)

    def at(self, h: Floats) -> Moment:
        if self._is_far(h):
            return self._make(h)
        moved = h - self.base
        weights = np.exp(moved).astype(np.float32)

        def moment(part: slice) -> Moment:
            sums, usage = np.empty(part.stop - part.start, np.float32), np.zeros(len(h), np.float32)
            recall(self.codes[part], weights, self.mass[part], sums, usage)
            return Moment(-float(self.b[part] @ (self.norms[part] + np.log(sums))), usage.astype(np.float64))

        total = folded(moment, chunks_of(len(self.b), len(h), PASS_NUMBERS), Moment.plus)
        return Moment(total.softmin - float(self.rest @ moved), total.usage * weights + self.rest)

    def candidates(self, h: Floats) -> Floats:
        """g (n,) at `h`."""
        if self._is_far(h):
            self._make(h)
        weights = np.exp(h - self.base).astype(np.float32)
        sums = np.empty(len(self.b), np.float32)
        recall(self.codes, weights, self.mass, sums, np.zeros(len(h), np.float32))
        return np.asarray(-self.epsilon * (self.norms + np.log(sums)))

    def curvature(self, h: Floats) -> Floats:
        return self.sampled.curvature(h)

    def _is_far(self, h: Floats) -> bool:
        return not np.ptp(h - self.base) <= NEAR  # nor is it a number before shares are made

    def _make(self, h: Floats) -> Moment:
        offsets, scale = (h + self.log_a).astype(np.float32), np.float32(-1 / self.epsilon)

        def make(part: slice) -> _Made:
            costs, mass = self.rows(part), self.mass[part]
            largest, sums = np.empty(len(costs), np.float32), np.empty((2, len(costs)), np.float32)
            shares, (usage, rest) = np.empty_like(costs), np.zeros((2, len(h)), np.float32)
            exponents(costs, scale, offsets, NOTHING_SINGLE, shares, largest)
            np.exp(shares, out=shares)
            keep(shares, mass, self.codes[part], sums, usage, rest)
            given = largest + np.log(sums[0].astype(np.float64))
            self.norms[part] = given - np.log(sums[1])
            return _Made(-float(self.b[part] @ given), usage.astype(np.float64), rest.astype(np.float64))

        total = folded(make, chunks_of(len(self.b), len(h)), lambda one, two: _Made(*map(np.add, one, two)))
        self.base, self.rest = h.copy(), total.rest
        return Moment(total.softmin, total.usage)

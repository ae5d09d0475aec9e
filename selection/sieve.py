"""Which pairs of a row and a direction can be among the best at all: cheap products that rule the others out.

The scores that count are the cosines of `selection/cosine.py`, in float64. Nearly all of them belong to rows far from
the best, and for these a product of bfloat16 (or float32) is proof enough. With u a row of unit length, v a direction,
c a fixed vector (the mean of some rows, so that what all rows share costs no precision) and w = u - c,

    u·v = w·v + c·v    and    |w·v - w'·v'| ≤ |w - w'| |v| + |w'| |v - v'|

for their roundings w' and v', by Cauchy-Schwarz. To this come what float32 loses in preparing w and in adding up, and
the rounding of the product. `Sieve` holds one bound of all this per list, for rows whose |w| and |w - w'| are at most
what it was made for; the few others, and rows with numbers too large or too small for float32, are scored exactly.

A list's floor is a score that at least k rows reach. A pair whose product lies below the floor by more than the bound
cannot be among the best k; all other pairs are kept and, in the end, scored exactly. So the floors decide how much is
kept, never what is chosen.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from selection.cosine import GRID, Units, cosines, unit_rows
from warehouse.records import Floats, Rows

Route: TypeAlias = Literal["bfloat16", "float32"]
Single: TypeAlias = NDArray[np.float32]

TILE = 1024  # rows at once; with SLAB directions little more than a core's own cache holds, and few calls
SLAB = 1024  # directions at once
PAIRS_AT_ONCE = 4096  # pairs whose directions and rows are gathered at once to be scored exactly
DENSE = 1 / 32  # above this share of all pairs a tile is scored whole
LENGTHS = (2.0**-40, 2.0**40)  # of rows whose squares float32 can add up
TYPICAL = 0.999  # the share of rows that a sieve is made for
ROOM = 1.02
EPS = 2.0**-24  # rounding of float32
HALF_EPS = 2.0**-8  # rounding of bfloat16, which keeps 8 bits
BF16_WORK = 1 << 36  # products of numbers (n · m · d) above which importing torch pays: 0.8 s of float32 on one core


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs that were kept: `directions` (p,) int32, `rows` (p,) int64 and w·v as far as is known, `products` (p,)."""

    directions: NDArray[np.int32]
    rows: Rows
    products: Single

    def __len__(self) -> int:
        return len(self.rows)

    def taken(self, at: NDArray[Any]) -> "Pairs":
        return Pairs(self.directions[at], self.rows[at], self.products[at])


@dataclass(frozen=True, slots=True)
class Sieve:
    """Keeps the pairs whose score may reach the floor of their list.

    k         how many rows every list wants
    values    (m, d) float64 directions on the grid, those of one list side by side
    starts    (l,) where each list's directions begin
    floors    (l,) a score that at least k rows reach
    factors   (m, d) the directions rounded: float32, or the bits of bfloat16
    centre    (d,) float32, what is subtracted from every row of unit length
    offsets   (m,) centre · direction
    errors    (m,) how far product + offset may be from the score before the product is rounded; equal within a list
    longest   rows are sieved whose |w|² is at most this
    residue   and whose |w - w'| is at most this
    """

    k: int
    values: Floats
    starts: Rows
    floors: Floats
    factors: NDArray[Any]
    centre: Single
    offsets: Floats
    errors: Floats
    longest: float
    residue: float

    @property
    def list_of(self) -> Rows:
        """(m,) the list of each direction."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.values)))

    @property
    def thresholds(self) -> Single:
        """(m,) the least product that is kept."""
        lowest = self.floors[self.list_of] - self.errors - self.offsets
        return np.nextafter(lowest.astype(np.float32), np.float32(-np.inf), dtype=np.float32)

    def sift(self, rows: NDArray[Any], first: int, most: int) -> tuple[Pairs, NDArray[np.bool_], NDArray[np.bool_]]:
        """The pairs of `rows` (b, d), numbered from `first`, that may count; which rows are finite, and of length 0.

        Stops where it has more than `most` pairs.
        """
        finite, zero = np.ones(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        thresholds, parts = self.thresholds, []
        bench = (Halves if self.factors.dtype == np.uint16 else Singles).of(self.factors, self.centre)
        for at in range(0, len(rows), TILE):
            tile = rows[at : at + TILE]
            own = np.arange(first + at, first + at + len(tile))
            fits = self._fits(bench.centred(tile))
            odd = np.flatnonzero(~fits)
            if len(odd):
                units = unit_rows(tile[odd])
                finite[at + odd], zero[at + odd] = units.finite, units.zero
                parts.append(self._scored(units, own[odd], thresholds))
                bench.silence(odd)
            kept = [bench.above(slab, own, thresholds) for slab in self._slabs]
            parts += [pairs.taken(fits[pairs.rows - own[0]]) for pairs in kept] if len(odd) else kept
            if sum(map(len, parts)) > most:
                break
        return joined(parts), finite, zero

    def pruned(self, pairs: Pairs) -> tuple["Sieve", Pairs]:
        """The sieve with the floors that `pairs` prove, and those of them that may still count."""
        lists = self.list_of[pairs.directions]
        score = pairs.products + self.offsets[pairs.directions]
        # a product of bfloat16 is rounded; for one of float32, which is not, this only keeps a little more
        slack = self.errors[pairs.directions] + self._output * np.abs(pairs.products)
        once = len(self.starts) == len(self.values)
        proven = kth_of_lists(lists, None if once else pairs.rows, score - slack, self.k, len(self.starts))
        floors = np.maximum(self.floors, proven)
        return replace(self, floors=floors), pairs.taken(score + slack >= floors[lists])

    @property
    def _output(self) -> float:
        return HALF_EPS if self.factors.dtype == np.uint16 else 0.0

    @property
    def _slabs(self) -> list[slice]:
        m = len(self.values)
        return [slice(at, min(at + SLAB, m)) for at in range(0, m, SLAB)]

    def _fits(self, rows: "Measured") -> NDArray[np.bool_]:
        """(b,) whether the errors hold for a row; not where a number in it is not finite."""
        usual = (rows.length >= LENGTHS[0]) & (rows.length <= LENGTHS[1])
        return np.asarray(usual & (rows.square <= self.longest) & (rows.residue <= self.residue))

    def _scored(self, units: Units, rows: Rows, thresholds: Single) -> Pairs:
        """Pairs of rows that are not sieved: their products are exact."""
        products = (cosines(self.values, units.values) - self.offsets[:, None]).astype(np.float32)
        at, row = np.nonzero(products >= thresholds[:, None])
        return Pairs(at.astype(np.int32), rows[row], products[at, row])


@dataclass(frozen=True, slots=True)
class Measured:
    """The length of rows as they came, |w|² and |w - w'|: (b,) float32."""

    length: Single
    square: Single
    residue: Single


def sieve_of(
    values: Floats, starts: Rows, k: int, floors: Floats, sample: NDArray[Any], route: Route
) -> "Sieve | None":
    """The sieve for directions `values` (m, d) and rows like those of `sample` (s, d); None where none has a length."""
    d = values.shape[1]
    single = np.asarray(sample, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.sqrt(np.einsum("ij,ij->i", single, single))
        regular = (length >= LENGTHS[0]) & (length <= LENGTHS[1])
    if not regular.any():
        return None
    centre = (single[regular] / length[regular, None]).mean(axis=0)
    directions = values / GRID
    factors, near = _factors(directions, route)
    measured = (Halves if route == "bfloat16" else Singles).of(factors, centre).centred(single[regular])
    longest = ROOM * float(np.quantile(measured.square, TYPICAL))
    residue = ROOM * float(np.quantile(measured.residue, TYPICAL))
    off = np.linalg.norm(directions - near, axis=1)
    errors = _errors(np.linalg.norm(directions, axis=1), off, _norm(centre), longest, residue, d)
    errors = np.repeat(np.maximum.reduceat(errors, starts), np.diff(starts, append=len(values)))
    offsets = directions @ centre.astype(np.float64)
    return Sieve(k, values, starts, floors, factors, centre, offsets, errors, longest, residue)


def _errors(norms: Floats, off: Floats, centre: float, longest: float, residue: float, d: int) -> Floats:
    """How far a product may be from w·v, for directions of length `norms` (m,) whose rounding moved them by `off`.

    `longest` and `residue` are measured in float32, so they too are known only so well.
    """
    reach = 1 + centre
    w = np.sqrt(longest + 8 * (d + 8) * EPS * reach**2)
    # the length of a row, its division, the subtraction, the residue, and the grid of the exact cosine
    lost = residue * (1 + d * EPS) + (d + 8) * EPS * reach + np.sqrt(d) / GRID
    added = (
        2 * d * EPS * (w + lost) * (norms + off)
    )  # twice that of any order of rounded additions: some units truncate
    return np.asarray(lost * norms + (w + lost) * off + added + 2.0**-20)  # and float32 thresholds and products


def kth_of_lists(lists: Rows, rows: Rows | None, scores: Floats, k: int, count: int) -> Floats:
    """(count,) the k-th largest score of each list, or less by a rounding; -infinity where there are fewer.

    Where `rows` are given, a row counts once in a list, by its largest score there.
    """
    if rows is not None and len(rows):
        pair = (lists.astype(np.uint64) << np.uint64(40)) | rows.astype(np.uint64)
        order = np.argsort(pair)
        firsts = np.flatnonzero(np.diff(pair[order], prepend=pair[order[0]] + np.uint64(1)))
        if len(firsts) < len(rows):
            lists, scores = lists[order[firsts]], np.maximum.reduceat(scores[order], firsts)
    # one number per pair sorts by list, then descending score
    low = np.nextafter(scores.astype(np.float32), np.float32(-np.inf), dtype=np.float32)
    ranks = np.sort((lists.astype(np.int64) << 32) | (0x7FFFFFFF - ordered(low).astype(np.int64)))
    sizes = np.bincount(lists, minlength=count)
    enough = sizes >= k
    at = (np.cumsum(sizes) - sizes + k - 1)[enough]
    answer = np.full(count, -np.inf)
    answer[enough] = _unordered((0x7FFFFFFF - (ranks[at] & 0xFFFFFFFF)).astype(np.int32))
    return answer


def exact_scores(values: Floats, rows: NDArray[Any], directions: NDArray[np.int32], at: Rows) -> Floats:
    """(p,) cosines on the grid of values[directions] with the vectors rows[at]; `at` ascends."""
    answer = np.empty(len(at))
    for start in range(0, len(rows), TILE):
        part = slice(*np.searchsorted(at, [start, start + TILE]))
        units = np.asarray(unit_rows(rows[start : start + TILE]).values)
        answer[part] = _scores_of(values, units, directions[part], at[part] - start)
    return answer


def _scores_of(values: Floats, units: Floats, directions: NDArray[np.int32], at: Rows) -> Floats:
    if len(at) > DENSE * len(units) * len(values):
        return np.asarray(cosines(values, units)[directions, at])
    pieces = [slice(start, start + PAIRS_AT_ONCE) for start in range(0, len(at), PAIRS_AT_ONCE)]
    sums = [np.einsum("ij,ij->i", values[directions[piece]], units[at[piece]]) for piece in pieces]
    return np.asarray(np.concatenate([*sums, np.zeros(0)]) * GRID**-2)


def joined(parts: list[Pairs]) -> Pairs:
    nothing = Pairs(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    sides = [(part.directions, part.rows, part.products) for part in (nothing, *parts)]
    directions, rows, products = zip(*sides, strict=True)
    return Pairs(np.concatenate(directions), np.concatenate(rows), np.concatenate(products))


def route_for(work: int) -> Route:
    """bfloat16 where the processor multiplies it and `work` products of numbers are worth importing torch."""
    if work < BF16_WORK and "torch" not in sys.modules:
        return "float32"
    import torch

    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("amx_bf16") or able.get("avx512_bf16") else "float32"


@contextmanager
def one_core_each(route: Route) -> Iterator[None]:
    """Has torch use one core in each thread that begins meanwhile, as `InProcess` has the linear algebra of numpy."""
    if route == "float32":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ordered(numbers: Single) -> NDArray[np.int32]:
    """Integers in the order of `numbers`."""
    bits = numbers.view(np.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _unordered(integers: NDArray[np.int32]) -> Single:
    return (integers ^ ((integers >> 31) & 0x7FFFFFFF)).view(np.float32)


def _norm(vector: Single) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


def _factors(directions: Floats, route: Route) -> tuple[NDArray[Any], Floats]:
    """`directions` rounded, as the product takes them and as what they are."""
    singles = directions.astype(np.float32)
    if route == "float32":
        return singles, singles.astype(np.float64)
    import torch

    halves = torch.from_numpy(singles).bfloat16()
    return halves.view(torch.uint16).numpy(), halves.double().numpy()


@dataclass(slots=True)
class Singles:
    """The arrays that products of float32 are made in, one tile after the other.

    factors   (m, d) float32
    centre    (d,) float32
    rows      (b, d) w of the tile in hand
    products  (SLAB or m, b)
    reaches   the same shape, which of them reach their threshold
    """

    factors: Single
    centre: Single
    rows: Single
    products: Single
    reaches: NDArray[np.bool_]

    @classmethod
    def of(cls, factors: Single, centre: Single) -> "Singles":
        shape = (min(SLAB, len(factors)), TILE)
        rows = np.empty((0, len(centre)), np.float32)
        return cls(factors, centre, rows, np.empty(shape, np.float32), np.empty(shape, np.bool_))

    def centred(self, tile: NDArray[Any]) -> Measured:
        with np.errstate(all="ignore"):
            rows = self.rows = tile.astype(np.float32)
            length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            rows *= (1 / length)[:, None]
            rows -= self.centre
            square = np.einsum("ij,ij->i", rows, rows)
        return Measured(length, square, np.zeros(len(rows), np.float32))

    def silence(self, odd: Rows) -> None:
        self.rows[odd] = 0

    def above(self, slab: slice, numbers: Rows, thresholds: Single) -> Pairs:
        """The pairs of the directions in `slab` and the tile whose product reaches its threshold."""
        shape = (slab.stop - slab.start, len(self.rows))
        products, reaches = _front(self.products, shape), _front(self.reaches, shape)
        np.matmul(self.factors[slab], self.rows.T, out=products)
        np.greater_equal(products, thresholds[slab, None], out=reaches)
        hits = np.flatnonzero(reaches)
        at, row = np.divmod(hits, shape[1])
        return Pairs((at + slab.start).astype(np.int32), numbers[row], products.ravel()[hits])


@dataclass(slots=True)
class Halves:
    """The arrays that products of bfloat16 are made in, one tile after the other.

    factors   (m, d) bits of bfloat16
    centre    (d,) float32
    halves    (TILE, d) bits of bfloat16, w' of the tile in hand
    rows      how many rows the tile has
    products  (SLAB or m, TILE) bits of bfloat16
    reaches   (SLAB or m, TILE) bool, which of them reach their threshold
    """

    factors: NDArray[np.uint16]
    centre: Single
    halves: NDArray[np.uint16]
    rows: int
    products: NDArray[np.int16]
    reaches: NDArray[np.bool_]

    @classmethod
    def of(cls, factors: NDArray[Any], centre: Single) -> "Halves":
        shape, halves = (min(SLAB, len(factors)), TILE), np.empty((TILE, len(centre)), np.uint16)
        return cls(factors, centre, halves, 0, np.empty(shape, np.int16), np.empty(shape, np.bool_))

    def centred(self, tile: NDArray[Any]) -> Measured:
        from selection.sieve_kernels import centre_rows

        self.rows = len(tile)
        if self.rows > len(self.halves):
            self.halves = np.empty(tile.shape, np.uint16)
        facts, scratch = np.empty((3, self.rows), np.float32), np.empty((2, len(self.centre)), np.uint32)
        centre_rows(_wide(tile), self.centre, self.halves, scratch, facts)
        return Measured(*facts)

    def silence(self, odd: Rows) -> None:
        self.halves[odd] = 0

    def multiplied(self, slab: slice) -> NDArray[np.int16]:
        """The bits of the products of the directions in `slab` and the tile, until the next call."""
        import torch

        bits, half = _front(self.products, (slab.stop - slab.start, self.rows)), torch.bfloat16
        factors, halves = (torch.from_numpy(each).view(half) for each in (self.factors[slab], self.halves[: self.rows]))
        torch.mm(factors, halves.T, out=torch.from_numpy(bits).view(half))
        return np.asarray(bits)

    def above(self, slab: slice, numbers: Rows, thresholds: Single) -> Pairs:
        """The pairs of the directions in `slab` and the tile whose product reaches its threshold."""
        bits = self.multiplied(slab)
        lowest = (ordered(thresholds[slab, None]) >> 16).astype(np.int16)
        # positive numbers are in the order of their bits, and all negative ones below them
        ranks = bits if lowest.min() >= 0 else bits ^ ((bits >> 15) & np.int16(0x7FFF))
        hits = np.flatnonzero(np.greater_equal(ranks, lowest, out=_front(self.reaches, bits.shape)))
        at, row = np.divmod(hits, self.rows)
        products = bits.ravel()[hits].view(np.uint16).astype(np.uint32) << 16
        return Pairs((at + slab.start).astype(np.int32), numbers[row], products.view(np.float32))


def _wide(tile: NDArray[Any]) -> Single:
    """`tile` as float32, not to be written: numbers too large become infinite."""
    if tile.dtype == np.float16:
        import torch

        single = torch.from_numpy(np.array(tile, order="C")).float().numpy()  # several times faster than numpy's
    else:
        with np.errstate(over="ignore"):
            single = np.ascontiguousarray(tile, np.float32)
    view = single.view()
    view.setflags(write=False)  # as a file may be: each kind of array would be compiled for again
    return np.asarray(view)


def _front(array: Any, shape: tuple[int, ...]) -> Any:
    """The first numbers of `array` in another shape, side by side."""
    return array.reshape(-1)[: shape[0] * shape[1]].reshape(shape)

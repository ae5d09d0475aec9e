"""Near-duplicates: rows that an earlier row, which stays, resembles too much.

Shards of rows are fingerprinted anywhere, in any order; then one process goes through all of them. It holds one column
of keys at a time and about 100 bytes for each row that shares a key with another; the sets it compares come from the
files. The answer is a function of the rows and their order alone; that for the first rows does not change with those
that follow, so a pool that grew goes on from it.
"""

import json
import resource
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.kernels import search
from warehouse.minhash import NGRAM, Layout, Sets, band_keys, shingles, signatures
from warehouse.words import text_of, words_of

COMPARED = 1024
CACHE = 2**24  # shingles: 64 MiB of earlier rows' sets
BLOCK = 2**22  # shingles: 16 MiB of consecutive rows' sets
MOST_ROWS = 2**31 - 1
SPARSE_BITS, MOST_BITS = 7, 24  # of a table of keys: 128 places a key, 16 MiB at most
NOTE = "fingerprints.json"
ANSWER, ARRAYS = "answer.json", ("rows", "witnesses", "similarities", "limited")


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What near-duplicate search needs of n rows.

    keys    (bands, n) uint64: two rows are compared where any of their keys is the same
    sets    each row's shingles, by which they are compared
    layout  of the bands
    ngram   words a shingle
    """

    keys: NDArray[np.uint64]
    sets: Sets
    layout: Layout
    ngram: int

    def __post_init__(self) -> None:
        if self.keys.shape != (self.layout.bands, len(self.sets.offsets) - 1):
            raise ValueError(f"{self.keys.shape} keys for {self.layout.bands} bands, {len(self.sets.offsets) - 1} rows")

    def save(self, folder: Path) -> None:
        """Write `keys.npy`, `shingles.npy`, `offsets.npy` and, last, the note that makes `folder` a shard."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "keys.npy", self.keys, allow_pickle=False)
        np.save(folder / "shingles.npy", self.sets.shingles, allow_pickle=False)
        np.save(folder / "offsets.npy", self.sets.offsets, allow_pickle=False)
        (folder / NOTE).write_text(json.dumps({"layout": asdict(self.layout), "ngram": self.ngram}))


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The k rows to drop of the first `n`.

    rows          (k,) int64 ascending
    witnesses     (k,) int64: an earlier row that stays and is at least `threshold` similar
    similarities  (k,) exact Jaccard similarity of the two sets of shingles
    limited       (l,) rows that stay after they were compared with the most rows allowed, though there were more
    """

    n: int
    rows: NDArray[np.int64]
    witnesses: NDArray[np.int64]
    similarities: NDArray[np.float64]
    limited: NDArray[np.int64]

    def first(self, n: int) -> "NearDuplicates":
        """The answer for the first `n` rows alone."""
        k = int(np.searchsorted(self.rows, n))
        return NearDuplicates(
            n, self.rows[:k], self.witnesses[:k], self.similarities[:k], self.limited[self.limited < n]
        )

    def save(self, folder: Path) -> None:
        """Write an array a file, and `answer.json`."""
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        (folder / ANSWER).write_text(json.dumps({"n": self.n}))

    @classmethod
    def load(cls, folder: Path) -> "NearDuplicates":
        """What `save` wrote."""
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
        return cls(**arrays, **json.loads((folder / ANSWER).read_text()))


NONE = NearDuplicates(0, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))


def fingerprint(
    contents: pa.Array | pa.ChunkedArray, offsets: NDArray[np.int64], layout: Layout, ngram: int = NGRAM
) -> Fingerprints:
    """Fingerprints of the rows contents[offsets[i]:offsets[i + 1]], about 40 ns a word on one core.

    Raises `InputError` as `text_of` does.
    """
    text = text_of(contents, offsets)
    keys = np.empty((layout.bands, text.n), np.uint64)
    sets = []
    for row, block in text.blocks():
        found = shingles(block, words_of(block), ngram)
        keys[:, row : row + block.n] = band_keys(signatures(found, layout.permutations), layout)
        sets.append(Sets(found.shingles.copy(), found.offsets))
    return Fingerprints(keys, _joined(sets), layout, ngram)


def _joined(parts: Sequence[Sets]) -> Sets:
    sizes = [np.diff(part.offsets) for part in parts]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes]))])
    return Sets(np.concatenate([np.zeros(0, np.uint32), *(part.shingles for part in parts)]), offsets)


def near_duplicates(
    shards: Sequence[Path],
    alive: NDArray[np.bool_] | None = None,
    threshold: float = 0.8,
    *,
    earlier: NearDuplicates | None = None,
    compared: int = COMPARED,
    cache: int = CACHE,
) -> NearDuplicates:
    """The rows that have an exact similarity of at least `threshold` to an earlier row that stays and shares a key.

    `shards` are folders of saved fingerprints, in row order; rows not `alive` (n,) neither drop nor are dropped.
    A row is compared with the nearest earlier row that stays of its first band, its second and so on, then with the
    next nearest of each, until one is near enough (its witness) or `compared` were looked at. Two rows that stay and
    share a key are therefore never near-duplicates unless the later one is in `limited`. `cache` is how many
    shingles of earlier rows are held. `earlier` is the answer for the first rows (the same shards, `alive` and other
    arguments): only those after them are decided. Raises `InputError` where the shards do not fit each other or
    `threshold`.
    """
    earlier = earlier or NONE
    pool = _Pool(tuple(_shard(folder) for folder in shards))
    _check(pool, alive, threshold)
    if pool.n == earlier.n:
        return earlier
    rows = _meeting(pool, alive, earlier) if earlier.n else _sharing(pool, alive)
    found = _decide(pool, rows, int(np.searchsorted(rows, earlier.n)), threshold, compared, cache)
    dropped = np.flatnonzero(~found.kept)
    return NearDuplicates(
        pool.n,
        np.concatenate([earlier.rows, rows[dropped]]),
        np.concatenate([earlier.witnesses, rows[found.witnesses[dropped]]]),
        np.concatenate([earlier.similarities, found.similarities[dropped]]),
        np.concatenate([earlier.limited, rows[found.limited]]),
    )


@dataclass(frozen=True, slots=True)
class _Shard:
    """One folder: its n rows, its layout, and where the numbers in its two large files begin."""

    folder: Path
    n: int
    layout: Layout
    ngram: int
    keys_at: int
    shingles_at: int
    size: int

    def keys(self, band: int) -> NDArray[np.uint64]:
        at = self.keys_at + 8 * self.n * band
        return np.fromfile(self.folder / "keys.npy", np.uint64, self.n, offset=at)

    def offsets(self) -> NDArray[np.int64]:
        offsets: NDArray[np.int64] = np.load(self.folder / "offsets.npy", allow_pickle=False)
        return offsets


def _shard(folder: Path) -> _Shard:
    if not (folder / NOTE).exists():
        raise InputError(f"{folder} holds no fingerprints: it has no {NOTE}")
    note = json.loads((folder / NOTE).read_text())
    (_, n), keys_at = _header(folder / "keys.npy")
    (size,), shingles_at = _header(folder / "shingles.npy")
    return _Shard(folder, n, Layout(**note["layout"]), note["ngram"], keys_at, shingles_at, size)


def _header(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of a `.npy` file, and where its numbers begin."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        return shape, file.tell()


@dataclass(frozen=True)
class _Pool:
    """All shards, and at which row and at which shingle each begins; the totals come last."""

    shards: tuple[_Shard, ...]

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(shard.n for shard in self.shards)], dtype=np.int64)

    @cached_property
    def first_shingles(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(shard.size for shard in self.shards)], dtype=np.int64)

    @property
    def n(self) -> int:
        return int(self.first_rows[-1])

    def keys(self, band: int, rows: NDArray[Any] | None) -> NDArray[np.uint64]:
        """One band's keys of all rows or of those wanted."""
        keys = np.empty(self.n, np.uint64)
        for shard, first in zip(self.shards, self.first_rows, strict=False):
            keys[first : first + shard.n] = shard.keys(band)
        return keys if rows is None else keys[rows]

    def places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Where the shingles of `rows` (m,) ascending begin, and how many they are."""
        starts, sizes = np.empty(len(rows), np.int64), np.empty(len(rows), np.int32)
        bounds = np.searchsorted(rows, self.first_rows)
        for i, shard in enumerate(self.shards):
            part = slice(int(bounds[i]), int(bounds[i + 1]))
            if part.start == part.stop:
                continue
            offsets, own = shard.offsets(), rows[part] - self.first_rows[i]
            starts[part] = offsets[own] + self.first_shingles[i]
            sizes[part] = offsets[own + 1] - offsets[own]
        return starts, sizes


def _check(pool: _Pool, alive: NDArray[np.bool_] | None, threshold: float) -> None:
    for shard in pool.shards:
        first = pool.shards[0]
        if (shard.layout, shard.ngram) != (first.layout, first.ngram):
            raise InputError(
                f"{shard.folder} was made with {shard.layout} and {shard.ngram} words a shingle, {first.folder} with "
                f"{first.layout} and {first.ngram}: fingerprint one of them again"
            )
    if pool.shards and not pool.shards[0].layout.threshold <= threshold <= 1:
        made = pool.shards[0].layout.threshold
        raise InputError(
            f"the fingerprints find pairs of similarity {made:g} and more, so they cannot answer for {threshold:g}: "
            f"give a threshold from {made:g} to 1 or fingerprint again"
        )
    if alive is not None and alive.shape != (pool.n,):
        raise InputError(f"`alive` has shape {alive.shape}, expected ({pool.n},), one a row of the shards")
    if pool.n > MOST_ROWS:
        raise InputError(f"{pool.n} rows are more than {MOST_ROWS}, the most in one search")


def _sharing(pool: _Pool, alive: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The alive rows that share a key with another one, ascending."""
    living = None if alive is None or alive.all() else np.flatnonzero(alive)
    shares = np.zeros(pool.n if living is None else len(living), np.bool_)
    for band in range(pool.shards[0].layout.bands):
        keys = pool.keys(band, living)
        order = np.argsort(keys)
        keys = keys[order]
        same = keys[1:] == keys[:-1]
        shares[order[1:][same]] = True
        shares[order[:-1][same]] = True
    return np.flatnonzero(shares) if living is None else living[shares]


def _meeting(pool: _Pool, alive: NDArray[np.bool_] | None, earlier: NearDuplicates) -> NDArray[np.int64]:
    """The alive rows after those of `earlier`, and the rows of `earlier` that stay and share a key with one of them."""
    there = np.ones(pool.n, np.bool_) if alive is None else alive.copy()
    there[earlier.rows] = False
    standing, new = np.flatnonzero(there[: earlier.n]), earlier.n + np.flatnonzero(there[earlier.n :])
    met = np.zeros(len(standing), np.bool_)
    for band in range(pool.shards[0].layout.bands):
        keys = pool.keys(band, None)
        met[_among(keys[standing], keys[new])] = True
    return np.concatenate([standing[met], new])


def _among(keys: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places in `keys` of values that `wanted` holds. Keys are even, so their last bits rule out nearly all."""
    last = np.uint64((1 << min(len(wanted).bit_length() + SPARSE_BITS, MOST_BITS)) - 1)
    table = np.zeros(int(last) + 1, np.bool_)
    table[wanted & last] = True
    likely = np.flatnonzero(table[keys & last])
    return likely[np.isin(keys[likely], wanted)]


@dataclass(frozen=True, slots=True)
class _Decisions:
    """For each of the m entries: whether it stays, else its witness (an entry) and their similarity; `limited`, whether
    there were more rows to compare it with than is allowed."""

    kept: NDArray[np.bool_]
    witnesses: NDArray[np.int32]
    similarities: NDArray[np.float64]
    limited: NDArray[np.bool_]


def _decide(
    pool: _Pool, rows: NDArray[np.int64], settled: int, threshold: float, compared: int, cache: int
) -> _Decisions:
    """The pass in row order over the m rows that share keys, here called entries 0 to m - 1.

    The first `settled` entries stay.
    """
    m = len(rows)
    starts, sizes = pool.places(rows)
    links, met, earlier = _links(pool, rows), np.full(m, -1, np.int32), _Earlier(m, cache)
    kept, limited = np.ones(m, np.bool_), np.zeros(m, np.bool_)
    witnesses, similarities = np.full(m, -1, np.int32), np.zeros(m)
    with _Files(pool) as files:
        for first, stop in _blocks(pool, starts, settled):
            block = np.empty(starts[stop - 1] + sizes[stop - 1] - starts[first], np.uint32)
            files.read(int(starts[first]), block)
            at = first
            while at < stop:
                at, missing = search(
                    first, at, stop, starts, sizes, block, earlier.shingles, earlier.places, links, kept, met,
                    threshold, compared, witnesses, similarities, limited,
                )  # fmt: skip
                if missing >= 0:
                    files.read(int(starts[missing]), earlier.room(missing, int(sizes[missing])))
    return _Decisions(kept, witnesses, similarities, limited)


def _links(pool: _Pool, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """(m, bands): for each of `rows` the nearest earlier one with the same key, by its place in `rows`, else -1."""
    links = np.empty((len(rows), pool.shards[0].layout.bands), np.int32)
    for band in range(links.shape[1]):
        keys = pool.keys(band, rows)
        order = np.argsort(keys, kind="stable")
        before = np.append(-1, order[:-1])[: len(order)]
        first = np.append(True, np.diff(keys[order]) != 0)[: len(order)]
        links[order, band] = np.where(first, -1, before)
    return links


def _blocks(pool: _Pool, starts: NDArray[np.int64], settled: int) -> Iterator[tuple[int, int]]:
    """Consecutive entries from `settled` on that lie in one shard and within `BLOCK` shingles of the first."""
    bounds = np.maximum(np.searchsorted(starts, pool.first_shingles), settled)
    for first, end in pairwise(bounds.tolist()):
        while first < end:
            stop = max(first + 1, min(int(np.searchsorted(starts, starts[first] + BLOCK)), end))
            yield first, stop
            first = stop


class _Files:
    """Reads shingles of any shard, and keeps up to half of the files open that this process may have.

    They are read, not mapped: pages of a mapped file count as memory of this process.
    """

    def __init__(self, pool: _Pool) -> None:
        self._shards = [(shard.folder / "shingles.npy", shard.shingles_at) for shard in pool.shards]
        self._firsts = pool.first_shingles.tolist()
        self._most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._open: dict[int, FileIO] = {}

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def read(self, first: int, into: NDArray[np.uint32]) -> None:
        """Fill `into` with the shingles from `first` of all on; they lie in one shard."""
        shard = bisect_right(self._firsts, first) - 1
        path, at = self._shards[shard]
        file = self._open.get(shard) or self._opened(shard, path)
        file.seek(at + 4 * (first - self._firsts[shard]))
        if file.readinto(into.data) != into.nbytes:
            raise InputError(f"{path} is shorter than its own header says: fingerprint that shard again")

    def _opened(self, shard: int, path: Path) -> FileIO:
        if len(self._open) >= self._most:
            self._open.pop(next(iter(self._open))).close()
        self._open[shard] = FileIO(path)
        return self._open[shard]


class _Earlier:
    """Sets of some entries of earlier blocks. Where there is no room for one more, all are forgotten."""

    def __init__(self, m: int, size: int) -> None:
        self.shingles = np.empty(size, np.uint32)
        self.places = np.full(m, -1, np.int32)  # where an entry's set begins, -1 where it is not here
        self._used = 0

    def room(self, entry: int, size: int) -> NDArray[np.uint32]:
        """Where the set of `entry` is to be written."""
        if self._used + size > len(self.shingles):
            self.places.fill(-1)
            self._used = 0
        if size > len(self.shingles):
            self.shingles = np.empty(size, np.uint32)
        self.places[entry] = self._used
        self._used += size
        return self.shingles[self._used - size : self._used]

"""Row ids in arrays: 32 hexadecimal digits each, found by the million without a Python object for any."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.bytes_]


class IdIndex:
    """Ids (n,) S32, sorted as two words of 64 bits each, because sorting strings takes ten times as long."""

    def __init__(self, ids: Ids) -> None:
        high, low = _words(ids)
        self._order = np.lexsort((low, high))
        self._high, self._low = high[self._order], low[self._order]
        same_high = self._high[1:] == self._high[:-1]
        new = np.concatenate([[True], ~(same_high & (self._low[1:] == self._low[:-1]))])[: len(ids)]
        self._starts = np.flatnonzero(new)  # of each distinct id
        self._clash = bool((same_high & new[1:]).any())  # two ids that differ in their second half alone

    def firsts(self) -> NDArray[np.int64]:
        """The first place of each distinct id, ascending."""
        return np.sort(self._order[self._starts])

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """(m,) the first place of each of `ids` (m,); -1 where it is not there."""
        high, low = _words(ids)
        if not len(self._order):
            return np.full(len(ids), -1, np.int64)
        if self._clash:
            places = dict(zip(_pairs(self._high, self._low)[::-1], self._order[::-1].tolist(), strict=True))
            return np.array([places.get(pair, -1) for pair in _pairs(high, low)], np.int64)
        at = np.minimum(np.searchsorted(self._high, high), len(self._high) - 1)
        there = (self._high[at] == high) & (self._low[at] == low)
        return np.where(there, self._order[at], -1)


def _words(ids: Ids) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    halves = np.frombuffer(bytes.fromhex(ids.tobytes().decode("ascii")), ">u8").astype(np.uint64).reshape(-1, 2)
    return halves[:, 0].copy(), halves[:, 1].copy()


def _pairs(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> list[tuple[int, int]]:
    return list(zip(high.tolist(), low.tolist(), strict=True))


def as_ids(sample_ids: Sequence[str]) -> Ids:
    """Sample ids as an (n,) S32 array."""
    return np.asarray(sample_ids, dtype="S32")

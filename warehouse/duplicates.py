"""Rows that say what an earlier row says: the same explicit id, the same conversation, the same question."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse.pools import PoolReader
from warehouse.records import Floats, Rows

Part = Literal["messages", "prompt"]
_PLACE = re.compile(r"(:| row )\d+$")  # what follows the file in a location


@dataclass(frozen=True, slots=True)
class Found:
    """What a filter found in a pool: `rows` (k,) ascending, each once, with one reason and one detail a row.

    others   (k,) the row that each resembles, -1 for none; `other_pools` the keys of their pools ("" for none)
    values   (k,) similarity, coverage or share; NaN where the filter measures none
    """

    rows: Rows
    reasons: Sequence[str]
    details: Sequence[str]
    others: Rows
    other_pools: Sequence[str]
    values: Floats

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.reasons, self.details, self.others, self.other_pools, self.values)}
        if lengths - {len(self.rows)}:
            raise ValueError(f"{len(self.rows)} rows were found, but their parts have lengths {sorted(lengths)}")
        if (np.diff(self.rows) <= 0).any():
            raise ValueError("the rows found must ascend")


def found(
    rows: Rows, reasons: Sequence[str], *, details: Sequence[str] = (), others: Rows | None = None,
    other_pools: Sequence[str] = (), values: Floats | None = None,
) -> Found:  # fmt: skip
    """What was found, with nothing said where nothing is given."""
    k = len(rows)
    return Found(
        np.asarray(rows, np.int64),
        reasons,
        details or [""] * k,
        np.full(k, -1, np.int64) if others is None else others,
        other_pools or [""] * k,
        np.full(k, np.nan) if values is None else values,
    )


def duplicate_ids(pool: PoolReader, alive: NDArray[np.bool_]) -> Found:
    """Rows whose explicit `id` an earlier live row of the same file has."""
    keys, named = np.zeros(pool.n, np.uint64), np.zeros(pool.n, np.bool_)
    for file in pool.files:
        table = pq.read_table(file.path, columns=["location", "given_id"], partitioning=None)
        if table["given_id"].null_count == file.n:
            continue
        for at, (location, given) in enumerate(zip(*(c.to_pylist() for c in table.columns), strict=True), file.first):
            if given is not None:
                keys[at], named[at] = _hash(f"{_PLACE.sub('', location)}\0{given}"), True
    return _repeated(pool, keys, alive & named, "duplicate_id")


def exact_duplicates(pool: PoolReader, alive: NDArray[np.bool_], by: Part) -> Found:
    """Rows that repeat an earlier live one: the whole conversation (`messages`), or its question alone (`prompt`, with
    case and white space folded).
    """
    return _repeated(pool, pool.keys("sample_id" if by == "messages" else "prompt_id"), alive, f"same_{by}")


def _repeated(pool: PoolReader, keys: NDArray[np.uint64], alive: NDArray[np.bool_], reason: str) -> Found:
    rows, firsts = repeats(keys, alive)
    return found(rows, [reason] * len(rows), others=firsts, other_pools=[pool.folder.name] * len(rows))


def repeats(keys: NDArray[np.uint64], alive: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Rows (k,), ascending, whose key an earlier live row has, and the first such row of each.

    64 bits tell rows apart: among five million distinct ones two agree with a probability below 10⁻⁶.
    """
    live = np.flatnonzero(alive)
    order = np.argsort(keys[live], kind="stable")
    sorted_keys = keys[live][order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])) if len(live) else live
    first = np.repeat(live[order[starts]], np.diff([*starts, len(live)]))
    rows = live[order]
    repeated = rows != first
    back = np.argsort(rows[repeated], kind="stable")
    return rows[repeated][back], first[repeated][back]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")

"""Signals: a number, a vector or a sparse row per `sample_id`, kept in append-only shards under their spec's key.

A pool version reads its row-aligned array from here, so a re-indexed pool measures only its new rows. A shard is one
or more `.npy` files and the Parquet file of its ids, which is renamed in last: a shard without it does not exist.
"""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from warehouse.ids import IdIndex, Ids
from warehouse.leases import hold
from warehouse.records import Spec
from warehouse.store import write_atomically
from warehouse.tables import SIGNALS, ids_of

Array = NDArray[Any] | csr_matrix
IN_MEMORY_BYTES = 512 * 2**20  # values of more bytes are read block by block


@dataclass(frozen=True, slots=True)
class Gathered:
    """Values too large for memory, row for row: some of them are an array, read from the shards they lie in."""

    shards: Sequence[Path]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Array:
        return _gather(self.shards, self.starts, self.places[rows])


Values = Array | Gathered


@dataclass(frozen=True, slots=True)
class SignalStore:
    """All signals of one home."""

    home: Path

    def missing(self, spec: Spec, ids: Ids) -> NDArray[np.int64]:
        """Positions in `ids` (n,) S32 that still need measuring: the first place of each id that no shard holds."""
        hold(self.home, spec.key)  # before looking, so that pruning beside it spares what is found
        first = IdIndex(ids).firsts()
        return first[IdIndex(_known(self._shards(spec))).find(ids[first]) < 0]

    def append(self, spec: Spec, ids: Ids, values: Array, cost: Mapping[str, float] | None = None) -> None:
        """Add one shard: `values` has one row per id; `cost` is what measuring it took (seconds, flops)."""
        folder = self._folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "spec.json", json.dumps({"name": spec.name, "params": dict(spec.params)}).encode())
        shard = f"shard-{len(self._shards(spec)):06d}-{uuid.uuid4().hex[:8]}"
        for name, array in _parts(values).items():
            write_atomically(folder / f"{shard}.{name}.npy", _npy(array))
        write_atomically(folder / f"{shard}.cost.json", json.dumps(dict(cost or {})).encode())
        write_atomically(folder / f"{shard}.parquet", _ids_table(spec, shard, ids, values))

    def read(self, spec: Spec, ids: Ids) -> Values:
        """The values of `ids`, row for row: (n,), (n, d) or sparse (n, d).

        A single shard in the same order is memory-mapped; more than `IN_MEMORY_BYTES` are read by slices. Raises
        `KeyError` where an id was never measured.
        """
        shards = self._shards(spec)
        if not shards:
            raise KeyError(f"signal {spec.name} ({spec.key[:12]}) was never measured")
        if len(shards) == 1 and np.array_equal(_shard_ids(shards[0]), ids):
            return _load(shards[0])
        places = IdIndex(_known(shards)).find(ids)
        if absent := int((places < 0).sum()):
            raise KeyError(f"signal {spec.name} ({spec.key[:12]}) lacks {absent} of {len(ids)} rows")
        counts = [pq.read_metadata(shard).num_rows for shard in shards]
        starts = np.cumsum([0, *counts], dtype=np.int64)
        first = _load(shards[0])
        if len(ids) * _row_bytes(first) > IN_MEMORY_BYTES:
            return Gathered(shards, starts, places, (len(ids), *first.shape[1:]))
        return _gather(shards, starts, places)

    def cost(self, spec: Spec, ids: Ids) -> dict[str, float]:
        """What measuring `ids` took, by name, whenever it was: a shard counts by the share of its rows in `ids`."""
        total: dict[str, float] = {}
        wanted = IdIndex(ids)
        for shard in self._shards(spec):
            share = float((wanted.find(_shard_ids(shard)) >= 0).mean())
            for name, value in json.loads(shard.with_name(f"{shard.stem}.cost.json").read_text()).items():
                total[name] = total.get(name, 0.0) + share * value
        return total

    def _folder(self, spec: Spec) -> Path:
        return self.home / "signals" / spec.key

    def _shards(self, spec: Spec) -> list[Path]:
        return sorted(self._folder(spec).glob("shard-*.parquet"))


def _known(shards: Sequence[Path]) -> Ids:
    """The ids of all rows of `shards`, one after the other."""
    return np.concatenate([np.zeros(0, "S32"), *(_shard_ids(shard) for shard in shards)])


def _shard_ids(shard: Path) -> Ids:
    return ids_of(pq.read_table(shard, columns=["sample_id"])["sample_id"])


def _parts(values: Array) -> dict[str, NDArray[Any]]:
    if isinstance(values, csr_matrix):
        shape = np.asarray(values.shape, np.int64)
        return {"data": values.data, "indices": values.indices, "indptr": values.indptr, "shape": shape}
    return {"dense": values}


def _load(shard: Path) -> Array:
    def part(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(shard.with_name(f"{shard.stem}.{name}.npy"), mmap_mode="r", allow_pickle=False)
        return array

    if shard.with_name(f"{shard.stem}.dense.npy").exists():
        return part("dense")
    return csr_matrix((part("data"), part("indices"), part("indptr")), shape=tuple(part("shape")))


def _row_bytes(values: Array) -> float:
    """Bytes of a row in memory, on average."""
    if isinstance(values, csr_matrix):
        return float((values.data.nbytes + values.indices.nbytes) / max(values.shape[0], 1))
    return float(values.nbytes / max(len(values), 1))


def _gather(shards: Sequence[Path], starts: NDArray[np.int64], places: NDArray[np.int64]) -> Array:
    """The values at `places`, counted over all shards; only shards that hold one of them are opened."""
    shard_of = np.searchsorted(starts, places, side="right") - 1
    order = np.argsort(shard_of, kind="stable")
    used, firsts = np.unique(shard_of[order], return_index=True)
    inside = [order[first:stop] for first, stop in pairwise([*firsts.tolist(), len(order)])]
    if not len(used):
        return _load(shards[0])[:0]
    parts = ((at, _load(shards[shard])[places[at] - starts[shard]]) for shard, at in zip(used, inside, strict=True))
    if isinstance(_load(shards[0]), csr_matrix):
        back = np.argsort(order, kind="stable")
        return csr_matrix(vstack([part for _, part in parts], format="csr")[back])
    first = _load(shards[0])
    out = np.empty((len(places), *first.shape[1:]), first.dtype)
    for at, part in parts:
        out[at] = part
    return out


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _ids_table(spec: Spec, shard: str, ids: Ids, values: Array) -> bytes:
    n = len(ids)
    scalar = isinstance(values, np.ndarray) and values.ndim == 1
    table = pa.table(
        {
            "signal": [spec.name] * n,
            "spec": [spec.key] * n,
            "shard": [shard] * n,
            "position": np.arange(n),
            "sample_id": [i.decode() for i in ids],
            "value": values.astype(np.float64) if scalar else pa.nulls(n, pa.float64()),
        },
        schema=SIGNALS,
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()

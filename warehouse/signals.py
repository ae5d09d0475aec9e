"""Signals: a number, a vector or a sparse row per `sample_id`, kept in append-only shards under their spec's key.

A pool version reads its row-aligned array from here, so a re-indexed pool measures only its new rows. A shard is one
or more `.npy` files and the Parquet file of its ids, which is renamed in last: a shard without it does not exist.
"""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from warehouse.records import Spec
from warehouse.store import write_atomically
from warehouse.tables import SIGNALS

Values = NDArray[Any] | csr_matrix
Ids = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class SignalStore:
    """All signals of one home."""

    home: Path

    def missing(self, spec: Spec, ids: Ids) -> NDArray[np.int64]:
        """Positions in `ids` (n,) S32 that still need measuring: the first place of each id that no shard holds."""
        _, first = np.unique(ids, return_index=True)
        first.sort()
        return first[~np.isin(ids[first], self._known(spec))].astype(np.int64)

    def append(self, spec: Spec, ids: Ids, values: Values, cost: Mapping[str, float] | None = None) -> None:
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

        A single shard in the same order is memory-mapped. Raises `KeyError` where an id was never measured.
        """
        shards = self._shards(spec)
        if not shards:
            raise KeyError(f"signal {spec.name} ({spec.key[:12]}) was never measured")
        if len(shards) == 1 and np.array_equal(_shard_ids(shards[0]), ids):
            return _load(shards[0])
        known = self._known(spec)
        order = np.argsort(known, kind="stable")
        place = np.minimum(np.searchsorted(known[order], ids), len(known) - 1)
        found = order[place]
        if absent := int((known[found] != ids).sum()):
            raise KeyError(f"signal {spec.name} ({spec.key[:12]}) lacks {absent} of {len(ids)} rows")
        return _gather([_load(shard) for shard in shards], found)

    def cost(self, spec: Spec, ids: Ids) -> dict[str, float]:
        """What measuring `ids` took, by name, whenever it was: a shard counts by the share of its rows in `ids`."""
        total: dict[str, float] = {}
        for shard in self._shards(spec):
            share = float(np.isin(_shard_ids(shard), ids).mean())
            for name, value in json.loads(shard.with_name(f"{shard.stem}.cost.json").read_text()).items():
                total[name] = total.get(name, 0.0) + share * value
        return total

    def _folder(self, spec: Spec) -> Path:
        return self.home / "signals" / spec.key

    def _shards(self, spec: Spec) -> list[Path]:
        return sorted(self._folder(spec).glob("shard-*.parquet"))

    def _known(self, spec: Spec) -> Ids:
        shards = self._shards(spec)
        return np.concatenate([_shard_ids(shard) for shard in shards]) if shards else np.zeros(0, "S32")


def as_ids(sample_ids: Sequence[str]) -> Ids:
    """Sample ids as an (n,) S32 array."""
    return np.asarray(sample_ids, dtype="S32")


def _shard_ids(shard: Path) -> Ids:
    return as_ids(pq.read_table(shard, columns=["sample_id"])["sample_id"].to_pylist())


def _parts(values: Values) -> dict[str, NDArray[Any]]:
    if isinstance(values, csr_matrix):
        shape = np.asarray(values.shape, np.int64)
        return {"data": values.data, "indices": values.indices, "indptr": values.indptr, "shape": shape}
    return {"dense": values}


def _load(shard: Path) -> Values:
    def part(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(shard.with_name(f"{shard.stem}.{name}.npy"), mmap_mode="r", allow_pickle=False)
        return array

    if shard.with_name(f"{shard.stem}.dense.npy").exists():
        return part("dense")
    return csr_matrix((part("data"), part("indices"), part("indptr")), shape=tuple(part("shape")))


def _gather(shards: list[Values], found: NDArray[np.int64]) -> Values:
    sparse = [shard for shard in shards if isinstance(shard, csr_matrix)]
    if sparse:
        return csr_matrix(vstack(sparse, format="csr")[found])
    dense = [np.asarray(shard) for shard in shards]
    out = np.empty((len(found), *dense[0].shape[1:]), dense[0].dtype)
    start = 0
    for shard in dense:
        inside = (found >= start) & (found < start + len(shard))
        out[inside] = shard[found[inside] - start]
        start += len(shard)
    return out


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _ids_table(spec: Spec, shard: str, ids: Ids, values: Values) -> bytes:
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

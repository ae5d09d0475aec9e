"""The signal store: append-only shards, aligned reads, rows measured once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from warehouse.ids import as_ids
from warehouse.records import Spec, digest
from warehouse.signals import SignalStore

SPEC = Spec("length", {"unit": "tokens"})


def ids_of(numbers: list[int]) -> np.ndarray:
    return as_ids([digest(str(number)) for number in numbers])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=4), st.data())
def test_reads_align_with_any_request(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]], data: st.DataObject
) -> None:
    store = SignalStore(tmp_path_factory.mktemp("home"))
    for shard in shards:
        ids = ids_of(shard)
        missing = store.missing(SPEC, ids)
        if len(missing):
            store.append(SPEC, ids[missing], np.array(shard)[missing] * 2)
    everything = [number for shard in shards for number in shard]
    asked = data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=20))
    assert store.missing(SPEC, ids_of(everything)).tolist() == []
    assert np.asarray(store.read(SPEC, ids_of(asked))).tolist() == [2 * number for number in asked]


def test_duplicates_are_measured_once(tmp_path: Path) -> None:
    assert SignalStore(tmp_path).missing(SPEC, ids_of([5, 3, 5, 3, 9])).tolist() == [0, 1, 4]


def test_vectors_and_sparse_rows(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    vectors, sparse = Spec("representation"), Spec("trigrams")
    dense = np.arange(12, dtype=np.float32).reshape(4, 3)
    for start in (0, 2):
        ids = ids_of([start, start + 1])
        store.append(vectors, ids, dense[start : start + 2])
        store.append(sparse, ids, csr_matrix(dense[start : start + 2]))
    asked = [3, 0, 0, 2]
    assert np.array_equal(store.read(vectors, ids_of(asked)), dense[asked])
    assert np.array_equal(store.read(sparse, ids_of(asked)).toarray(), dense[asked])


def test_one_shard_in_order_is_memory_mapped(tmp_path: Path) -> None:
    store, ids = SignalStore(tmp_path), ids_of([1, 2])
    store.append(SPEC, ids, np.zeros((2, 3), np.float32))
    assert isinstance(store.read(SPEC, ids), np.memmap)


def test_an_unmeasured_row_is_an_error(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    with pytest.raises(KeyError, match="never measured"):
        store.read(SPEC, ids_of([1]))
    store.append(SPEC, ids_of([1]), np.zeros(1))
    with pytest.raises(KeyError, match="lacks 1 of 2 rows"):
        store.read(SPEC, ids_of([1, 2]))


def test_a_shard_without_its_ids_does_not_exist(tmp_path: Path) -> None:
    store = SignalStore(tmp_path)
    store.append(SPEC, ids_of([1]), np.zeros(1))
    for ids in tmp_path.glob("signals/*/shard-*.parquet"):
        ids.unlink()
    assert store.missing(SPEC, ids_of([1])).tolist() == [0]

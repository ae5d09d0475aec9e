"""What a training run reads of its rows, as a key: the same rows are trained on once, whoever chose them."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from warehouse.block import Block
from warehouse.records import Floats, canonical, digest

BATCH_ROWS = 4096


def key_of_rows(path: Path) -> str:
    """128 bits over the turns and the `meta` of all rows of a Parquet file, in their order, and over their weights.

    No other column counts, nor how the file is cut into row groups.
    """
    columns = {name: _Text() for name in ("role", "content", "meta")}
    turns = hashlib.sha256()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=["messages", "meta"]):
            block = Block(batch)
            turns.update(block.turns.astype("<i8").tobytes())
            columns["role"].update(block.roles)
            columns["content"].update(block.contents)
            columns["meta"].update(block.column("meta"))
    found = {name: column.key() for name, column in columns.items()} | {"turns": turns.hexdigest()}
    weights = weights_of(path)
    weighed = {} if weights is None else {"weights": hashlib.sha256(weights.astype("<f8").tobytes()).hexdigest()}
    return digest(canonical(found | weighed))


def weights_of(path: Path) -> Floats | None:
    """(n,) weights of the rows of a training file; None where it has none or all are alike."""
    if "weight" not in pq.read_schema(path).names:
        return None
    weights: Floats = pq.read_table(path, columns=["weight"])["weight"].to_numpy()
    return None if (weights == weights[:1]).all() else weights


class _Text:
    """The hash of a column of texts that comes in parts: of their lengths in bytes, -1 for null, and of their bytes."""

    def __init__(self) -> None:
        self._lengths, self._bytes = hashlib.sha256(), hashlib.sha256()

    def update(self, texts: pa.StringArray) -> None:
        lengths = pc.fill_null(pc.cast(pc.binary_length(texts), pa.int64()), -1)
        self._lengths.update(np.asarray(lengths).astype("<i8").tobytes())
        self._bytes.update(b"".join(pc.cast(texts.drop_null(), pa.binary()).to_pylist()))

    def key(self) -> str:
        return f"{self._lengths.hexdigest()}{self._bytes.hexdigest()}"

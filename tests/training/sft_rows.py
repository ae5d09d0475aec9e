"""Rows and a dataset file that the fine-tuning tests share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.records import Dataset, Message, Messages


def sums(n: int) -> list[Messages]:
    """n additions of different lengths."""
    pairs = np.random.default_rng(0).integers(0, 1000, (n, 2)).tolist()
    return [
        (
            Message("user", f"What is {a} plus {b}?" + " Please." * (a % 3)),
            Message("assistant", f"The answer is {a + b}."),
        )
        for a, b in pairs
    ]


def write_rows(path: Path, rows: Sequence[Messages], weights: np.ndarray | None = None) -> Dataset:
    stored = [[{"role": m.role, "content": m.content} for m in row] for row in rows]
    pq.write_table(pa.table({"messages": stored}), path)
    return Dataset(path, "rows", weights=weights)

"""The Parquet tables that stages write, one schema each. The catalogue's views are globs over files of these names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


SIGNALS = _schema(signal=STRING, spec=STRING, shard=STRING, position=INT, sample_id=STRING, value=FLOAT)
SELECTION = _schema(
    selection=STRING, pool=STRING, method=STRING, spec=STRING, params=STRING, budget=INT, seed=INT, rows=INT,
    direction=STRING, cutoff=FLOAT, diagnostics=STRING,
)  # fmt: skip
SELECTED = _schema(
    selection=STRING, pool=STRING, row=INT, sample_id=STRING, rank=INT, score=FLOAT, weight=FLOAT, reason=STRING
)
EXCLUDED = _schema(pool=STRING, row=INT, sample_id=STRING, reason=STRING, other_row=INT)
GENERATIONS = _schema(
    generation=STRING, row=INT, sample_id=STRING, synthesizer=STRING, params=STRING, seed=INT, source=STRING,
    meta=STRING,
)  # fmt: skip
CHECKPOINT = _schema(
    checkpoint=STRING, base=STRING, base_fingerprint=STRING, trainer=STRING, params=STRING, data=STRING, seed=INT,
    rows=INT, tokens=INT, label_tokens=INT, steps=INT, seconds=FLOAT, flops=FLOAT, peak_memory_bytes=INT,
    precision=STRING,
)  # fmt: skip
LOSSES = _schema(
    checkpoint=STRING, step=INT, epoch=FLOAT, loss=FLOAT, learning_rate=FLOAT, gradient_norm=FLOAT, tokens=INT,
    seconds=FLOAT,
)  # fmt: skip
EVALUATION = _schema(
    evaluation=STRING, checkpoint=STRING, task=STRING, spec=STRING, params=STRING, metric=STRING, value=FLOAT,
    low=FLOAT, high=FLOAT, n=INT, seed=INT,
)  # fmt: skip
EVAL_ITEMS = _schema(
    evaluation=STRING, checkpoint=STRING, task=STRING, item_id=STRING, group=STRING, metric=STRING, value=FLOAT,
    prompt=STRING, reply=STRING, parsed=STRING, gold=STRING, n_tokens=INT, finish_reason=STRING, prompt_hash=STRING,
    doc_hash=STRING, target_hash=STRING,
)  # fmt: skip
RESULTS = _schema(
    comparison=STRING, method=STRING, budget=INT, seeds=STRING, task=STRING, metric=STRING, value=FLOAT, low=FLOAT,
    high=FLOAT, n=INT, difference=FLOAT, difference_low=FLOAT, difference_high=FLOAT, seed_differences=STRING,
    verdict=STRING, selections=STRING, evaluations=STRING, checkpoints=STRING, seconds=FLOAT, flops=FLOAT,
)  # fmt: skip
RUN = _schema(
    run=STRING, recipe=STRING, command=STRING, started=TIME, version=STRING, recipe_text=STRING, home=STRING, ui=STRING
)
RUN_END = _schema(run=STRING, ended=TIME, status=STRING, error=STRING, report=STRING)
STAGE = _schema(
    run=STRING, name=STRING, stage=STRING, key=STRING, computed=BOOL, started=TIME, seconds=FLOAT, rows_in=INT,
    rows_out=INT, dropped=STRING,
)  # fmt: skip


def write_rows(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as one Parquet file (zstd) of exactly the columns of `schema`; an absent column is null.

    Raises `ValueError` for a column that the schema does not have.
    """
    for row in rows[:1]:
        if unknown := set(row) - set(schema.names):
            raise ValueError(f"{path.name} has no column {', '.join(sorted(unknown))}")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")

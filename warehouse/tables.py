"""The Parquet tables that stages write, one schema each. The catalogue's views are globs over files of these names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

SELECTED_FILE = "selected.parquet"
STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


MESSAGES = pa.list_(pa.struct([("role", STRING), ("content", STRING)]))
# of a file of samples; its rows stand in a pool where the file's name says
SAMPLES = _schema(
    sample_id=STRING, prompt_id=STRING, source=STRING, location=STRING, given_id=STRING, messages=MESSAGES,
    turns=pa.int32(), chars=pa.int32(), language=STRING, has_code=BOOL, has_math=BOOL, family=STRING, licence=STRING,
    meta=STRING,
)  # fmt: skip
REJECTS = _schema(source=STRING, location=STRING, reason=STRING, detail=STRING)
POOL = _schema(
    pool=STRING, name=STRING, n=INT, sources=pa.list_(pa.struct([("source", STRING), ("rows", INT)])), rows_in=INT,
    rejected=INT, made=TIME,
)  # fmt: skip
SIGNALS = _schema(signal=STRING, spec=STRING, shard=STRING, position=INT, sample_id=STRING, value=FLOAT)
SELECTION = _schema(
    selection=STRING, pool=STRING, method=STRING, spec=STRING, params=STRING, budget=INT, unit=STRING, seed=INT,
    rows=INT, direction=STRING, cutoff=FLOAT, diagnostics=STRING, data=STRING,
)  # fmt: skip
SELECTED = _schema(
    selection=STRING, pool=STRING, row=INT, sample_id=STRING, rank=INT, score=FLOAT, weight=FLOAT, reason=STRING,
    source=STRING, messages=MESSAGES, turns=pa.int32(), chars=pa.int32(), language=STRING, has_code=BOOL,
    has_math=BOOL, family=STRING, licence=STRING, meta=STRING,
)  # fmt: skip
MIXTURE = _schema(
    mixture=STRING, pool=STRING, source=STRING, share=FLOAT, rows=INT, repeats=INT, available=INT, seed=INT,
    purpose=STRING, data=STRING,
)  # fmt: skip
ADVICE = _schema(
    advice=STRING, pool=STRING, advisor=STRING, params=STRING, budget=INT, kind=STRING, name=STRING, value=FLOAT,
    low=FLOAT, high=FLOAT, n=INT, detail=STRING, mixture=STRING,
)  # fmt: skip
DROPS = _schema(
    cleaning=STRING, pool=STRING, row=INT, sample_id=STRING, source=STRING, filter=STRING, reason=STRING,
    detail=STRING, other_pool=STRING, other_row=INT, value=FLOAT,
)  # fmt: skip
FILTERS = _schema(
    cleaning=STRING, pool=STRING, step=INT, filter=STRING, params=STRING, action=STRING, source=STRING, rows_in=INT,
    found=INT, rows_out=INT,
)  # fmt: skip
NEIGHBOURS = _schema(
    cleaning=STRING, pool=STRING, set=STRING, rank=INT, row=INT, sample_id=STRING, other_pool=STRING, other_row=INT,
    value=FLOAT,
)  # fmt: skip
TOKENS = _schema(tokens=pa.int32())
DESCRIBE = _schema(description=STRING, pool=STRING, tokenizer=STRING, model=STRING, rows=INT, tokens=INT)
GENERATIONS = _schema(
    generation=STRING, row=INT, sample_id=STRING, synthesizer=STRING, params=STRING, models=STRING, seed=INT,
    source=STRING, licence=STRING, parents=pa.list_(STRING), replies=pa.list_(STRING), meta=STRING,
)  # fmt: skip
SYNTHESIS = _schema(
    generation=STRING, continues=STRING, synthesizer=STRING, params=STRING, models=STRING, seed=INT, seeds=STRING,
    accepted=INT, refused=INT, unanswered=INT, requests=INT, prompt_tokens=INT, completion_tokens=INT, cost_usd=FLOAT,
)  # fmt: skip
SYNTHESIS_REJECTS = _schema(
    source=STRING, location=STRING, reason=STRING, detail=STRING, messages=STRING, parents=pa.list_(STRING),
    replies=pa.list_(STRING), meta=STRING,
)  # fmt: skip
REPLIES = _schema(
    generation=STRING, reply=STRING, model=STRING, served_model=STRING, prompt=STRING, params=STRING, text=STRING,
    finish_reason=STRING, failure=STRING, prompt_tokens=INT, completion_tokens=INT, seconds=FLOAT, cost_usd=FLOAT,
    made=TIME,
)  # fmt: skip
ATTEMPTS = _schema(
    generation=STRING, reply=STRING, number=INT, model=STRING, started=TIME, seconds=FLOAT, status=INT, outcome=STRING,
    error=STRING, prompt_tokens=INT, completion_tokens=INT, cost_usd=FLOAT,
)  # fmt: skip
CHECKPOINT = _schema(
    checkpoint=STRING, base=STRING, base_fingerprint=STRING, trainer=STRING, params=STRING, data=STRING, seed=INT,
    rows=INT, tokens=INT, label_tokens=INT, steps=INT, seconds=FLOAT, flops=FLOAT, peak_memory_bytes=INT,
    precision=STRING,
)  # fmt: skip
LOSSES = _schema(
    checkpoint=STRING, step=INT, epoch=FLOAT, loss=FLOAT, learning_rate=FLOAT, gradient_norm=FLOAT, tokens=INT,
    seconds=FLOAT, margin=FLOAT, accuracy=FLOAT,
)  # fmt: skip
EVALUATION = _schema(
    evaluation=STRING, checkpoint=STRING, task=STRING, spec=STRING, params=STRING, metric=STRING, value=FLOAT,
    low=FLOAT, high=FLOAT, n=INT, seed=INT,
)  # fmt: skip
EVAL_ITEMS = _schema(
    evaluation=STRING, checkpoint=STRING, task=STRING, item_id=STRING, group=STRING, metric=STRING, value=FLOAT,
    prompt=STRING, reply=STRING, parsed=STRING, gold=STRING, n_tokens=INT, finish_reason=STRING, prompt_hash=STRING,
    doc_hash=STRING, target_hash=STRING, repeat=INT, cluster=STRING, ability=STRING, level=STRING, source=STRING,
    language=STRING, difficulty=STRING, prompt_tokens=INT, reply_tokens=INT, choices=INT, parts=INT, detail=STRING,
)  # fmt: skip
RESULTS = _schema(
    comparison=STRING, method=STRING, budget=INT, seeds=STRING, control=STRING, task=STRING, metric=STRING, value=FLOAT,
    low=FLOAT, high=FLOAT, n=INT, se=FLOAT, chance=FLOAT, difference=FLOAT, difference_low=FLOAT, difference_high=FLOAT,
    seed_differences=STRING, mde=FLOAT, items_needed=INT, p=FLOAT, p_from=STRING, p_holm=FLOAT, verdict=STRING,
    value_clean=FLOAT, low_clean=FLOAT, high_clean=FLOAT, n_clean=INT, difference_clean=FLOAT,
    difference_low_clean=FLOAT, difference_high_clean=FLOAT, contaminated=INT, contaminated_chosen=FLOAT,
    selections=STRING, evaluations=STRING, checkpoints=STRING, seconds=FLOAT, flops=FLOAT,
)  # fmt: skip
EFFICIENCY = _schema(
    comparison=STRING, method=STRING, task=STRING, metric=STRING, reference=FLOAT, reference_budget=INT, budget=INT,
    low=INT, high=INT, reached=FLOAT,
)  # fmt: skip
CONTAMINATED = _schema(
    contamination=STRING, pool=STRING, test=STRING, set=STRING, item=INT, sample_id=STRING, words=INT, coverage=FLOAT,
    row=INT, ngram_row=INT, contaminated=BOOL,
)  # fmt: skip
RUN = _schema(
    run=STRING, recipe=STRING, command=STRING, started=TIME, version=STRING, recipe_text=STRING, home=STRING, ui=STRING
)
RUN_END = _schema(run=STRING, ended=TIME, status=STRING, error=STRING, report=STRING)
STAGE = _schema(
    run=STRING, name=STRING, stage=STRING, key=STRING, computed=BOOL, started=TIME, seconds=FLOAT, rows_in=INT,
    rows_out=INT, dropped=STRING,
)  # fmt: skip


def ids_of(values: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """(n,) S32 of a column of ids, without a Python object for each."""
    fixed = pc.cast(pc.cast(values, pa.binary()), pa.binary(32)).combine_chunks()
    whole = fixed if isinstance(fixed, pa.Array) else pa.concat_arrays(fixed.chunks)
    return np.frombuffer(whole.buffers()[1] or b"", "S32", len(whole), 32 * whole.offset)


def write_rows(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as one Parquet file (zstd) of exactly the columns of `schema`; an absent column is null.

    Raises `ValueError` for a column that the schema does not have.
    """
    for row in rows[:1]:
        if unknown := set(row) - set(schema.names):
            raise ValueError(f"{path.name} has no column {', '.join(sorted(unknown))}")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd")

"""`winnow pool split`: a pool as files of what is trained on and what is held out, at three levels."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval.splits import LEVELS, Shares, split
from warehouse.ask import connect
from warehouse.errors import InputError
from warehouse.export import BATCH_ROWS, Row, check_folder, export_rows, replacing_folder
from warehouse.named import pool
from warehouse.pools import PoolReader
from warehouse.records import Rows

COLUMNS = ("source", "family", "language", "licence")  # of a pool that may name a category or task; others are in meta


@dataclass(frozen=True, slots=True)
class Wanted:
    """What names the category and the task of a row: a column of the pool or a key of its meta; shares, seed."""

    category: str = "source"
    task: str = "family"
    shares: Shares = field(default_factory=Shares)
    seed: int = 0


def split_pool(home: Path, name: str, out: Path, wanted: Wanted) -> str:
    """Write `<out>/<level>.jsonl` for every level that has rows, each row with its `level`; what was written, as text.

    The folder appears whole or not at all. Raises `InputError` for a pool that is not there, a category or task that no
    row names, and a folder that holds anything else.
    """
    check_folder(out, LEVELS)
    with connect(home):  # nothing is pruned meanwhile
        reader = PoolReader(pool(home, name).folder(home))
        labels = [_labels(reader, key) for key in (wanted.category, wanted.task)]
        prompts = reader.prompt_ids().astype(np.str_).tolist()
        found = split(labels[0], labels[1], prompts, wanted.seed, wanted.shares)
        with replacing_folder(out) as folder:
            for level in LEVELS:
                rows = np.flatnonzero(found.level == level)
                if len(rows):
                    export_rows(_rows(reader, rows, level), folder / f"{level}.jsonl", types={"level": pa.string()})
    lines = [f"{level:20}{count:>12,} rows" for level, count in found.counts().items()]
    return "\n".join([*lines, f"written to {out}"])


def _labels(reader: PoolReader, key: str) -> list[str]:
    """(n,) of each row, "" where it has none."""
    if key in COLUMNS:
        found = ["" if value is None else str(value) for value in reader.column(key).tolist()]
    else:
        found = [_told(json.loads(meta or "{}"), key) for meta in reader.column("meta").tolist()]
    if not any(found):
        raise InputError(f"no row names its {key!r}; give one of {', '.join(COLUMNS)} or a key of the rows' meta")
    return found


def _told(meta: Any, key: str) -> str:
    return "" if meta.get(key) is None else str(meta[key])


def _rows(reader: PoolReader, rows: Rows, level: str) -> Iterator[Row]:
    for start in range(0, len(rows), BATCH_ROWS):
        for example in reader.examples(rows[start : start + BATCH_ROWS]):
            yield example, {"level": level}

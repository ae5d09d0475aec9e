"""Preference pairs and their dataset file, which the tests of preference tuning share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sft_rows import sums

from warehouse.records import Dataset

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def turn(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


def polite(n: int) -> list[dict[str, Any]]:
    """n additions answered in a sentence (chosen) and with a number alone (rejected)."""
    pairs = []
    for asked, told in sums(n):
        number = told.content.removeprefix("The answer is ")
        pairs.append({"prompt": [turn("user", asked.content)], "chosen": [turn("assistant", told.content)],
                      "rejected": [turn("assistant", number)]})  # fmt: skip
    return pairs


def write_pairs(path: Path, rows: Sequence[Mapping[str, Any]]) -> Dataset:
    columns = {name: pa.array([row[name] for row in rows], TURNS) for name in ("prompt", "chosen", "rejected")}
    pq.write_table(pa.table(columns), path)
    return Dataset(path, "pairs", "preference")

"""Items asked several times count once, with their mean over repeats."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import InputError

IDENTITY = ("item_id", "prompt_hash", "target_hash")


def averaged(rows: pa.Table) -> pa.Table:
    """One row per item, in the order of their ids: `value` is the mean over its repeats, the rest as in the first.

    `rows` are item rows of one per-item value. Raises `InputError` where a repeat of an item is there twice, or its
    repeats were not asked the same.
    """
    order = [(name, "ascending") for name in ("item_id", "repeat") if name in rows.column_names]
    rows = rows.sort_by(order)
    ids = rows["item_id"].to_numpy(zero_copy_only=False)
    first = np.append(True, ids[1:] != ids[:-1])[: len(ids)]
    if first.all():
        return rows
    _require_repeats(rows, ids)
    item = np.cumsum(first) - 1
    means = np.bincount(item, weights=rows["value"].to_numpy()) / np.bincount(item)
    kept = rows.filter(pa.array(first))
    return kept.set_column(kept.column_names.index("value"), "value", pa.array(means))


def _require_repeats(rows: pa.Table, ids: NDArray[Any]) -> None:
    asked = set(zip(*(rows[name].to_pylist() for name in IDENTITY), strict=True))
    repeats = rows["repeat"].to_pylist() if "repeat" in rows.column_names else [0] * len(ids)
    if len(asked) > len(set(ids)) or len(set(zip(ids, repeats, strict=True))) < len(ids):
        raise InputError(
            f"{len(rows)} rows of {len(set(ids))} items are not repeats of them: each repeat of an item must have its "
            "own number and the same prompt and gold reply; evaluate again"
        )

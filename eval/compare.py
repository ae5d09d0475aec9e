"""Comparing two arms on the same items: only what is truly paired is compared."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eval.metrics import Metric, metric
from eval.statistics import Comparison, paired_bootstrap, share
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats

Tables = Mapping[int, pa.Table]  # seed of training to the item rows of that run (`eval.items.ITEM_SCHEMA`)
IDENTITY = ("item_id", "prompt_hash", "target_hash")


def compare(a: Tables, b: Tables, name: str, rng: np.random.Generator, clusters: str | None = None) -> Comparison:
    """What arm `a` gained over arm `b` in the metric `name`: A - B, with its interval over seeds and items.

    Runs are paired by seed and items by `item_id`. `clusters` names a column whose rows go together ("group"); whole
    clusters are then drawn. Raises `InputError` where seeds, items, prompts or gold replies differ.
    """
    wanted = metric(name)
    if not a or set(a) != set(b):
        raise InputError(f"runs are paired by seed: found seeds {sorted(a)} and {sorted(b)}; give both arms the same")
    seeds = sorted(a)
    arms = [[_rows(arm[seed], wanted) for seed in seeds] for arm in (a, b)]
    reference = arms[0][0]
    for arm, label in zip(arms, ("first", "second"), strict=True):
        for seed, rows in zip(seeds, arm, strict=True):
            _require_same_items(reference, rows, f"seed {seed} of the {label} arm")
    scores = [np.stack([_column(rows, "value") for rows in arm]) for arm in arms]
    return paired_bootstrap(
        scores[0],
        scores[1],
        rng,
        higher_is_better=wanted.higher_is_better,
        weights=_column(reference, "n_tokens") if wanted.weighing == "token" else None,
        clusters=None if clusters is None else reference[clusters].to_numpy(zero_copy_only=False),
    )


def average(arm: Tables, name: str, rng: np.random.Generator) -> Estimate:
    """The metric `name` of one arm over all its seeds, with its interval over seeds and items."""
    wanted = metric(name)
    runs = [_rows(arm[seed], wanted) for seed in sorted(arm)]
    for seed, rows in zip(sorted(arm), runs, strict=True):
        _require_same_items(runs[0], rows, f"seed {seed}")
    scores = np.stack([_column(rows, "value") for rows in runs])
    weights = _column(runs[0], "n_tokens") if wanted.weighing == "token" else None
    found = paired_bootstrap(scores, np.zeros_like(scores), rng, weights=weights).difference  # its gain over nothing
    items = scores.mean(axis=0)
    certain = share(int(items.sum()), len(items)) if wanted.share and np.isin(items, (0.0, 1.0)).all() else None
    return certain or found


def _rows(table: pa.Table, wanted: Metric) -> pa.Table:
    """The rows of one per-item value, in one order of items."""
    rows = table.filter(pc.equal(table["metric"], wanted.column)).sort_by("item_id")
    if not len(rows):
        found = ", ".join(sorted(set(table["metric"].to_pylist()))) or "no rows"
        raise InputError(f"no item has a value {wanted.column!r}; found: {found}")
    return rows


def _require_same_items(reference: pa.Table, rows: pa.Table, label: str) -> None:
    expected, found = (set(zip(*(t[c].to_pylist() for c in IDENTITY), strict=True)) for t in (reference, rows))
    if expected == found and len(rows) == len(reference):
        return
    ids = {item for item, *_ in expected ^ found}
    raise InputError(
        f"{label} was not asked the same as the others: {len(ids)} of {len(reference)} items differ in prompt, gold "
        f"reply or presence (first: {sorted(ids)[:3]}); evaluate all runs on one test set"
    )


def _column(rows: pa.Table, name: str) -> Floats:
    values: NDArray[np.float64] = rows[name].to_numpy().astype(np.float64)
    return values

"""Comparing two arms on the same items: only what is truly paired is compared."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eval.item_sets import SET_DRAWS, set_comparison, set_estimate
from eval.metrics import Metric, main_metric, metric, right_of
from eval.repeats import IDENTITY, averaged
from eval.statistics import (
    DRAWS,
    Comparison,
    Paired,
    clustered_standard_error,
    overall_bootstrap,
    paired_bootstrap,
    share,
)
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats

Tables = Mapping[int, pa.Table]  # seed of training to the item rows of that run (`eval.items.ITEM_SCHEMA`)
Labels = NDArray[np.generic]
ORDINALS = ("first", "second")


def compare(
    a: Tables, b: Tables, name: str, rng: np.random.Generator, clusters: str | None = None, draws: int = DRAWS
) -> Comparison:
    """What arm `a` gained over arm `b` in the metric `name`: A - B, with its interval over seeds and items.

    Runs are paired by seed and items by `item_id`; an item asked several times counts once, with its mean. Items of one
    `cluster` are drawn together; `clusters` names another column that says so ("group"). Raises `InputError` where
    seeds, items, prompts or gold replies differ.
    """
    wanted = metric(name)
    seeds = _shared_seeds(a, b)
    runs = [[_rows(arm[seed], wanted) for seed in seeds] for arm in (a, b)]
    reference = _same_items(runs, seeds)
    together = clusters_of(reference, clusters or "cluster")
    if wanted.statistic is not None:
        ours, theirs = (np.stack([_columns(arm[seed], wanted) for seed in seeds]) for arm in (a, b))
        few = min(draws, SET_DRAWS)
        return set_comparison(wanted.statistic, ours, theirs, rng, wanted.higher_is_better, together, few)
    pair = _paired(runs, wanted, together)
    return paired_bootstrap(pair.a, pair.b, rng, wanted.higher_is_better, pair.weights, pair.clusters, draws)


def average(arm: Tables, name: str, rng: np.random.Generator, draws: int = DRAWS) -> Estimate:
    """The metric `name` of one arm over all its seeds, with its interval over seeds and items (or their clusters)."""
    wanted = metric(name)
    seeds = sorted(arm)
    runs = [_rows(arm[seed], wanted) for seed in seeds]
    together = clusters_of(_same_items([runs], seeds), "cluster")
    if wanted.statistic is not None:
        values = np.stack([_columns(arm[seed], wanted) for seed in seeds])
        return set_estimate(wanted.statistic, values, rng, together, min(draws, SET_DRAWS))
    scores = _scores(runs)
    found = paired_bootstrap(  # its gain over nothing
        scores, np.zeros_like(scores), rng, weights=_weights(runs[0], wanted), clusters=together, draws=draws
    ).difference
    return _certain(scores.mean(axis=0), together, wanted) or found


def standard_error(arm: Tables, name: str) -> float | None:
    """Of the mean over items, each averaged over seeds first: clustered where items have clusters.

    None for a metric that is no mean.
    """
    wanted = metric(name)
    if wanted.statistic is not None:
        return None
    runs = [_rows(arm[seed], wanted) for seed in sorted(arm)]
    together = clusters_of(runs[0], "cluster")
    items = _scores(runs).mean(axis=0)
    return clustered_standard_error(
        items, np.arange(len(items)) if together is None else together, _weights(runs[0], wanted)
    )


def overall(a: Sequence[Tables], b: Sequence[Tables], name: str, rng: np.random.Generator) -> Comparison | None:
    """What arm `a` gained over `b` in the unweighted mean over tasks, of which both sequences hold the item rows.

    `name` is one of `eval.metrics.OVERALL`. None where fewer than two tasks have a metric for it. Raises `InputError`
    as `compare` does.
    """
    pairs = []
    for mine, theirs in zip(a, b, strict=True):
        wanted, seeds = _main(mine, name), _shared_seeds(mine, theirs)
        if wanted is None:
            continue
        runs = [[_rows(arm[seed], wanted) for seed in seeds] for arm in (mine, theirs)]
        pairs.append(_paired(runs, wanted, clusters_of(_same_items(runs, seeds), "cluster")))
    return overall_bootstrap(pairs, rng, metric(name).higher_is_better) if len(pairs) > 1 else None


def overall_average(arm: Sequence[Tables], name: str, rng: np.random.Generator) -> Estimate | None:
    """The unweighted mean over tasks of one arm, as `overall` compares it."""
    nothing = [{seed: _zeroed(table) for seed, table in task.items()} for task in arm]
    found = overall(arm, nothing, name, rng)
    return None if found is None else found.difference


def seed_scores(arms: Sequence[Tables], name: str) -> tuple[Floats, Floats, Labels | None]:
    """(arms, s, n) values of several arms on the same seeds and items; weights (n,) and clusters of the items."""
    wanted, seeds = metric(name), sorted(arms[0])
    if wanted.statistic is not None:
        raise InputError(f"{name!r} is no mean over items")
    for arm in arms[1:]:
        _shared_seeds(arms[0], arm)
    runs = [[_rows(arm[seed], wanted) for seed in seeds] for arm in arms]
    reference = _same_items(runs, seeds)
    weights = _weights(reference, wanted)
    scores = np.stack([_scores(each) for each in runs])
    return scores, np.ones(len(reference)) if weights is None else weights, clusters_of(reference, "cluster")


def clusters_of(rows: pa.Table, column: str) -> Labels | None:
    """(n,) what items are drawn by: those with the same non-empty entry together, the others one by one.

    None where every item stands for itself.
    """
    if column not in rows.column_names:
        return None
    labels = rows[column].to_pylist()
    if not any(labels):
        return None
    items = rows["item_id"].to_pylist()
    return np.array([f"in {label}" if label else f"alone {item}" for label, item in zip(labels, items, strict=True)])


def _main(arm: Tables, name: str) -> Metric | None:
    columns = {column for table in arm.values() for column in pc.unique(table["metric"]).to_pylist()}
    found = main_metric(columns, name)
    return None if found is None else metric(found)


def _zeroed(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("value"), "value", pa.array(np.zeros(len(table))))


def _shared_seeds(a: Tables, b: Tables) -> list[int]:
    if not a or set(a) != set(b):
        raise InputError(f"runs are paired by seed: found seeds {sorted(a)} and {sorted(b)}; give both arms the same")
    return sorted(a)


def _same_items(arms: Sequence[Sequence[pa.Table]], seeds: Sequence[int]) -> pa.Table:
    """The rows of the first run, after all others were found to be of the same items."""
    reference = arms[0][0]
    for place, arm in enumerate(arms):
        which = f" of the {ORDINALS[place]} arm" if len(arms) == 2 else f" of arm {place + 1}" if len(arms) > 2 else ""
        for seed, rows in zip(seeds, arm, strict=True):
            _require_same_items(reference, rows, f"seed {seed}{which}")
    return reference


def _paired(runs: Sequence[Sequence[pa.Table]], wanted: Metric, together: Labels | None) -> Paired:
    a, b = (_scores(arm) for arm in runs)
    return Paired(a, b, _weights(runs[0][0], wanted), together)


def _scores(runs: Sequence[pa.Table]) -> Floats:
    """(s, n) values, row by seed and column by item."""
    return np.stack([_column(rows, "value") for rows in runs])


def _weights(rows: pa.Table, wanted: Metric) -> Floats | None:
    weighed = {"token": "n_tokens", "part": "parts"}.get(wanted.weighing)
    return _column(rows, weighed) if weighed else None


def _certain(items: Floats, together: Labels | None, wanted: Metric) -> Estimate | None:
    """The exact interval where all items are right or none is; of clusters, as if each were one item."""
    if not wanted.share or not (items == items[0]).all() or items[0] not in (0.0, 1.0):
        return None
    n = len(items) if together is None else len(np.unique(together))
    found = share(n if items[0] else 0, n)
    return None if found is None else replace(found, n=len(items))


def _rows(table: pa.Table, wanted: Metric) -> pa.Table:
    """The rows of one per-item value, one per item, in one order of items."""
    return _values_of(table, wanted.column)


def _values_of(table: pa.Table, column: str) -> pa.Table:
    rows = table.filter(pc.equal(table["metric"], column))
    if not len(rows):
        found = ", ".join(sorted(set(table["metric"].to_pylist()))) or "no rows"
        raise InputError(f"no item has a value {column!r}; found: {found}")
    return averaged(rows)


def _columns(table: pa.Table, wanted: Metric) -> Floats:
    """(n, k) whether each item is right, and the values that the metric reads."""
    right = right_of(pc.unique(table["metric"]).to_pylist())
    if right is None:
        raise InputError(f"the metric reads {', '.join(wanted.reads)} beside what is right or wrong; no value says so")
    rows = [_values_of(table, name) for name in (right, *wanted.reads)]
    for name, other in zip(wanted.reads, rows[1:], strict=True):
        _require_same_items(rows[0], other, f"the value {name!r}")
    return np.stack([_column(each, "value") for each in rows], axis=1)


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
    values: Any = rows[name].to_numpy()
    return np.asarray(values, np.float64)

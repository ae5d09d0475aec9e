"""How few rows are enough: the smallest budget at which a method reaches what the control reaches with its largest."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.compare import average
from eval.growth import chance, sample_efficiency
from eval.metrics import main_metric
from eval.metrics import metric as known_metric

Tables = Mapping[int, pa.Table]
Raced = Mapping[str, Mapping[int, Tables]]  # method to budget to the item rows of one task, by seed


def efficiency(raced: Raced, control: str, task: str, seed: int) -> list[dict[str, Any]]:
    """A row for every method that was raced at several budgets, by the task's first metric, else its loss.

    None without the control, or where it does no better than guessing: any number of rows is enough for that. Each
    number is drawn from the same place, as in the results.
    """
    if not raced.get(control):
        return []
    largest = max(raced[control])
    goal = raced[control][largest]
    columns = {name for table in goal.values() for name in pc.unique(table["metric"]).to_pylist()}
    metric = main_metric(columns, "score") or main_metric(columns, "nll")
    if metric is None:
        return []
    reference = average(goal, metric, np.random.default_rng(seed)).value
    if known_metric(metric).higher_is_better and reference <= (chance(next(iter(goal.values()))) or 0.0):
        return []
    known = {"task": task, "metric": metric, "reference": reference, "reference_budget": largest}
    return [
        {"method": method, **known, **_enough(budgets, metric, reference, seed)}
        for method, budgets in raced.items()
        if len(budgets) > 1
    ]


def _enough(budgets: Mapping[int, Tables], metric: str, reference: float, seed: int) -> dict[str, Any]:
    found = sample_efficiency(budgets, metric, np.random.default_rng(seed), reference=reference)
    return {"budget": found.budget, "low": found.low, "high": found.high, "reached": found.reached}

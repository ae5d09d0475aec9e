"""What each metric means: which way is better, and what an item weighs in its mean."""

from dataclasses import dataclass
from typing import Literal

from warehouse.errors import InputError

Weighing = Literal["item", "token"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`column` is the per-item value it averages; `weighing` whether items count alike or by their gold tokens.

    A `share` averages values that are 0 or 1.
    """

    column: str
    higher_is_better: bool
    weighing: Weighing
    meaning: str
    share: bool = False


METRICS: dict[str, Metric] = {
    "exact_match": Metric("exact_match", True, "item", "share of items whose answer equals the gold one", True),
    "numeric_match": Metric("numeric_match", True, "item", "share of items whose number equals the gold one", True),
    "nll": Metric("nll", False, "token", "nats per token of the gold reply, every token counted alike"),
    "nll_item_mean": Metric("nll", False, "item", "nats per token of the gold reply, every item counted alike"),
}


def metric(name: str) -> Metric:
    """The metric of this name. Raises `InputError` for an unknown one."""
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}; known metrics: {', '.join(METRICS)}")
    return METRICS[name]


def metrics_of(columns: set[str]) -> dict[str, Metric]:
    """Every metric that per-item values of these names give."""
    return {name: m for name, m in METRICS.items() if m.column in columns}

"""Running a task on a model: item by item, then every metric with its interval."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.items import ItemRow, item_rows, item_table
from eval.metrics import Metric, metric, metrics_of
from eval.protocol import Task
from eval.statistics import bootstrap, share
from eval.tasks import ROLE
from models.converse import converse
from models.protocol import LanguageModel
from warehouse.errors import InputError
from warehouse.records import Estimate, EvalReport


@dataclass(frozen=True, slots=True)
class Assessment:
    """The report of one task on one checkpoint, and the rows of all items it rests on."""

    report: EvalReport
    items: tuple[ItemRow, ...]

    def table(self) -> pa.Table:
        """The items as an Arrow table (`eval.items.ITEM_SCHEMA`)."""
        return item_table(self.items)


def assess(task: Task, model: LanguageModel, checkpoint_key: str, rng: np.random.Generator) -> Assessment:
    """Put every item of `task` to `model` and estimate each metric; `rng` draws the bootstrap alone.

    Items advance together, so the model sees them in batches. Raises `InputError` where no item got any value (every
    gold reply was cut off by the model's context).
    """
    items = task.items()
    scores = converse((task.attempt(item) for item in items), {ROLE: model})
    rows = [row for item, score in zip(items, scores, strict=True) for row in item_rows(item, score)]
    if not rows:
        raise InputError(
            f"none of the {len(items)} items of {task.spec.name} could be scored; raise the context length"
        )
    return Assessment(EvalReport(task.spec, checkpoint_key, estimates(item_table(rows), rng)), tuple(rows))


def estimates(items: pa.Table, rng: np.random.Generator) -> dict[str, Estimate]:
    """Every metric that the per-item values of one run give, each with its interval over items."""
    columns = set(items["metric"].to_pylist())
    return {name: _estimate(items, m, rng) for name, m in metrics_of(columns).items()}


def by_group(items: pa.Table, name: str, rng: np.random.Generator) -> dict[str, Estimate]:
    """The metric `name` for each group of items (skill or source) apart: what an average over all would hide."""
    groups = sorted(set(items["group"].to_pylist()))
    return {group: _estimate(items.filter(pc.equal(items["group"], group)), metric(name), rng) for group in groups}


def _estimate(items: pa.Table, wanted: Metric, rng: np.random.Generator) -> Estimate:
    rows = items.filter(pc.equal(items["metric"], wanted.column))
    weights = rows["n_tokens"].to_numpy().astype(np.float64) if wanted.weighing == "token" else None
    values = rows["value"].to_numpy()
    certain = share(int(values.sum()), len(values)) if wanted.share else None
    return certain or bootstrap(values, rng, weights)

"""Running a task on a model: item by item, then every metric with its interval."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from eval.compare import average
from eval.context import check_format, fitted
from eval.items import ItemRow, item_rows, item_table
from eval.metrics import metrics_of, set_metrics_of
from eval.protocol import TUNED, Item, Score, Task
from models.converse import converse
from models.protocol import UNANSWERED, LanguageModel
from warehouse.errors import InputError
from warehouse.records import Estimate, EvalReport

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Assessment:
    """The report of one task on one checkpoint, and the rows of all items it rests on."""

    report: EvalReport
    items: tuple[ItemRow, ...]

    def table(self) -> pa.Table:
        """The items as an Arrow table (`eval.items.ITEM_SCHEMA`)."""
        return item_table(self.items)


def assess(
    task: Task, models: LanguageModel | Mapping[str, LanguageModel], checkpoint_key: str, rng: np.random.Generator
) -> Assessment:
    """Put every item of `task` to the model and estimate each metric; `rng` draws the bootstrap alone.

    `models` are by role, the examined one "tuned"; one alone is that. Items advance together, so models see them in
    batches. Raises `InputError` for a role that is not given; for prompts that do not fit the model's context, before
    any work where the model can count; where a model gave no answer; and where no item got any value (every gold reply
    was cut off by the model's context).
    """
    given = models if isinstance(models, Mapping) else {TUNED: models}
    if missing := [role for role in task.needs if role not in given]:
        raise InputError(
            f"task {task.spec.name!r} asks models in the roles {', '.join(task.needs)}; not given: {', '.join(missing)}"
        )
    check_format(given[TUNED], task.any_template)
    items = fitted(task.items(), given[TUNED], task.truncate)
    scores = converse((task.attempt(item) for item in items), given, verifiers=task.verifiers)
    _check(items, scores, task)
    pairs = zip(items, _with_unsteady(items, scores), strict=True)
    rows = [row for item, score in pairs for row in item_rows(item, score)]
    if not rows:
        raise InputError(
            f"none of the {len(items)} items of {task.spec.name} could be scored; raise the context length"
        )
    return Assessment(EvalReport(task.spec, checkpoint_key, estimates(item_table(rows), rng)), tuple(rows))


def _check(items: Sequence[Item], scores: Sequence[Score], task: Task) -> None:
    """Raise for replies that never came, and for prompts that a model cut though that was not asked for."""
    lost = [(i, s.detail) for i, s in zip(items, scores, strict=True) if s.detail.get("failure") in UNANSWERED]
    if lost:
        first = lost[0][1]
        raise InputError(
            f"{len(lost)} of {len(items)} items of {task.spec.name} got no answer (first: {first['failure']} "
            f"{first['said']}); the answers that came are kept, so run it again"
        )
    cut = [item for item, score in zip(items, scores, strict=True) if score.detail.get("cut")]
    if cut and not task.truncate:
        raise InputError(
            f"the prompts of {len(cut)} of {len(items)} items of {task.spec.name} do not fit the model's context "
            f"(first: items {', '.join(item.item_id for item in cut[:SHOWN])}); raise the context length, shorten "
            "them, or ask for `truncate: left`"
        )


def _with_unsteady(items: Sequence[Item], scores: Sequence[Score]) -> Sequence[Score]:
    """The scores; the first of an item that was asked several times says whether its main value was always the same."""
    repeats: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        repeats[item.item_id].append(number)
    found = list(scores)
    for numbers in repeats.values():
        if len(numbers) > 1:
            main = {next(iter(scores[n].values.values()), None) for n in numbers}
            first = scores[numbers[0]]
            found[numbers[0]] = replace(first, values={**first.values, "unsteady": float(len(main) > 1)})
    return found


def estimates(items: pa.Table, rng: np.random.Generator) -> dict[str, Estimate]:
    """Every metric that the per-item values of one run give, each with its interval over items.

    An item that was asked several times counts once, with its mean; items of one cluster are drawn together.
    """
    columns = set(items["metric"].to_pylist())
    return {name: average({0: items}, name, rng) for name in (*metrics_of(columns), *set_metrics_of(columns))}

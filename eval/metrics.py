"""What each metric means: which way is better, and what an item weighs in its mean.

A metric of which higher is better lies between 0 and 1, so that tasks can be averaged; the first of them, in the order
of `METRICS`, that a task has is the one that counts in the overall score.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from eval.calibration import expected_calibration_error, refusal_precision
from warehouse.errors import InputError

Weighing = Literal["item", "token", "part"]
Statistic = Callable[..., float]
OVER_ALL = "overall"  # the task that a mean over tasks is called
PASS = re.compile(r"pass@[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Metric:
    """`column` is the per-item value it averages; `weighing` whether items count alike, by gold tokens, or by parts.

    A `share` averages values that are 0 or 1. With `statistic` it is no mean but statistic(right, *columns) of all
    items: arrays (n,) of whether each is right, of `column` and of the columns named in `beside`.
    """

    column: str
    higher_is_better: bool
    weighing: Weighing
    meaning: str
    share: bool = False
    statistic: Statistic | None = None
    beside: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The per-item values it needs."""
        return (self.column, *self.beside)


METRICS: dict[str, Metric] = {
    "exact_match": Metric("exact_match", True, "item", "share of items whose answer equals the gold one", True),
    "numeric_match": Metric("numeric_match", True, "item", "share of items whose number equals the gold one", True),
    "accuracy": Metric("accuracy", True, "item", "share of items whose likeliest choice is the gold one", True),
    "accuracy_norm": Metric(
        "accuracy_norm", True, "item", "the same with each choice's log-likelihood divided by its length", True
    ),
    "lowest_perplexity": Metric(
        "lowest_perplexity", True, "item", "share of items whose gold reply has the lowest perplexity", True
    ),
    "rouge_l": Metric("rouge_l", True, "item", "F-measure of ROUGE-L with the closest reference"),
    "f1": Metric(
        "f1", True, "item", "F-measure of the words shared with the gold answer, as SQuAD and TyDi QA count it"
    ),
    "prompt_strict": Metric("prompt_strict", True, "item", "share of prompts whose instructions are all met", True),
    "instruction_strict": Metric("instruction_strict", True, "part", "share of instructions that are met"),
    "prompt_loose": Metric("prompt_loose", True, "item", "the same of prompts, after small repairs to the reply", True),
    "instruction_loose": Metric("instruction_loose", True, "part", "the same of instructions"),
    "win_rate": Metric("win_rate", True, "item", "wins against the reference reply, ties counted half"),
    "refusal_right": Metric("refusal_right", True, "item", "share of items refused, or not, as they should be", True),
    "p_correct": Metric("p_correct", True, "item", "probability of the gold choice among the choices"),
    "brier": Metric("brier", False, "item", "squared error of the choices' probabilities, 0 to 2"),
    "refused": Metric("refused", False, "item", "share of items whose reply refuses", True),
    "nll": Metric("nll", False, "token", "nats per token of the gold reply, every token counted alike"),
    "nll_item_mean": Metric("nll", False, "item", "nats per token of the gold reply, every item counted alike"),
    "position_bias": Metric(
        "position_bias", False, "item", "share of items whose verdict changes when the replies swap places", True
    ),
    "undecided": Metric("undecided", False, "item", "share of items on which the judge gave no verdict", True),
    "unsteady": Metric("unsteady", False, "item", "share of items whose main value differs between repeats", True),
    "ece": Metric(
        "confidence",
        False,
        "item",
        "expected calibration error: how far confidence is from the share that is right, in 10 bins",
        statistic=expected_calibration_error,
    ),
    "average_precision": Metric(
        "confidence",
        True,
        "item",
        "whether right answers come first when sorted by how sure the model is of them",
        statistic=refusal_precision,
        beside=("p_sure",),
    ),
}
OVERALL: dict[str, Metric] = {
    "score": Metric("", True, "item", "mean over tasks of each task's first metric between 0 and 1"),
    "nll": METRICS["nll"],
}
"""The means over tasks, for tasks that have them: of accuracies one, of losses per token the other."""


def metric(name: str) -> Metric:
    """The metric of this name. Raises `InputError` for an unknown one."""
    if PASS.fullmatch(name):
        return _pass(name)
    if found := METRICS.get(name) or OVERALL.get(name):
        return found
    raise InputError(f"unknown metric {name!r}; known metrics: {', '.join(METRICS)}, pass@k, score")


def metrics_of(columns: Iterable[str]) -> dict[str, Metric]:
    """Every metric that is a mean of per-item values of these names."""
    given = set(columns)
    passes = {name: _pass(name) for name in sorted(given, key=_natural) if PASS.fullmatch(name)}
    return {name: m for name, m in METRICS.items() if m.column in given and m.statistic is None} | passes


def set_metrics_of(columns: Iterable[str]) -> dict[str, Metric]:
    """Every metric that is a statistic of the whole set of items, where these values are there and one says right."""
    given = set(columns)
    if right_of(given) is None:
        return {}
    return {name: m for name, m in METRICS.items() if m.statistic is not None and set(m.reads) <= given}


def right_of(columns: Iterable[str]) -> str | None:
    """The per-item value that says right or wrong: that of the first metric that is a share of right items."""
    given = set(columns)
    return next((m.column for m in METRICS.values() if m.share and m.higher_is_better and m.column in given), None)


def main_metric(columns: Iterable[str], overall: str) -> str | None:
    """What a task with these per-item values gives to the mean over tasks called `overall`; None where it has none."""
    found = metrics_of(columns)
    if overall != "score":
        return overall if overall in found else None
    return next((name for name, m in found.items() if m.higher_is_better), None)


def leading(names: Iterable[str]) -> tuple[str, ...]:
    """Of the metrics of one task, those to look at first: what counts in the overall score, and the loss per token.

    Where none counts, the first in the order of `METRICS`. Raises `InputError` for unknown names.
    """
    given = {name: metric(name) for name in sorted(names, key=_order)}
    counting = (name for name, m in given.items() if m.higher_is_better and m.statistic is None)
    first = next(counting, next(iter(given), None))
    return tuple(dict.fromkeys(name for name in (first, "nll") if name in given))


def family(name: str, columns: Iterable[str]) -> str:
    """What Holm's correction counts a task's metric with: what goes into the overall score together, all else by name.

    `columns` are the task's per-item values.
    """
    return "score" if name == main_metric(columns, "score") else name


def _pass(name: str) -> Metric:
    return Metric(name, True, "item", f"chance that one of {name.removeprefix('pass@')} tries is right")


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _order(name: str) -> tuple[int, int, str]:
    known = list(METRICS)
    return (known.index(name) if name in METRICS else len(known), *_natural(name))

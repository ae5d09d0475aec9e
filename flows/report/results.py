"""The outcome of a race: every method's value with its interval, and in words what was shown and what was not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.metrics import OVER_ALL, Metric, leading
from eval.metrics import metric as known_metric
from flows.report.book import Book
from flows.report.text import label, number, p_value, plural, signed
from warehouse.records import Estimate

BASE = "base model"
BASELINES = ("balanced_random", "random", BASE)
SHOWN = 60  # results of one task and metric


@dataclass(frozen=True, slots=True)
class Result:
    """One method at one budget on one task and metric. `difference` is paired with the control; None for itself.

    `seconds` of selecting and training and `flops` of measuring and training are of all seeds together. `p` is that of
    the difference, corrected by Holm's method. `clean` and `clean_difference` are value and difference without the test
    items that a candidate row gives away, None where none is left or nobody looked; `given_away` counts the items that
    the chosen rows give away, mean over seeds.
    """

    method: str
    control: str
    budget: int
    seeds: tuple[int, ...]
    value: Estimate
    difference: Estimate | None
    seed_differences: tuple[float, ...]
    verdict: str
    seconds: float | None
    flops: float | None
    evaluations: tuple[str, ...]
    arm: str
    p: float | None
    clean: Estimate | None
    clean_difference: Estimate | None
    given_away: float | None

    @property
    def is_control(self) -> bool:
        return self.method == self.control

    @property
    def is_baseline(self) -> bool:
        """The control, chance, or no training at all: nothing that could be said to win."""
        return self.is_control or self.method in BASELINES


@dataclass(frozen=True, slots=True)
class Board:
    """All results of one task and metric, best first. `left_out` counts those beyond `SHOWN`.

    place       its number on the page
    leads       whether it is one of the metrics of its task that are looked at first
    chance      what guessing would give; None where replies are free
    given_away  test items that a candidate row gives away; None where nobody looked
    """

    place: int
    task: str
    metric: str
    leads: bool
    meant: Metric
    results: tuple[Result, ...]
    left_out: int
    chance: float | None
    given_away: int | None

    @property
    def higher_is_better(self) -> bool:
        return self.meant.higher_is_better

    @property
    def better(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def name(self) -> str:
        return self.metric if self.task == self.metric else f"{self.metric} ({self.task})"

    def best(self, budget: int) -> Result | None:
        """The method with the best value at `budget`, baselines left aside."""
        return next((r for r in self.results if r.budget == budget and not r.is_baseline), None)

    def control(self, budget: int) -> Result | None:
        return next((r for r in self.results if r.budget == budget and r.is_control), None)

    @property
    def verdicts(self) -> list["Verdict"]:
        """What the race showed, one finding per budget."""
        return [found for budget in self.budgets if (found := _verdict(self, budget))]

    @property
    def budgets(self) -> list[int]:
        return sorted({r.budget for r in self.results if r.method != BASE})


def arm(method: str, budget: int, several_budgets: bool) -> str:
    """A method at a budget as charts and tables call it; the budget is said where the run has several."""
    return f"{method} · {budget:,}" if several_budgets and budget else method


@dataclass(frozen=True, slots=True)
class Group:
    """The boards of one task: what is looked at first, and the others."""

    leading: tuple[Board, ...]
    others: tuple[Board, ...]

    @property
    def task(self) -> str:
        return self.leading[0].task

    @property
    def title(self) -> str:
        return "Mean over tasks" if self.task == OVER_ALL else self.task

    @property
    def chance(self) -> float | None:
        return self.leading[0].chance

    @property
    def given_away(self) -> int | None:
        return self.leading[0].given_away


def grouped(found: Sequence[Board]) -> tuple[Group, ...]:
    """The boards by task, each task's in their order."""
    tasks = {board.task: [each for each in found if each.task == board.task] for board in found}
    return tuple(
        Group(tuple(b for b in each if b.leads), tuple(b for b in each if not b.leads)) for each in tasks.values()
    )


def boards(book: Book) -> tuple[Board, ...]:
    """One board per task and metric that the run compared, by task: what leads first, the others by name."""
    rows = book.rows(
        "SELECT * FROM results WHERE comparison = ANY(?) ORDER BY task <> 'overall', task, metric, budget, method",
        book.keys("compare"),
    )
    found: list[Board] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        names = dict.fromkeys(row["metric"] for row in of_task)
        first = leading(names)
        for metric in dict.fromkeys([*first, *names]):
            of_metric = [row for row in of_task if row["metric"] == metric]
            found.append(_board(len(found) + 1, metric in first, of_metric))
    return tuple(found)


def _board(place: int, leads: bool, rows: Sequence[dict[str, Any]]) -> Board:
    """The board of one task's metric, of which `rows` are all results."""
    metric = rows[0]["metric"]
    meant = known_metric(metric)
    higher = meant.higher_is_better
    several = len({row["budget"] for row in rows if row["budget"]}) > 1
    results = [_result(row, several) for row in rows]
    ranked = sorted(results, key=lambda r: (-r.value.value if higher else r.value.value, r.method, r.budget))
    return Board(
        place=place,
        task=label(rows[0]["task"]),
        metric=metric,
        leads=leads,
        meant=meant,
        results=tuple(ranked[:SHOWN]),
        left_out=max(0, len(ranked) - SHOWN),
        chance=rows[0]["chance"],
        given_away=rows[0]["contaminated"],
    )


def _result(row: dict[str, Any], several_budgets: bool) -> Result:
    value = Estimate(row["value"], row["low"], row["high"], row["n"])
    difference = None
    if row["difference"] is not None and row["method"] != row["control"]:
        difference = Estimate(row["difference"], row["difference_low"], row["difference_high"], row["n"])
    return Result(
        method=label(row["method"]),
        control=label(row["control"]),
        budget=row["budget"],
        seeds=tuple(json.loads(row["seeds"] or "[]")),
        value=value,
        difference=difference,
        seed_differences=tuple(json.loads(row["seed_differences"] or "[]")) if difference else (),
        verdict=row["verdict"] or "" if difference else "",
        seconds=row["seconds"],
        flops=row["flops"],
        evaluations=tuple(json.loads(row["evaluations"] or "[]")),
        arm=arm(label(row["method"]), row["budget"], several_budgets),
        p=row["p_holm"],
        clean=_clean(row, "value", "low", "high"),
        clean_difference=_clean(row, "difference", "difference_low", "difference_high") if difference else None,
        given_away=row["contaminated_chosen"],
    )


def _clean(row: dict[str, Any], value: str, low: str, high: str) -> Estimate | None:
    found = row[f"{value}_clean"]
    return None if found is None else Estimate(found, row[f"{low}_clean"], row[f"{high}_clean"], row["n_clean"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding in words; `kind` is "better", "worse" or "open"."""

    kind: str
    text: str


def _verdict(board: Board, budget: int) -> Verdict | None:
    best, control = board.best(budget), board.control(budget)
    if best is None:
        return None
    chosen = f" with {plural(budget, 'row')}" if budget else ""
    what = f"{board.name}{chosen} ({board.better})"
    if control is None or best.difference is None:
        alone = f"There is no arm of {spoken(best.control)} to compare it with, so nothing is shown."
        return Verdict("open", f"{what}: {best.method} comes first with {_estimate(best.value)}. {alone}")
    winners = [r for r in board.results if r.budget == budget and not r.is_baseline and r.verdict == "better"]
    if winners:
        return Verdict("better", f"{what}: {_won(winners[0], control)}{_also(winners[1:])}{_seeds(winners[0])}")
    return Verdict(*_lost(what, best, control))


def spoken(method: str) -> str:
    """A method's name in a sentence."""
    return method.replace("_", " ") if method in BASELINES else method


def _won(best: Result, control: Result) -> str:
    assert best.difference is not None  # only such a result has the verdict "better"
    return (
        f"{best.method} beats {spoken(best.control)}, {_estimate(best.value)} against {_estimate(control.value)}; "
        f"the paired difference is {_difference(best.difference)}."
    )


def _also(others: Sequence[Result]) -> str:
    return f" Also better than {spoken(others[0].control)}: {', '.join(r.method for r in others)}." if others else ""


def _lost(what: str, best: Result, control: Result) -> tuple[str, str]:
    assert best.difference is not None  # the caller checked
    kind = "worse" if best.verdict == "worse" else "open"
    if best.value.value == control.value.value and best.difference.value == 0:
        return kind, f"{what}: no method beats {spoken(best.control)}, {_estimate(control.value)}.{_seeds(best)}"
    return kind, (
        f"{what}: no method beats {spoken(best.control)}. The best of them, {best.method}, has {_estimate(best.value)} "
        f"against {_estimate(control.value)}; the paired difference is {_difference(best.difference)}: "
        f"{best.verdict}.{_seeds(best)}"
    )


def _seeds(result: Result) -> str:
    n = len(result.seeds)
    items = plural(result.value.n, "test item")
    corrected = "" if result.p is None else f" Over the items, corrected for all comparisons, p is {p_value(result.p)}"
    if n == 1:
        unknown = f" One seed, {items}: how much another seed would change this is not known."
        return f"{unknown}{corrected and corrected + '.'}"
    return f" {n} seeds, {items}.{corrected and corrected + '; a verdict needs the seeds to agree too.'}"


def _estimate(value: Estimate) -> str:
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def _difference(value: Estimate) -> str:
    return f"{signed(value.value)} [{signed(value.low)}, {signed(value.high)}]"

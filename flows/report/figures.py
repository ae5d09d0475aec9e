"""The charts of the sections: which facts go where, in which colour, with which words for those who cannot see them."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report import charts
from flows.report.charts import Bar, Form, Frame, Interval, Line, Point, Scale, Stack
from flows.report.chosen import Scores
from flows.report.facts import Facts
from flows.report.loss_curves import Training
from flows.report.mixture import Column, Mixture
from flows.report.results import BASE, BASELINES, Board, Result
from flows.report.stages import Step
from flows.report.text import count, number, percent, plural, seconds, signed

HUES = 8
OTHER = "other"
_GREYS = dict(zip(BASELINES, ("hc", "hr", "hb"), strict=True))


def hues_of(facts: Facts) -> dict[str, str]:
    """A class of the style sheet per method: greys for chance and the base model, colours for the others."""
    raced = [result.method for board in facts.boards for result in board.results]
    methods = [m for m in dict.fromkeys([*raced, *facts.picks.methods]) if m not in _GREYS]
    return _GREYS | {method: f"h{1 + place % HUES}" for place, method in enumerate(methods)}


def values(board: Board, name: str, hues: dict[str, str]) -> Markup:
    """Every method's value with its interval."""
    rows = [_interval(r, hues, r.value.low, r.value.value, r.value.high, number) for r in board.results]
    about = "; ".join(f"{row.name} {row.text}" for row in rows)
    return charts.whiskers(Frame(name, f"{board.name}: value and 95 % interval by method", about), rows)


def differences(board: Board, name: str, hues: dict[str, str]) -> Markup | None:
    """Every method's paired difference to the control; None where there is none."""
    rows = [
        _interval(r, hues, r.difference.low, r.difference.value, r.difference.high, signed)
        for r in board.results
        if r.difference is not None
    ]
    about = "; ".join(f"{row.name} {row.text}" for row in rows)
    title = f"{board.name}: paired difference to the control and 95 % interval"
    return charts.whiskers(Frame(name, title, about), rows, zero=True) if rows else None


def _interval(result: Result, hues: dict[str, str], low: float, value: float, high: float, form: Form) -> Interval:
    text = f"{form(value)} [{form(low)}, {form(high)}]"
    return Interval(result.arm, text, hues[result.method], low, value, high)


@dataclass(frozen=True, slots=True)
class Cost:
    """Quality against cost: the chart, and the arms that nothing beats at their cost or less."""

    chart: Markup
    front: tuple[str, ...]


def costs(boards: Sequence[Board], hues: dict[str, str]) -> list[tuple[Board, Cost]]:
    """Every board that can be set against its cost, and how."""
    found = ((board, _cost(board, f"cost-{board.place}", hues)) for board in boards)
    return [(board, cost) for board, cost in found if cost is not None]


def by_cost(board: Board) -> list[Result]:
    """The results, cheapest first."""
    return sorted(board.results, key=lambda r: (r.flops or 0.0, r.seconds or 0.0, r.method, r.budget))


def _cost(board: Board, name: str, hues: dict[str, str]) -> Cost | None:
    """None where no arm has a cost, or it stands alone. FLOPs where all have them, else seconds.

    The base model costs nothing: that is measured too, and the others are looked at beside it.
    """
    by_flops = all((r.flops or 0) > 0 for r in board.results if r.method != BASE)
    costs = [(r, (r.flops if by_flops else r.seconds) or 0.0) for r in board.results]
    points = [
        Point(r.arm, hues[r.method], c, r.value.low, r.value.value, r.value.high)
        for r, c in costs
        if c > 0 or r.method == BASE
    ]
    paid = [p.x for p in points if p.x > 0]
    if not paid or len(points) < 2:
        return None
    unit = "FLOPs" if by_flops else "seconds"
    log = charts.spans_a_decade(paid)
    front = pareto(points, board.higher_is_better)
    about = "; ".join(f"{p.name}: {unit} {p.x:.3g}, {board.metric} {p.value:.3f}" for p in points)
    frame = Frame(name, f"{board.name} against {unit}", about)
    x_name = f"{unit}, all seeds{', logarithmic' if log else ''} →"
    chart = charts.scatter(frame, points, front, log=log, x_name=x_name, y_name=f"{board.metric}, {board.better}")
    return Cost(chart, tuple(p.name for p in front))


def pareto(points: Sequence[Point], higher_is_better: bool) -> list[Point]:
    """Points that none beats at the same cost or less, cheapest first."""
    sign = 1 if higher_is_better else -1
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -sign * p.value)):
        if not front or sign * point.value > sign * front[-1].value:
            front.append(point)
    return front


def scores(facts: Scores, name: str, hues: dict[str, str]) -> Markup:
    """One histogram of pool and chosen scores."""
    pick = facts.pick
    pool = f"{count(sum(facts.pool))} pool rows and " if facts.pool is not None else ""
    about = f"{pool}{count(sum(facts.chosen))} chosen rows; {pick.direction}; the cut-off is at {number(facts.cut)}"
    frame = Frame(name, f"Scores of {pick.arm}, seed {pick.seed}", about)
    return charts.histogram(frame, facts.edges.tolist(), facts.chosen, facts.pool, facts.cut, hues[pick.method])


def mixture(facts: Mixture, name: str) -> Markup:
    """The pool and every method as bars of shares; the same kind has the same colour in all."""
    kinds = coloured(facts)
    rows = [Stack(column.name, _parts(column, kinds)) for column in facts.columns]
    about = "; ".join(f"{row.name}: " + ", ".join(f"{k} {percent(s)}" for k, _, s in row.parts) for row in rows)
    return charts.stacks(Frame(name, f"Shares by {facts.what}, in the pool and as chosen", about), rows)


def coloured(facts: Mixture) -> dict[str, str]:
    """The kinds that have a colour of their own, in the order of the pool."""
    leading = set(facts.leading[:HUES])
    return {kind: f"h{1 + place}" for place, kind in enumerate(k for k in facts.kinds if k in leading)}


def _parts(column: Column, kinds: dict[str, str]) -> list[tuple[str, str, float]]:
    parts = [(kind, hue, column.share(kind)) for kind, hue in kinds.items() if column.counts.get(kind)]
    rest = sum(n for kind, n in column.counts.items() if kind not in kinds) / max(1, column.total)
    return [*parts, (OTHER, "ho", rest)] if rest else parts


def timings(steps: Sequence[Step], name: str) -> Markup:
    """Seconds per step; steps that computed nothing are faint."""
    rows = [Bar(_times(step), seconds(step.seconds), "h1", step.seconds, faint=not step.computed) for step in steps]
    about = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return charts.bars(Frame(name, "Seconds per step", about), rows)


def _times(step: Step) -> str:
    return step.title if step.stages == 1 else f"{step.title} × {step.stages}"


def losses(trainings: Sequence[Training], hues: dict[str, str]) -> list[Markup]:
    """Loss curves, one chart per method and budget, all on the same axes."""
    points = [point for training in trainings for curve in training.curves for point in curve.points]
    x = charts.span([float(s) for s, _ in points], start=0, stop=100) if points else Scale(0, 1)
    y = charts.span([v for _, v in points], start=100, stop=0) if points else Scale(0, 1)
    return [_curves(t, f"losses-{place}", hues, x, y) for place, t in enumerate(trainings, 1)]


def _curves(training: Training, name: str, hues: dict[str, str], x: Scale, y: Scale) -> Markup:
    lines = [Line(hues[training.method], curve.points) for curve in training.curves]
    ends = ", ".join(f"seed {c.seed} {number(c.points[0][1])} to {number(c.points[-1][1])}" for c in training.curves)
    about = f"{plural(len(lines), 'curve')}: {ends}" if lines else "no losses were logged"
    return charts.curves(Frame(name, f"Training loss of {training.arm}", about), lines, x, y)

"""Small charts side by side: how abilities grow with the budget, and how often a confident answer is right."""

from dataclasses import dataclass

from markupsafe import Markup

from flows.report.calibrated import Reliability
from flows.report.charts import Frame, Scale, Tick, marks, span, tick_text
from flows.report.growing import Ability, Curve, Growing
from flows.report.pages import render
from flows.report.text import count, number
from warehouse.records import Estimate

HEIGHT = 170
FOOT = 20  # pixels below the axis
SQUARE, COUNTS = 200, 44  # pixels: of a reliability diagram, and of its bars below


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with its interval: `x` in per cent, the others in pixels from the top; `r` is the radius."""

    x: float
    low: float
    value: float
    high: float
    r: float = 3.5


@dataclass(frozen=True, slots=True)
class Path:
    hue: str
    points: str
    dots: tuple[Dot, ...]


def growth(section: Growing, name: str, hues: dict[str, str]) -> list[Markup]:
    """One chart per ability, all on the same axes: rows on a logarithmic one, the base model one step to the left."""
    curves = [curve for ability in section.abilities for curve in ability.curves]
    at = _places({budget for curve in curves for budget, _ in curve.points})
    ends = [v for curve in curves for _, each in curve.points for v in (each.low, each.high)]
    levels = [ability.chance for ability in section.abilities if ability.chance is not None]
    x = Scale(min(at.values()), max(at.values()), 9, 97, log=True)
    y = span(ends + levels, start=HEIGHT - FOOT - 4, stop=12)
    ticks = [_tick(x.at(place), "base" if budget == 0 else tick_text(budget)) for budget, place in at.items()]
    return [
        render(
            "charts/growth.svg.j2",
            frame=Frame(f"{name}-{number}", f"{ability.name} by rows", _spelled(ability)),
            lines=[_path(curve, hues[curve.method], at, x, y) for curve in ability.curves],
            x_ticks=ticks,
            y_ticks=[Tick(y.at(v), tick_text(v)) for v in y.ticks(3)],
            level=None if ability.chance is None else y.at(ability.chance),
            height=HEIGHT,
        )
        for number, ability in enumerate(section.abilities, 1)
    ]


def _places(budgets: set[int]) -> dict[int, float]:
    """Where budgets stand on a logarithmic axis; 0 as far below the smallest as that is below the next."""
    raced = sorted(budget for budget in budgets if budget)
    step = raced[1] / raced[0] if len(raced) > 1 else 2.0
    return ({0: raced[0] / step} if 0 in budgets else {}) | {budget: float(budget) for budget in raced}


def _tick(at: float, text: str) -> Tick:
    return Tick(at, text, "end" if at > 90 else "middle")


def _path(curve: Curve, hue: str, at: dict[int, float], x: Scale, y: Scale) -> Path:
    dots = tuple(Dot(x.at(at[b]), y.at(each.low), y.at(each.value), y.at(each.high)) for b, each in curve.points)
    return Path(hue, " ".join(f"{dot.x},{dot.value}" for dot in dots), dots)


def _spelled(ability: Ability) -> str:
    lines = (
        f"{curve.method} " + ", ".join(f"{count(b) if b else 'base model'}: {_within(e)}" for b, e in curve.points)
        for curve in ability.curves
    )
    chance = "" if ability.chance is None else f"guessing gives {number(ability.chance)}; "
    return f"{count(ability.n)} items; {chance}{'; '.join(lines)}"


def _within(e: Estimate) -> str:
    return f"{number(e.value)} [{number(e.low)}, {number(e.high)}]"


def reliability(diagram: Reliability, name: str, hues: dict[str, str]) -> Markup:
    """Share right against confidence, bin by bin, with the line of perfect calibration; below it how many items."""
    x, y = Scale(0, 1, 9, 97), Scale(0, 1, SQUARE - FOOT - 4, 8)
    most = max(each.n for each in diagram.bins)
    filled = [
        (b, b.confidence, b.accuracy) for b in diagram.bins if b.confidence is not None and b.accuracy is not None
    ]
    dots = [
        Dot(x.at(confidence), y.at(e.low), y.at(e.value), y.at(e.high), round(2.5 + 3.5 * b.n / most, 1))
        for b, confidence, e in filled
    ]
    about = "; ".join(f"{b.low:g} to {b.high:g}: {count(b.n)} items, {number(e.value)} right" for b, _, e in filled)
    return render(
        "charts/reliability.svg.j2",
        frame=Frame(name, f"Share right by confidence, {diagram.result.arm}", about),
        dots=dots,
        hue=hues[diagram.result.method],
        corners=(x.at(0), y.at(0), x.at(1), y.at(1)),
        bars=[(x.at(b.low), x.at((b.low + b.high) / 2), x.at(b.high), round(COUNTS * b.n / most, 1), b)
              for b in diagram.bins],
        x_ticks=marks(x, 4),
        y_ticks=[Tick(y.at(v), tick_text(v)) for v in y.ticks(3)],
        height=SQUARE,
        counts=COUNTS,
    )  # fmt: skip

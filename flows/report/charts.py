"""Charts as inline SVG. Functions of plain numbers; text goes through the templates' escaping, shapes alone are ours.

A chart is as wide as its place: horizontal positions are percentages, heights are pixels, so that text keeps its size
on a telephone. Curves lie in a nested `<svg>` of 100 units that is stretched, with strokes that are not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from flows.report.pages import render
from flows.report.text import short

Form = Callable[[float], str]  # how a number is written

NAME = 22  # characters of a name that stands beside a value
LEFT, RIGHT = 1.5, 98.5  # per cent: room for half a dot at both ends


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to positions between `start` and `stop` (per cent or pixels; `start` may be the larger)."""

    low: float
    high: float
    start: float = LEFT
    stop: float = RIGHT
    log: bool = False

    def at(self, value: float) -> float:
        a, b, v = (math.log10(x) if self.log else x for x in (self.low, self.high, value))
        return round(self.start + (v - a) / (b - a) * (self.stop - self.start), 2)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the scale."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high, about)


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position; `anchor` keeps the text inside the chart."""

    at: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a dot-and-whisker chart. `hue` is a class of the style sheet."""

    name: str
    text: str
    hue: str
    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    text: str
    hue: str
    value: float
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a scatter chart with the interval of its height."""

    name: str
    hue: str
    x: float
    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class Stack:
    """One bar of parts that fill it: (name, hue, share)."""

    name: str
    parts: Sequence[tuple[str, str, float]]


@dataclass(frozen=True, slots=True)
class Line:
    hue: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What every chart has: an id, a title and a description for those who cannot see it."""

    name: str
    title: str
    about: str


def span(values: Sequence[float], *, start: float = LEFT, stop: float = RIGHT, log: bool = False) -> Scale:
    """A scale over `values` with a little air; a single value gets room on both sides."""
    low, high = min(values), max(values)
    if log:
        return Scale(low / 1.25, high * 1.25, start, stop, log=True)
    air = 0.04 * (high - low) or max(abs(low), 1.0) * 0.05
    return Scale(low - air, high + air, start, stop)


def spans_a_decade(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis serves `values` better."""
    return min(values) > 0 and max(values) >= 10 * min(values)


def _ticks(low: float, high: float, about: int) -> list[float]:
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    whole = [10.0**d for d in decades if low <= 10.0**d <= high]
    if len(whole) > 2:
        return whole[:: -(-len(whole) // 6)]
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]


def tick_text(value: float) -> str:
    """Short, without an exponent where a prefix will do."""
    if abs(value) < 1e-12:
        return "0"
    if abs(value) >= 1000:
        place = min(int(math.log10(abs(value)) // 3), 8)
        return f"{value / 1000**place:g}{'kMGTPEZY'[place - 1]}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def marks(scale: Scale, about: int = 5) -> list[Tick]:
    """Ticks of a horizontal axis; text near an edge grows inwards."""
    places = [(scale.at(value), tick_text(value)) for value in scale.ticks(about)]
    return [Tick(at, text, "start" if at < 5 else "end" if at > 95 else "middle") for at, text in places]


def whiskers(frame: Frame, rows: Sequence[Interval], *, zero: bool = False) -> Markup:
    """A dot and its interval per row, on one axis; `zero` adds the line of no difference."""
    values = [x for row in rows for x in (row.low, row.value, row.high)] + ([0.0] if zero else [])
    scale = span(values)
    return render("charts/whiskers.svg.j2", frame=frame, rows=rows, scale=scale, ticks=marks(scale), zero=zero)


def bars(frame: Frame, rows: Sequence[Bar]) -> Markup:
    """One horizontal bar per row, from 0."""
    scale = Scale(0, max([row.value for row in rows] + [1e-9]), 0, 100)
    return render("charts/bars.svg.j2", frame=frame, rows=rows, scale=scale)


def stacks(frame: Frame, rows: Sequence[Stack]) -> Markup:
    """One bar per row, filled by its parts from left to right."""
    return render("charts/stacks.svg.j2", frame=frame, rows=rows)


@dataclass(frozen=True, slots=True)
class Label:
    x: float
    y: float
    text: str
    anchor: str


SCATTER_HEIGHT = 320
_NARROW = 330  # pixels that a chart has at least: labels that do not meet there meet nowhere


def scatter(
    frame: Frame, points: Sequence[Point], front: Sequence[Point], *, log: bool, x_name: str, y_name: str
) -> Markup:
    """Points with vertical intervals; `front`, from left to right, is joined by a stepped line.

    What lies at 0 stands at the left end of a logarithmic axis, on a tick of its own.
    """
    x = span([point.x for point in points if point.x > 0 or not log], start=11, stop=96, log=log)
    none: list[Tick] = []
    if log and any(point.x <= 0 for point in points):
        x = replace(x, low=x.low / 2)  # room that tells 0 from what is paid for
        none = [Tick(x.start, "0")]
    points, front = ([_on(x, point) for point in each] for each in (points, front))
    y = span([v for p in points for v in (p.low, p.high)], start=SCATTER_HEIGHT - 46, stop=26)
    steps = [f"{x.at(p.x)},{y.at(p.value)}" for p in _stepped(front)]
    return render(
        "charts/scatter.svg.j2",
        frame=frame,
        points=points,
        x=x,
        y=y,
        height=SCATTER_HEIGHT,
        x_ticks=[*none, *marks(x, 4)],
        y_ticks=[Tick(y.at(v), tick_text(v)) for v in y.ticks()],
        steps=" ".join(steps),
        labels=beside(points, x, y),
        x_name=x_name,
        y_name=y_name,
    )


def _on(x: Scale, point: Point) -> Point:
    return replace(point, x=x.low) if x.log and point.x <= 0 else point


def _stepped(front: Sequence[Point]) -> list[Point]:
    """The corners of the stepped line: what a budget of x buys does not change until the next point."""
    path: list[Point] = []
    for point in front:
        if path:
            last = path[-1]
            path.append(Point("", "", point.x, last.value, last.value, last.value))
        path.append(point)
    return path


def beside(points: Sequence[Point], x: Scale, y: Scale) -> list[Label]:
    """Names beside the points, moved down where two would meet."""
    placed: list[tuple[float, float, float]] = []
    labels = []
    for point in sorted(points, key=lambda p: y.at(p.value)):
        name = short(point.name, NAME)
        right = x.at(point.x) < 50
        width = 7.2 * len(name) + 12
        left = _NARROW * x.at(point.x) / 100 + (0 if right else -width)
        top = y.at(point.value) - 7
        for a, b, taken in sorted(placed, key=lambda box: box[2]):
            if left < b and a < left + width and abs(top - taken) < 14:
                top = taken + 14
        placed.append((left, left + width, top))
        labels.append(Label(x.at(point.x), top + 11, name, "start" if right else "end"))
    return labels


HISTOGRAM_HEIGHT = 72


def histogram(
    frame: Frame, edges: Sequence[float], chosen: Sequence[int], pool: Sequence[int] | None, cut: float, hue: str
) -> Markup:
    """The pool with the chosen part in it, the chosen part enlarged below, and the cut-off through both."""
    scale = Scale(edges[0], edges[-1])
    at = [scale.at(edge) for edge in edges]
    panels = [[(pool, "pool"), (chosen, hue)], [(chosen, hue)]] if pool is not None else [[(chosen, hue)]]
    return render(
        "charts/histogram.svg.j2",
        frame=frame,
        at=at,
        cut=scale.at(min(max(cut, edges[0]), edges[-1])),
        ticks=marks(scale, 4),
        panels=[(max([1, *layers[0][0]]), layers) for layers in panels],
        height=HISTOGRAM_HEIGHT,
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """A labelled line through a histogram, its words on `line`, from 0."""

    at: float
    text: str
    anchor: str
    line: int


def spread(
    frame: Frame,
    scale: Scale,
    edges: Sequence[float],
    counts: Sequence[int],
    marked: Sequence[tuple[float, str]],
    one: str,
) -> Markup:
    """A histogram: `counts` of `one` between `edges`, with a line and its words at each of `marked`."""
    places = [scale.at(min(max(value, scale.low), scale.high)) for value, _ in marked]
    words = [text for _, text in marked]
    return render(
        "charts/spread.svg.j2",
        frame=frame,
        at=[scale.at(edge) for edge in edges],
        counts=counts,
        top=max([1, *counts]),
        one=one,
        marks=[Mark(x, words[i], "end" if x > 50 else "start", i) for i, x in enumerate(places)],
        ticks=marks(scale),
        height=HISTOGRAM_HEIGHT,
    )


def curves(frame: Frame, lines: Sequence[Line], x: Scale, y: Scale) -> Markup:
    """Lines over one pair of axes, which several charts may share; `y` runs from 100 (bottom) to 0."""
    drawn = [(line.hue, " ".join(f"{x.at(a)},{y.at(b)}" for a, b in line.points)) for line in lines]
    return render("charts/curves.svg.j2", frame=frame, lines=drawn, x=x, y=y)

"""The charts of advice: shares, forecasts, and the pilot runs that they were read from."""

from collections.abc import Iterable

from markupsafe import Markup

from flows.report import charts
from flows.report.advice_given import GAIN, Given
from flows.report.charts import Frame, Interval, Scale, Tick, span, tick_text
from flows.report.pages import render
from flows.report.panels import HEIGHT, Dot, Path
from flows.report.text import count, number, percent, signed
from warehouse.records import Estimate

HUES = 8
OTHER, FORECAST = "other mixtures", "forecasts"
TALL = 2 * HEIGHT


def shares(given: Given, name: str) -> Markup:
    """The advised share of every source with its interval."""
    rows = [_interval(s.source, s.value, percent) for s in given.shares]
    return charts.whiskers(Frame(name, "Advised shares and 95 % intervals", _spelled(rows)), rows)


def forecasts(given: Given, name: str) -> Markup:
    """Levels and gains with their intervals; the line is 0."""
    rows = [_interval(n, e, signed if n.startswith(GAIN) else number) for n, e in given.forecasts.items()]
    return charts.whiskers(Frame(name, "Forecasts and 95 % intervals", _spelled(rows)), rows, zero=True)


def _interval(name: str, e: Estimate, form: charts.Form) -> Interval:
    text = f"{form(e.value)} [{form(e.low)}, {form(e.high)}]"
    return Interval(name, text, "h1", e.low, e.value, e.high)


def _spelled(rows: Iterable[Interval]) -> str:
    return "; ".join(f"{row.name} {row.text}" for row in rows)


def hues(given: Given) -> dict[str, str]:
    """The colours of the chart of pilot runs: a source alone has one of its own."""
    alone = {source: f"h{1 + place % HUES}" for place, source in enumerate(given.sources)}
    return alone | {OTHER: "ho"} | ({FORECAST: "hc"} if given.levels else {})


def pilots(given: Given, name: str) -> Markup | None:
    """The loss of every mixture by rows, mean over seeds, and the forecasts at the budget; None without two sizes."""
    means = _means(given)
    sizes = sorted({rows for points in means.values() for rows in points})
    if len(sizes) < 2:
        return None
    levels = given.levels if given.budget else {}
    ends = [v for points in means.values() for v in points.values()]
    ends += [v for e in levels.values() for v in (e.low, e.high)]
    places = sorted({*sizes, *([given.budget] if levels and given.budget else [])})
    x, y = Scale(places[0], places[-1], 7, 95, log=True), span(ends, start=TALL - 24, stop=14)
    colours = hues(given)
    ordered = sorted(means, key=lambda mixture: mixture in colours)  # sources alone are drawn over the others
    lines = [_line(means[mixture], colours.get(mixture, colours[OTHER]), x, y) for mixture in ordered]
    lines += [Path("hc", "", tuple(_dot(given.budget or 1, e, x, y) for e in levels.values()))]
    about = "; ".join(
        f"{m}: " + ", ".join(f"{count(n)} rows {number(v)}" for n, v in p.items()) for m, p in means.items()
    )
    said = "; ".join(f"forecast {n} {number(e.value)}" for n, e in levels.items())
    return render(
        "charts/growth.svg.j2",
        frame=Frame(name, "Loss of the pilot runs by rows", f"{about}; {said}" if said else about),
        lines=lines,
        x_ticks=[Tick(x.at(n), count(n)) for n in places],
        y_ticks=[Tick(y.at(v), tick_text(v)) for v in y.ticks()],
        level=None,
        height=TALL,
    )


def _means(given: Given) -> dict[str, dict[int, float]]:
    """Mixture to rows to the mean over the seeds that ended."""
    found: dict[str, dict[int, list[float]]] = {}
    for pilot in given.pilots:
        if pilot.value is not None:
            found.setdefault(pilot.mixture, {}).setdefault(pilot.rows, []).append(pilot.value.value)
    return {m: {n: sum(v) / len(v) for n, v in sizes.items()} for m, sizes in found.items()}


def _line(points: dict[int, float], hue: str, x: Scale, y: Scale) -> Path:
    dots = tuple(Dot(x.at(n), y.at(v), y.at(v), y.at(v)) for n, v in points.items())
    return Path(hue, " ".join(f"{dot.x},{dot.value}" for dot in dots), dots)


def _dot(rows: int, e: Estimate, x: Scale, y: Scale) -> Dot:
    return Dot(x.at(rows), y.at(e.low), y.at(e.value), y.at(e.high), 5)

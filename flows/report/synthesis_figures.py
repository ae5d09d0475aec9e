"""The charts of what models wrote."""

from collections.abc import Sequence

from markupsafe import Markup

from flows.report.charts import LEFT, RIGHT, Bar, Frame, Scale, Stack, bars, spread, stacks
from flows.report.made import Synthesis
from flows.report.synthesis_bill import Bill, Ended, Latency
from flows.report.synthesis_novelty import CLOSE, Novelty
from flows.report.synthesis_reasons import ANSWERED
from flows.report.text import count, percent, plural, seconds

KEPT, DROPPED, OTHER = "kept", "dropped on import or in cleaning", "refused for another reason"
REASON_HUES = ("h2", "h4", "h6", "h7", "h8")


def fates(syntheses: Sequence[Synthesis]) -> dict[str, str]:
    """What becomes of rows, each with its colour: the most frequent reasons have one of their own."""
    counts: dict[str, int] = {}
    for refusal in (refusal for each in syntheses for refusal in each.refusals):
        counts[refusal.words] = counts.get(refusal.words, 0) + refusal.rows
    frequent = sorted(counts, key=lambda words: (-counts[words], words))
    hues = {KEPT: "h3"}
    if any(each.kept < each.accepted for each in syntheses):
        hues[DROPPED] = "h5"
    hues |= dict(zip(frequent, REASON_HUES, strict=False))
    return hues | ({OTHER: "ho"} if len(frequent) > len(REASON_HUES) else {})


def funnels(syntheses: Sequence[Synthesis], hues: dict[str, str], name: str) -> Markup:
    """One bar per synthesis: all rows that were made, by what became of them."""
    rows = [Stack(f"{each.title}, {plural(each.made, 'row')}", _parts(each, hues)) for each in syntheses if each.made]
    about = "; ".join(f"{row.name}: " + ", ".join(f"{fate} {percent(s)}" for fate, _, s in row.parts) for row in rows)
    return stacks(Frame(name, "What became of the rows that were made", about), rows)


def _parts(one: Synthesis, hues: dict[str, str]) -> list[tuple[str, str, float]]:
    counts = {KEPT: one.kept, DROPPED: one.accepted - one.kept}
    for refusal in one.refusals:
        fate = refusal.words if refusal.words in hues else OTHER
        counts[fate] = counts.get(fate, 0) + refusal.rows
    return [(fate, hue, counts[fate] / one.made) for fate, hue in hues.items() if counts.get(fate)]


def ends(bill: Bill, name: str) -> Markup:
    """Tries by how they ended."""
    rows = [Bar(one.words, _ended(one, bill.all.tries), _hue(one), one.tries) for one in bill.ended]
    about = "; ".join(f"{row.name}: {row.text}" for row in rows)
    return bars(Frame(name, "How tries ended", about), rows)


def _ended(one: Ended, of: int) -> str:
    return f"{count(one.tries)} · {percent(one.tries / of)} · {seconds(one.p50)}"


def _hue(one: Ended) -> str:
    return "h3" if one.outcome in ANSWERED else "h2"


def latency(found: Latency, name: str) -> Markup:
    """Seconds per try, with the median and the 95th percentile."""
    scale = Scale(found.edges[0], found.edges[-1], LEFT, RIGHT, found.log)
    texts = [(found.p50, f"half within {seconds(found.p50)}"), (found.p95, f"95 % within {seconds(found.p95)}")]
    about = f"{plural(found.n, 'try', 'tries')}; {texts[0][1]}, {texts[1][1]}"
    return spread(Frame(name, "Seconds per try", about), scale, found.edges, found.counts, texts, "tries")


def novelty(found: Novelty, name: str) -> Markup:
    """The cosine of each row's prompt with the nearest seed's."""
    about = f"{plural(found.rows, 'row')}; {count(found.close)} of them above {CLOSE}, {count(found.same)} a seed's own"
    frame = Frame(name, "Similarity of each prompt to the nearest seed's", about)
    return spread(frame, Scale(0.0, 1.0), found.edges, found.counts, [(CLOSE, f"{CLOSE}: close to a seed")], "rows")

"""Text and numbers as a reader sees them: nothing hidden, nothing endless, every count grouped by thousands."""

import math
import re
import unicodedata
from dataclasses import dataclass

# Characters that a browser draws as nothing or that turn the order of what follows. Joiners (U+200C, U+200D) stay:
# emoji and several scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_ACCENT = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_PILED = re.compile(f"({_ACCENT}{{4}})({_ACCENT}+)")
LABEL = 80  # characters of a name (source, skill, method, reason) that came with the data


def visible(text: str) -> str:
    """`text` with control characters, invisible ones and overrides of the reading direction spelled out, as `⟨U+202E⟩`.

    Line feeds and tabs stay; a carriage return before a line feed is dropped. Of more than four accents on one letter,
    which would be drawn over the lines around it, the others are counted.
    """
    spelled = _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))
    return _PILED.sub(lambda found: f"{found[1]}⟨{len(found[2])} more accents⟩", spelled)


def label(text: object) -> str:
    """A name from the data on one line, at most `LABEL` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= LABEL else line[: LABEL - 1] + "…"


def short(name: str, most: int) -> str:
    """A name that fits beside its value on a telephone; what follows the last " · " (a budget) is kept."""
    _, mark, tail = name.rpartition(" · ")
    end = mark + tail if mark and len(tail) < 12 else ""
    return name if len(name) <= most else name[: most - 1 - len(end)] + "…" + end


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A long text in two parts: what is shown at once, and what a fold-out shows.

    `left_out` counts the characters beyond.
    """

    head: str
    rest: str = ""
    left_out: int = 0


def excerpt(text: str | None, head: int = 420, rest: int = 3000) -> Excerpt:
    """The beginning of `text`, cut at a space where one is near, and up to `rest` more characters."""
    text = text or ""
    if len(text) <= head + 40:  # a fold-out for a few words helps nobody
        return Excerpt(text)
    cut = _break(text, head)
    end = cut if rest == 0 else _break(text, cut + rest)
    return Excerpt(text[:cut], text[cut:end], len(text) - end)


def _break(text: str, at: int) -> int:
    """The end of the last whole word before `at`; `at` itself inside a very long word. Never inside a character."""
    if at >= len(text):
        return len(text)
    space = max(text.rfind(" ", at - 40, at), text.rfind("\n", at - 40, at))
    at = space + 1 if space > 0 else at
    while at < len(text) and (unicodedata.combining(text[at]) or text[at] in "\u200d\ufe0f"):
        at += 1
    return at


def number(value: float | None) -> str:
    """Three decimals as in the tables of the command line; four digits where a value is far from 1."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 1e-9:  # what is left of a difference that is none
        return "0.000"
    if 1e-3 <= abs(value) < 1000:
        return _minus(f"{value:.3f}")
    return _minus(f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}")


def p_value(value: float | None) -> str:
    """Three decimals; below that only that it is below."""
    return "–" if value is None else "below 0.001" if value < 0.001 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """`number` with its sign."""
    text = number(value)
    return text if value is None or value < 1e-9 or not math.isfinite(value) else f"+{text}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text


def count(n: int | None) -> str:
    return "–" if n is None else f"{n:,}"


def plural(n: int, one: str, many: str = "") -> str:
    """ "1 row", "2,000 rows"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def seconds(value: float | None) -> str:
    """ "0.21 s", "14 s", "3 min 20 s", "2 h 5 min"."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.2g} s" if value >= 0.1 or value == 0 else f"{value:.1g} s"
    minutes, rest = divmod(round(value), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


_UNITS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def flops(value: float | None) -> str:
    """Floating-point operations with a metric prefix: "13.2 T" is 1.32e13."""
    if value is None or value < 0 or not math.isfinite(value):
        return "–"
    place = 0 if value < 1 else min(int(math.log10(value) // 3), len(_UNITS) - 1)
    return f"{value / 1000**place:.3g} {_UNITS[place]}".strip()

"""Answers compared as exact numbers, in this process: for word problems whose answers are plain numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from models.protocol import Verdict
from models.verify.answer import final_answer
from models.verify.reference import reference_of
from models.verify.text import readable, stated
from warehouse.records import Example, digest

RELATIVE = Fraction(1, 10**9)
MAX_NUMBER = 400  # characters of an answer that are read for a number
SETTING = re.compile(r"\\[,!; ]|\\?[$£€]|~|\\(?:text|mathrm)\s*\{[^{}]*\}|\^?\{?\\circ\}?|\\(?:left|right)(?![a-z])")
GROUPS = re.compile(r"(?<=\d)\{,\}(?=\d)")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
ANOTHER = re.compile(r"(?:\s+|\s*(?:,|;|:|and\b|or\b)\s*)[-+]?\s*[\d.\\]*\d")
COMPUTED = re.compile(r"[+*/^\\\d{\[×÷]")
MINUS = str.maketrans({"−": "-", "–": "-"})
WHOLE = r"(?:\d++(?:\.\d++)?|\.\d++)"
VALUE = re.compile(
    r"(?P<sign>(?<![\w.)])[-+])?\s?(?:"
    r"(?:(?P<wholes>\d+)\s*)?\\[dt]?frac\s*(?:\{\s*(?P<top>-?\d+)\s*\}|(?P<t>\d))\s*(?:\{\s*(?P<bottom>\d+)\s*\}|(?P<b>\d))"
    r"|(?:(?P<whole>\d++)\s+)?(?P<over>\d++)\s*/\s*(?P<under>\d++)"
    rf"|(?P<number>{WHOLE})(?:[eE](?P<e>[-+]?\d{{1,3}})|\s*(?:\\times|\\cdot|[x×*·])\s*10\s*\^\s*\{{?(?P<ten>[-+]?\d{{1,3}})\}}?)?"
    r")(?P<percent>\s*(?:\\?%|per ?cent\b))?(?!\s*(?:!|hundred|thousand|[mb]illion|trillion|dozen))"
    r"(?!\s*(?:[-+*/×÷^]+|\\times|\\cdot)\s*[(\d\\{])"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    value: Fraction
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)

    def same(self, other: "Quantity", relative: Fraction = RELATIVE) -> bool:
        """Whether the two are equal to `relative` of their size. 50 % is both 50 and 1/2, whichever the other is."""
        if self.percent == other.percent:
            return close(self.value, other.value, relative)
        percent, bare = (self, other) if self.percent else (other, self)
        return any(close(value, bare.value, relative) for value in (percent.value, percent.value / 100))


@dataclass(frozen=True, slots=True)
class Numeric:
    """Right where the number in the reply's final answer equals that of the reference, to 1e-9 of its size.

    Fractions, mixed numbers, percentages, thousands separators, powers of ten and currency signs are read; a sum or
    product that is left to compute is not a number.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"wrong", "no_answer", "too_long", "no_reference"})

    @property
    def fingerprint(self) -> str:
        return digest("numeric 1")

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        return [readable(reply) or self._verdict(reply, item) for reply, item in asked]

    def _verdict(self, reply: str, item: Example) -> Verdict:
        wanted = [number for text in stated(reference_of(item), _answer) if (number := number_in(text))]
        if not wanted:
            return Verdict(False, reason="no_reference")
        given = number_in(_answer(reply))
        if given is None:
            return Verdict(False, reason="no_answer")
        right = any(given.same(number) for number in wanted)
        return Verdict(right, str(given), "" if right else "wrong")


def number_in(text: str) -> Quantity | None:
    """The first number of `text`, or of what follows its last equals sign.

    None where there is none, where another follows in a list or an interval, and where it is but a part of a formula.
    """
    plain = _set_plainly(text).rpartition("=")[2]
    found = VALUE.search(plain)
    if found is None or ANOTHER.match(plain, found.end()) or COMPUTED.search(plain[: found.start()]):
        return None
    return _quantity(found)


def numeral(text: str) -> Quantity | None:
    """The number that `text` is, without anything else but a unit in `\\text`; None where it is more than that."""
    found = VALUE.fullmatch(_set_plainly(text).strip())
    return _quantity(found) if found else None


def close(a: Fraction, b: Fraction, relative: Fraction) -> bool:
    return abs(a - b) <= relative * max(abs(a), abs(b))


def _set_plainly(text: str) -> str:
    grouped = GROUPS.sub(",", text[:MAX_NUMBER].translate(MINUS))
    return THOUSANDS.sub("", SETTING.sub(" ", grouped))


def _quantity(found: re.Match[str]) -> Quantity | None:
    value = _value(found.groupdict())
    return None if value is None else Quantity(-value if found["sign"] == "-" else value, bool(found["percent"]))


def _value(part: dict[str, str | None]) -> Fraction | None:
    if part["number"] is not None:
        return Fraction(part["number"]) * Fraction(10) ** int(part["e"] or part["ten"] or 0)
    top, bottom = part["over"] or part["top"] or part["t"], part["under"] or part["bottom"] or part["b"]
    wholes = int(part["wholes"] or part["whole"] or 0)
    assert top is not None  # the other ways to be a number
    assert bottom is not None
    return wholes + Fraction(int(top), int(bottom)) if int(bottom) else None


def _answer(reply: str) -> str:
    found = final_answer(reply)
    return found.text if found else ""

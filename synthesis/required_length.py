"""The length that an instruction asks for, in ten languages: `500 words`, `at least 3 pages`, `800到1000字`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from synthesis.length_wordings import EAST_ASIAN, UNITS, WORDINGS, Unit, Wording

LANGUAGES = (*WORDINGS, "zh", "ja")
THOUSANDS = re.compile(r"\d{1,3}(?:[,.\u00a0\u202f’]\d{3})+")
HAN_DIGITS = {
    "零": 0,
    "〇": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
HAN_POWERS = {"": 1, "十": 10, "百": 100, "千": 1000, "万": 10_000}
LEAST_CHARACTERS = 20  # fewer are persons of a story, or signs of a password
PER_PART = re.compile(
    r"\s*(?:/|per\b|each\b|every\b|a\s+(?:minute|day|week|line|second)\b|pro\b|par\b|por\b)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Required:
    """From `low` to `high` of a unit, both included; None where there is no limit on that side.

    Raises `ValueError` where there is none on either side.
    """

    unit: Unit
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("a required length has at least one limit")


def required_lengths(text: str, languages: Sequence[str] = LANGUAGES) -> list[Required]:
    """The different lengths that `text` asks for in one of `languages`, in their order.

    Counted per part (`100 words per slide`, `50 words each`) they say nothing about the whole, and are passed over; so
    are words that are spoken of (`the first 3 words`). Of wordings that overlap (`pages` is English and French) the
    longest counts.
    """
    found = sorted(_said(text, languages), key=lambda one: (one.start - one.stop, one.start))
    kept = list[_Said]()
    for one in found:
        if all(one.stop <= other.start or other.stop <= one.start for other in kept):
            kept.append(one)
    ordered = sorted(kept, key=lambda one: one.start)
    return list(dict.fromkeys(one.required for one in ordered if one.required is not None))


@dataclass(frozen=True, slots=True)
class _Said:
    """A wording found at text[start:stop], and what it asks for, if anything."""

    start: int
    stop: int
    required: Required | None


def _said(text: str, languages: Sequence[str]) -> Iterator[_Said]:
    for wording in (WORDINGS[language] for language in languages if language in WORDINGS):
        if not _compiled("|".join(wording.units.values())).search(text):  # most texts name no unit, and are done here
            continue
        for match in _compiled(wording.pattern()).finditer(text):
            yield _Said(*match.span(), _required(match, _values(wording)) if _is_asked(match, wording) else None)
    if {"zh", "ja"} & set(languages):
        for pattern in EAST_ASIAN.values():
            yield from (
                _Said(*found.span(), _required(found, _han_value)) for found in _compiled(pattern).finditer(text)
            )


def _values(wording: Wording) -> Callable[[str], float]:
    return lambda number: _value(number, wording.numbers)


def _is_asked(match: re.Match[str], wording: Wording) -> bool:
    before = _compiled(rf"\b{wording.not_after}\s+$")
    spoken_of = before.search(match.string, max(match.start() - 20, 0), match.start())
    return not spoken_of and not PER_PART.match(match.string, match.end())


def _required(match: re.Match[str], value: Callable[[str], float]) -> Required | None:
    said = match.groupdict()
    unit = next(unit for unit in UNITS if said.get(unit))
    high = value(match["number"])
    low = value(match["from"]) if match["from"] else high
    too_few = unit == "characters" and high < LEAST_CHARACTERS
    if high <= 0 or low > high or too_few:  # "0 words", a count-down, "a story with 3 characters"
        return None
    if said["least"] or said["or_more"] or said.get("plus"):
        return Required(unit, low, None)
    if said["most"] or said["or_less"]:
        return Required(unit, None, high)
    return Required(unit, low, high)


def _value(text: str, known: Mapping[str, int]) -> float:
    """1500 for `1,500`, `1.500` and `1.5k`; 1.5 for `1.5`; 5 for a number word."""
    folded = " ".join(text.lower().split())
    if folded in known:
        return known[folded]
    digits = folded.removesuffix("k").strip()
    if THOUSANDS.fullmatch(digits):
        return float("".join(sign for sign in digits if sign.isdigit()))
    return float(digits.replace(",", ".")) * (1000 if folded.endswith("k") else 1)


def _han_value(text: str) -> float:
    """1200 for `1200`, `1,200` and `一千二百`; 20000 for `2万` and `两万`."""
    plain = text.replace(",", "").replace("，", "").strip()
    if digits := re.fullmatch(r"([\d.]+)\s*([百千万]?)", plain):
        return float(digits[1]) * HAN_POWERS[digits[2]]
    total = section = digit = 0
    for sign in plain:
        if sign in HAN_DIGITS:
            digit = HAN_DIGITS[sign]
        elif sign == "万":
            total, section, digit = total + (section + digit or 1) * HAN_POWERS[sign], 0, 0
        else:
            section, digit = section + (digit or 1) * HAN_POWERS[sign], 0
    return float(total + section + digit)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)

"""Reasons in words: a method says why it took a row as `name=value` pairs, as in `target=17 task=gsm8k round=3`."""

import re
from collections.abc import Mapping

from flows.report.text import count, label

_PAIR = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|$)", re.DOTALL)


def parsed(reason: str) -> dict[str, str]:
    """The pairs of a reason; a value may hold spaces."""
    return {name: value.strip() for name, value in _PAIR.findall(reason)}


def target_row(reason: str) -> int | None:
    """The row of the target set that the reason names."""
    value = parsed(reason).get("target", "")
    return int(value) if value.isdecimal() and len(value) < 19 else None


def in_words(reason: str) -> str:
    """One sentence; a reason of unknown shape is repeated as it is."""
    pairs = parsed(reason)
    for named, sentence in _SENTENCES:
        if set(named) <= pairs.keys():
            rest = {name: value for name, value in pairs.items() if name not in named}
            return sentence.format(**{name: _value(pairs[name]) for name in named}) + _rest(rest)
    return _rest(pairs).strip() if pairs else label(reason) or "The method gives no reason."


_SENTENCES = (
    (
        ("target", "task", "round"),
        "In round {round}, target {target} of task {task} took this row: the nearest one left.",
    ),
    (("target", "round"), "In round {round}, target {target} took this row: the nearest one left."),
    (("target", "task"), "The target nearest to it is number {target}, of task {task}."),
    (("target",), "The target nearest to it is number {target}."),
    (("length", "unit"), "It is {length} {unit} long; this method takes the longest rows."),
    (("round", "source"), "In round {round} it was the turn of source {source}, which gave a row drawn at random."),
    (("draw",), "Draw {draw} of a random order; its content played no part."),
)


def _value(value: str) -> str:
    return count(int(value)) if value.isdecimal() and 4 < len(value) < 19 else label(value)


def _rest(pairs: Mapping[str, str]) -> str:
    told = ", ".join(f"{label(name)} is {_value(value)}" for name, value in pairs.items())
    return f" The method also notes: {told}." if told else ""

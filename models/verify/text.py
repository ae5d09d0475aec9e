"""Answers compared as text: the same words, or the same option."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from models.protocol import Verdict
from models.verify.answer import MAX_CHARS, final_answer, plain
from models.verify.reference import Reference, reference_of, right_label
from warehouse.records import Example, digest

SHOWN_CHARS = 200
TOLD = ("marked", "boxed", "stated")


@dataclass(frozen=True, slots=True)
class Exact:
    """Right where the whole reply, or what it marks as its answer, equals an answer or alias of the item.

    Case, compatibility forms, runs of white space and punctuation around the text do not count.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"wrong", "no_answer", "too_long", "no_reference"})

    @property
    def fingerprint(self) -> str:
        return digest("exact 1")

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        return [readable(reply) or self._verdict(reply, item) for reply, item in asked]

    def _verdict(self, reply: str, item: Example) -> Verdict:
        wanted = {plain(text) for text in stated(reference_of(item), told)}
        given = [plain(text) for text in (told(reply), reply)]
        if not wanted:
            return Verdict(False, reason="no_reference")
        right = not wanted.isdisjoint(given)
        return Verdict(right, given[0][:SHOWN_CHARS], "" if right else "wrong")


@dataclass(frozen=True, slots=True)
class Choice:
    """Right where the reply chooses the right option, by its label ("B", "(b)", "B) Paris") or by its whole text.

    What the reply marks as its answer is read, else its first line. Two options named are `ambiguous`.
    """

    reasons: ClassVar[frozenset[str]] = frozenset({"wrong", "no_answer", "ambiguous", "too_long", "no_reference"})

    @property
    def fingerprint(self) -> str:
        return digest("choice 1")

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        return [readable(reply) or self._verdict(reply, item) for reply, item in asked]

    def _verdict(self, reply: str, item: Example) -> Verdict:
        reference = reference_of(item)
        right = right_label(item, reference)
        if not right:
            return Verdict(False, reason="no_reference")
        chosen = chosen_labels(told(reply).strip().partition("\n")[0], reference.choices)
        if len(chosen) != 1:
            return Verdict(False, reason="ambiguous" if chosen else "no_answer", detail=", ".join(chosen))
        return Verdict(chosen[0] == right, chosen[0], "" if chosen[0] == right else "wrong")


def chosen_labels(answer: str, choices: Sequence[tuple[str, str]]) -> list[str]:
    """The labels of the options that `answer` names, in the order of `choices`.

    A text that is an option's counts before any label; a label counts at the start or after "option" or "choice", or
    anywhere in brackets.
    """
    folded = plain(answer)
    if whole := [label for label, text in choices if plain(text) == folded]:
        return whole
    return [label for label, text in choices if _named(label, text, answer.strip())]


def _named(label: str, text: str, answer: str) -> bool:
    mark = re.escape(label)
    alone = rf"(?:(?:the\s+)?(?:option|choice)\s+)?[(\[*]*{mark}[)\]*]*(?:\s*[.:,)]|\s*$)"
    if re.match(alone, answer, re.IGNORECASE) or re.search(rf"\({mark}\)", answer, re.IGNORECASE):
        return True
    if re.search(rf"\b(?:option|choice)\s+[(\[*]*{mark}\b", answer, re.IGNORECASE):
        return True
    return plain(answer) == plain(f"{label} {text}")


def readable(reply: str) -> Verdict | None:
    """The verdict on a reply that there is no use in reading."""
    if not reply.strip():
        return Verdict(False, reason="no_answer")
    if len(reply) > MAX_CHARS:
        return Verdict(False, reason="too_long", detail=f"{len(reply)} characters; at most {MAX_CHARS} are read")
    return None


def told(reply: str) -> str:
    """What `reply` marks as its answer, else all of it."""
    found = final_answer(reply)
    return found.text if found and found.how in TOLD else reply


def stated(reference: Reference, answer_in: Callable[[str], str]) -> tuple[str, ...]:
    """The right answers: those stated, or the one in the gold reply."""
    if reference.answers:
        return reference.answers
    found = answer_in(reference.gold_reply)
    return (found,) if found.strip() else ()

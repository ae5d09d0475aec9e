"""Answers compared as mathematics: by math-verify, in processes that can be killed."""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from models.protocol import Verdict
from models.verify.answer import final_answer, plain
from models.verify.numeric import numeral
from models.verify.reference import reference_of
from models.verify.text import SHOWN_CHARS, readable, stated
from models.verify.workers import Answered, Workers
from warehouse.errors import InputError
from warehouse.records import Example, canonical, digest

WORKER = Path(__file__).with_name("math_worker.py")
FAR = Fraction(1, 10**4)
MAX_ANSWER = 1000  # characters
INTEGER = re.compile(r"-?\d{1,400}")
WORDING = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|left|right|displaystyle|[,!; ])(?![a-zA-Z])|[{}$\s]")


@dataclass(frozen=True)
class Mathematics:
    """Right where the reply's final answer means the same as the reference's: numbers, sets, intervals, formulas.

    `math-verify` parses and compares the two answers alone, never a whole reply, in one of `workers` processes. A
    comparison that takes longer than `seconds` is ended by killing its process: reason `timeout`, not `wrong`.
    """

    seconds: float = 5.0
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"wrong", "no_answer", "unparsed", "timeout", "crashed", "too_long", "no_reference"}
    )

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.workers < 1:
            raise InputError(f"seconds must be above 0 and workers at least 1, not {self.seconds} and {self.workers}")

    @property
    def fingerprint(self) -> str:
        return digest(canonical({"math": 1, "seconds": self.seconds}))

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        """A verdict on each reply to an item; only those that text cannot decide are sent to a process."""
        cases = [readable(reply) or _case(reply, item) for reply, item in asked]
        open_cases = {number: case for number, case in enumerate(cases) if isinstance(case, _Case)}
        heard = self._processes.ask([case.question for case in open_cases.values()])
        decided = dict(zip(open_cases, map(_verdict, open_cases.values(), heard), strict=True))
        return [case if isinstance(case, Verdict) else decided[number] for number, case in enumerate(cases)]

    def close(self) -> None:
        """End the processes. They also end with this one."""
        self._processes.close()

    @cached_property
    def _processes(self) -> Workers:
        command = (sys.executable, "-P", str(WORKER), str(self.seconds))
        return Workers(command, self.workers, self.seconds)


@dataclass(frozen=True, slots=True)
class _Case:
    answer: str
    wanted: tuple[str, ...]

    @property
    def question(self) -> str:
        return json.dumps([list(self.wanted), self.answer])


def _case(reply: str, item: Example) -> Verdict | _Case:
    """The verdict, where the texts of the answers decide; else what there is to compare."""
    wanted = stated(reference_of(item), _answer)
    given = _answer(reply)
    if not wanted:
        return Verdict(False, reason="no_reference")
    if not given:
        return Verdict(False, reason="no_answer")
    if len(given) > MAX_ANSWER:
        return Verdict(False, given[:SHOWN_CHARS], "too_long", f"an answer of {len(given)} characters")
    texts = [_bare(text) for text in wanted]
    if _bare(given) in texts:
        return Verdict(True, given)
    if all(INTEGER.fullmatch(text) for text in (_bare(given), *texts)):
        right = int(_bare(given)) in map(int, texts)
        return Verdict(right, given, "" if right else "wrong")
    near = tuple(text for text in wanted if not _far(text, given))
    return _Case(given, near) if near else Verdict(False, given, "wrong")


def _verdict(case: _Case, heard: Answered) -> Verdict:
    reason = heard.fault or heard.line
    return Verdict(reason == "right", case.answer, "" if reason == "right" else reason)


def _answer(reply: str) -> str:
    found = final_answer(reply)
    return found.text if found else ""


def _far(wanted: str, given: str) -> bool:
    """Whether both are numerals that differ by more than 1e-4 of their size.

    `math-verify` rounds to six decimals, so without this 0.0000001 would be 0.0000002.
    """
    a, b = numeral(wanted), numeral(given)
    return a is not None and b is not None and not a.same(b, FAR)


def _bare(text: str) -> str:
    """`text` without white space and the commands that only set it."""
    return plain(WORDING.sub("", text))

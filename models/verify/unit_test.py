"""Code that is right where it passes the tests of its item, run in a jail."""

import ast
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from models.protocol import Verdict
from models.verify.reference import Reference, reference_of
from models.verify.sandbox import Jailed, Ran, run_all
from models.verify.text import SHOWN_CHARS, readable
from warehouse.records import Example, canonical, digest

TRIAL = Path(__file__).with_name("trial.py").read_text(encoding="utf-8")
FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)
BEGIN, DONE = "[[BEGIN]]", "[[DONE]]"
DEFINES = re.compile(r"^(?:async def|def|class) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class UnitTest(Jailed):
    """Right where the code in the reply runs, and after it every test of the item, each without an error.

    The code is what stands between `[[BEGIN]]` and `[[DONE]]`, else the last fenced block that defines something, else
    the last fenced block, else the whole reply where that is Python. Code that ends the process before the tests have
    ended does not pass, and neither does code that prints or that replaces built-in functions. Code that was written
    to deceive this very program still can: an object that equals everything passes a test that compares it.

    wall_seconds ... processes   the limits of one run; see `models.verify.sandbox.Limits`
    weak                         run without a jail where the machine has none
    """

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"wrong", "no_answer", "crashed", "exited", "memory", "timeout", "too_long", "no_reference"}
    )

    @property
    def fingerprint(self) -> str:
        return digest(canonical({"unit_test": 1, "limits": self.bounds, "trial": TRIAL}))

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        """A verdict on each reply to an item. Raises `InputError` where code cannot be jailed here."""
        cases = [readable(reply) or _case(reply, item) for reply, item in asked]
        trials = {number: case for number, case in enumerate(cases) if isinstance(case, _Trial)}
        ran = run_all(TRIAL, [trial.given for trial in trials.values()], self.limits, self.weak)
        decided = dict(zip(trials, map(verdict, trials.values(), ran), strict=True))
        return [case if isinstance(case, Verdict) else decided[number] for number, case in enumerate(cases)]


@dataclass(frozen=True, slots=True)
class _Trial:
    code: str
    reference: Reference
    word: str = field(default_factory=secrets.token_hex)

    @property
    def given(self) -> str:
        setup, tests = self.reference.setup, self.reference.tests
        return json.dumps({"code": self.code, "setup": setup, "tests": tests, "word": self.word})


def code_in(reply: str) -> str:
    """The code of `reply`, "" where there is none."""
    if BEGIN in reply:
        return reply.rpartition(BEGIN)[2].partition(DONE)[0].strip("\n")
    blocks = [match[1] for match in FENCED.finditer(reply)]
    if blocks:
        return next((block for block in reversed(blocks) if DEFINES.search(block)), blocks[-1])
    try:
        ast.parse(reply)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    return reply


def verdict(trial: _Trial, ran: Ran) -> Verdict:
    """What a run says: right only where its last line is the word that it was given."""
    last = (ran.output.rstrip("\n").rpartition("\n")[2] if ran.ended == "finished" else "").strip()
    if last == trial.word:
        return Verdict(True, trial.code)
    reason, _, detail = last.partition(" ")
    if not last:
        reason, detail = ("exited" if ran.ended == "finished" else ran.ended), ran.detail
    elif reason not in UnitTest.reasons:  # the code wrote where the verdict belongs
        reason, detail = "crashed", last
    return Verdict(False, trial.code, reason, detail[:SHOWN_CHARS])


def _case(reply: str, item: Example) -> Verdict | _Trial:
    reference = reference_of(item)
    if not reference.tests:
        return Verdict(False, reason="no_reference")
    code = code_in(reply)
    return _Trial(code, reference) if code.strip() else Verdict(False, reason="no_answer")

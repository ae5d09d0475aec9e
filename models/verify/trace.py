"""Straight-line programs run statement by statement, and the state after each (Ni et al. 2023, arXiv 2205.14318).

A program is right where its variable `answer` is; what else came to pass on the way tells a program that is right up to
a point from one that never was.
"""

import ast
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

from models.protocol import Verdict
from models.verify.reference import reference_of
from models.verify.sandbox import Jailed, Ran, run_all
from models.verify.text import SHOWN_CHARS, readable
from models.verify.unit_test import BEGIN, FENCED, code_in
from warehouse.records import Example, canonical, digest

TRACER = Path(__file__).with_name("tracer.py").read_text(encoding="utf-8")
ROLE = "trace"
CLOSE = 1e-4
MOST_CHARS = 20_000
MOST_STATEMENTS = 500
STRAIGHT = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Import, ast.ImportFrom)


@dataclass(frozen=True, slots=True)
class Program:
    """The beginning of `text` that is straight-line Python.

    statements  its statements in one spelling, without comments
    ends        for each, the place in `text` where it ends
    whole       whether `text` has nothing else
    """

    text: str
    statements: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    whole: bool = True

    def head(self, k: int) -> str:
        """The first `k` statements as they were written, with the comments before and between them."""
        return self.text[: self.ends[k - 1]] if k else ""


@dataclass(frozen=True, slots=True)
class Step:
    """What holds after a statement: a key of the values of all variables, equal where the values are; whether one of
    the values is new; and the value of `answer`, None before there is one."""

    state: str
    new: bool
    answer: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    """A program and the steps of those of its statements that ran; the first that failed ends them."""

    program: Program
    steps: tuple[Step, ...] = ()

    @property
    def answered(self) -> int:
        """How many statements it takes until there is an answer; 0 where there never is one."""
        return next((i for i, step in enumerate(self.steps, 1) if step.answer is not None), 0)

    @property
    def answer(self) -> str:
        """The first value of `answer`, "" where there is none."""
        return self.steps[self.answered - 1].answer or "" if self.answered else ""


@dataclass(frozen=True, slots=True)
class Traced(Jailed):
    """Right where the first value of the variable `answer` is the item's: equal text, or a number within 1e-4.

    The item's answer is meta `answer` or one of `aliases`; else its gold reply is a program, and that program's. The
    program of a reply is what stands between `[[BEGIN]]` and `[[DONE]]`, else its last fenced block, else all of it. It
    runs as far as it is straight-line Python: assignments, expressions and imports; a loop, branch or definition ends
    it. `detail` of a verdict holds the trace; read it with `trace_of`. A program could write steps of its own making,
    but none that is right without knowing the answer.

    wall_seconds ... processes   the limits of one run; see `models.verify.sandbox.Limits`
    weak                         run without a jail where the machine has none
    """

    wall_seconds: float = 2.0
    cpu_seconds: int = 2
    file_mb: int = 1
    processes: int = 4

    reasons: ClassVar[frozenset[str]] = frozenset(
        {"wrong", "no_answer", "crashed", "timeout", "too_long", "no_reference"}
    )

    @property
    def fingerprint(self) -> str:
        return digest(canonical({"trace": 1, "limits": self.bounds, "tracer": TRACER}))

    def verify(self, asked: Sequence[tuple[str, Example]]) -> list[Verdict]:
        """A verdict on each reply to an item. Raises `InputError` where code cannot be jailed here."""
        replies = [straight(source_in(reply)) for reply, _ in asked]
        gold = {
            item.sample_id: straight(source_in(reference_of(item).gold_reply)) for _, item in asked if _unstated(item)
        }
        unique = {program.statements: program for program in (*replies, *gold.values()) if program.statements}
        runs = run_all(TRACER, [json.dumps(statements) for statements in unique], self.limits, self.weak)
        ran = dict(zip(unique, runs, strict=True))
        wanted = {name: _traced(program, ran.get(program.statements)).answer for name, program in gold.items()}
        return [
            readable(reply) or _verdict(program, ran.get(program.statements), _answers(item, wanted))
            for (reply, item), program in zip(asked, replies, strict=True)
        ]


def source_in(reply: str) -> str:
    """The program text of a reply, whether it is Python or not."""
    return code_in(reply) if BEGIN in reply or FENCED.search(reply) else reply


def straight(source: str) -> Program:
    """The longest beginning of `source` that is straight-line Python; none of it where it is too long to be read."""
    text = dedent(source.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    tree = _parsed(text) if len(text) <= MOST_CHARS else None
    if tree is None:
        return Program(text, whole=not text)
    body, total = tree
    kept = body[: next((i for i, node in enumerate(body) if not isinstance(node, STRAIGHT)), MOST_STATEMENTS)]
    try:
        statements = tuple(ast.unparse(node) for node in kept)
    except RecursionError:
        return Program(text, whole=False)
    return Program(text, statements, tuple(_end(text, node) for node in kept), total and len(kept) == len(body))


def trace_of(verdict: Verdict) -> Trace:
    """The trace that a verdict of `Traced` holds; without steps where nothing ran."""
    if not verdict.detail.startswith("{"):
        return Trace(Program(""))
    found = json.loads(verdict.detail)
    program = {**found["program"], "statements": tuple(found["program"]["statements"])}
    return Trace(Program(**{**program, "ends": tuple(program["ends"])}), tuple(Step(**step) for step in found["steps"]))


def same_answer(found: str, wanted: Sequence[str]) -> bool:
    """Whether `found` is one of `wanted`: the same text, or numbers that differ by at most 1e-4."""
    number = _number(found)
    for text in wanted:
        other = _number(text)
        if text.strip() == found.strip():
            return True
        if number is not None and other is not None and math.isclose(number, other, abs_tol=CLOSE):
            return True
    return False


def _verdict(program: Program, ran: Ran | None, wanted: Sequence[str]) -> Verdict:
    if not any(wanted):
        return Verdict(False, reason="no_reference")
    trace = _traced(program, ran)
    detail = canonical(asdict(trace))
    if trace.answered:
        right = same_answer(trace.answer, wanted)
        return Verdict(right, trace.answer[:SHOWN_CHARS], "" if right else "wrong", detail)
    if ran is None:
        return Verdict(False, reason="too_long" if len(program.text) > MOST_CHARS else "no_answer", detail=detail)
    return Verdict(False, reason="no_answer" if ran.ended == "finished" else ran.ended, detail=detail)


def _traced(program: Program, ran: Ran | None) -> Trace:
    """What a run wrote, as far as its lines are whole."""
    lines = ran.output.split("\n")[:-1] if ran is not None else []
    return Trace(program, tuple(_whole(map(_step, lines[: len(program.statements)]))))


def _whole(steps: Iterable[Step | None]) -> Iterator[Step]:
    for step in steps:
        if step is None:
            return
        yield step


def _step(line: str) -> Step | None:
    """The step that a line tells of; None for a line that is something else, for the code that ran can write too."""
    try:
        found = json.loads(line)
        step = Step(found["state"], found["new"], found["answer"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    sound = isinstance(step.state, str) and isinstance(step.new, bool) and isinstance(step.answer, str | None)
    return step if sound else None


def _unstated(item: Example) -> bool:
    return item.meta.get("answer") is None


def _answers(item: Example, wanted: dict[str, str]) -> tuple[str, ...]:
    """The item's answers; what its gold program gives comes in place of one that is not stated."""
    stated = reference_of(item).answers
    return (wanted[item.sample_id], *stated) if _unstated(item) else stated


def _parsed(text: str) -> tuple[list[ast.stmt], bool] | None:
    """The statements of the most lines from the beginning that are Python, and whether those are all lines."""
    lines = text.split("\n")
    while lines:
        try:
            return ast.parse("\n".join(lines)).body, len(lines) == text.count("\n") + 1
        except SyntaxError as error:
            lines = lines[: min(len(lines), error.lineno or len(lines)) - 1]
        except (ValueError, RecursionError, MemoryError):
            return None
    return None


def _end(text: str, node: ast.stmt) -> int:
    """The place in `text` where `node` ends; Python counts columns in bytes of UTF-8."""
    assert node.end_lineno is not None  # a parsed statement has an end
    assert node.end_col_offset is not None
    lines = text.split("\n")
    last = lines[node.end_lineno - 1].encode()[: node.end_col_offset].decode()
    return sum(len(line) + 1 for line in lines[: node.end_lineno - 1]) + len(last)


def _number(text: str) -> float | None:
    try:
        number = float(text.replace(",", "").strip(" $%"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None

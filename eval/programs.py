"""Code that is written, run against tests in a jail, and counted over several tries."""

import ast
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from eval.likelihoods import loss_of, reply_turn, scored, scoring
from eval.passes import pass_at_k
from eval.protocol import TUNED, Item, Score
from eval.replying import Replying, told
from eval.rows import prompt_of
from models.dialogue import Complete, Dialogue, Request, Verify
from models.protocol import Completion, Verdict, Verifier
from models.verify.unit_test import BEGIN, DONE, UnitTest, code_in
from warehouse.errors import InputError
from warehouse.records import Example

ROLE = "unit_test"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Code(Replying):
    """pass@k: the chance that one of k tries passes all tests of its row (`pass@1`, ...; Chen et al. 2021).

    Rows hold meta `tests`, Python source or a list of them, run after the code (and `test_setup` before them, as MBPP
    has it); or meta `entry_point` and `test`, source that defines `check(candidate)` (as HumanEval has it). With an
    `entry_point` a reply may also continue the code of the prompt: meta `prefix`, else the last user turn.

    The code of a reply is what stands between `[[BEGIN]]` and `[[DONE]]`, else the last fenced block that defines
    something, else the last one, else all of the reply. Only Python is run. It sees no network, no file and no variable
    of this machine.

    samples                  tries of every row, each a draw of its own at `temperature` above 0
    k                        the k of pass@k, each at most `samples`
    wall_seconds, memory_mb  what one try may use
    weak                     run without a jail where the machine has none
    """

    max_tokens: int = 512
    samples: int = 1
    k: tuple[int, ...] = (1,)
    wall_seconds: float = 15.0  # seconds of processor are limited to 5: a busy machine fails no code
    memory_mb: int = 512
    weak: bool = False

    name: ClassVar[str] = "code"
    reads: ClassVar[tuple[str, ...]] = ("tests", "test_setup", "test", "entry_point", "prefix")
    tuples: ClassVar[tuple[str, ...]] = ("stop", "k")

    def __post_init__(self) -> None:
        Replying.__post_init__(self)
        if not self.k or not all(1 <= k <= self.samples for k in self.k):
            raise InputError(
                f"task 'code': k is {list(self.k)}; give numbers from 1 to `samples`, which is {self.samples}"
            )
        if self.repeats > 1 or (self.samples > 1 and not self.temperature):
            raise InputError(
                "task 'code': several tries of a row are `samples`, not `repeats`, and need a temperature above 0; "
                f"found samples {self.samples}, repeats {self.repeats}, temperature {self.temperature:g}"
            )

    @property
    def verifiers(self) -> Mapping[str, Verifier]:
        return {ROLE: UnitTest(wall_seconds=self.wall_seconds, memory_mb=self.memory_mb, weak=self.weak)}

    def problem(self, row: Example) -> str:
        if not prompt_of(row):
            return "has no prompt"
        if str(row.meta.get("language", "python")).casefold() not in ("python", "py", "en"):
            return f"is in {row.meta['language']}; only Python is run"
        if row.meta.get("test") and not row.meta.get("entry_point"):
            return "has a meta `test`, but no `entry_point` that it checks"
        return "" if sources_of(row) else "has no tests: neither meta `tests` nor `test` with `entry_point`"

    def attempt(self, item: Item) -> Dialogue[Score]:
        loss: list[Request] = []
        if item.gold:
            loss = scoring(item.prompt, [reply_turn(item.gold)], item.heard)
        replies = yield [*(Complete(TUNED, self.prompt(item, draw)) for draw in range(self.samples)), *loss]
        completions: list[Completion] = replies[: self.samples]
        values, detail = loss_of(*scored(replies[self.samples :], 1, item.heard)) if loss else ({}, {})
        codes = [program(each.text, item.example) for each in completions]
        row = replace(item.example, meta={**item.example.meta, "tests": sources_of(item.example)})
        verdicts: list[Verdict] = yield [Verify(ROLE, f"{BEGIN}\n{code}\n{DONE}", row) for code in codes]
        right = sum(verdict.right for verdict in verdicts)
        passes = {f"pass@{k}": pass_at_k(self.samples, right, k) for k in self.k}
        detail |= told(next((each for each in completions if each.failure), completions[0]))
        detail |= {"samples": self.samples, "right": right, "reasons": [verdict.reason for verdict in verdicts]}
        return Score(passes | values, completions[0].text, codes[0], detail)


def sources_of(row: Example) -> tuple[str, ...]:
    """The sources that are run after the code, in turn."""
    given = row.meta.get("tests") or ()
    listed = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Sequence) else ()
    if row.meta.get("test") and (entry := row.meta.get("entry_point")):
        return (*listed, str(row.meta["test"]), f"check({entry})")
    return tuple(str(test) for test in listed)


def program(reply: str, row: Example) -> str:
    """The code that `reply` gives: a whole one, after the code of the prompt that it may use, or the rest of that."""
    code, entry = code_in(reply), str(row.meta.get("entry_point") or "")
    prefix = str(row.meta.get("prefix") or (prompt_of(row)[-1].content if entry else ""))
    if not prefix or not _parsed(f"{prefix}\n    pass\n"):
        return code
    if entry in _bodies(code):
        return f"{prefix}\n    pass\n\n{code}\n"
    written = [f"{prefix}{ending}" for ending in _endings(code or reply)]
    alone = _bodies(f"{prefix}\n    pass\n").get(entry, 0) - 1
    return next((text for text in written if _bodies(text).get(entry, 0) > alone), written[0])


def _endings(body: str) -> Iterator[str]:
    """`body` as the rest of a function: as it is, with its first line indented, and with all of them."""
    yield f"\n{body}\n"
    yield f"\n    {body.lstrip()}\n"
    yield f"\n{textwrap.indent(body, '    ')}\n"


def _bodies(source: str) -> dict[str, int]:
    """Statements in each function that `source` defines at its top level; none where it is not Python."""
    module = _parsed(source)
    found = module.body if module and not any(map(_returns, module.body)) else []
    return {node.name: len(node.body) for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def _returns(node: ast.AST) -> bool:
    """Whether a `return` stands under `node` outside a function: the parser lets that pass, Python does not."""
    if isinstance(node, ast.Return):
        return True
    return not isinstance(node, FUNCTIONS) and any(map(_returns, ast.iter_child_nodes(node)))


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

"""Answers compared as mathematics: what is the same, what is not, and what would hang or burst."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from models.protocol import Verdict
from models.verify.mathematics import WORKER, Mathematics
from models.verify.workers import Answered, Workers
from warehouse.errors import InputError
from warehouse.records import Example, Message


@pytest.fixture(scope="module")
def math() -> Iterator[Mathematics]:
    verifier = Mathematics(seconds=5, workers=1)
    yield verifier
    verifier.close()


def item(answer: str) -> Example:
    return Example((Message("user", "q"),), "s", {"answer": answer})


def judge(math: Mathematics, gold: str, replies: list[str]) -> list[Verdict]:
    verdicts = math.verify([(reply, item(gold)) for reply in replies])
    assert all(one.right == (not one.reason) and one.reason in {"", *Mathematics.reasons} for one in verdicts)
    return verdicts


START = "import os, sys, time; print('ready')\nfor line in sys.stdin: "


def boxed(*answers: str) -> list[str]:
    return [rf"So it is \boxed{{{answer}}}." for answer in answers]


SAME = {
    "1/2": ["0.5", ".5", r"\frac12", r"\frac{1}{2}", r"\dfrac{2}{4}", "50%", r"50\%", "2^{-1}"],
    r"\frac{1}{3}": ["1/3", "0.333333"],
    r"\{1,2,3\}": [r"\{3,2,1\}", "1,2,3", r"\{1, 2, 3\}"],
    "[0,1)": ["[0, 1)", r"\left[0,1\right)"],
    r"(-\infty, 2) \cup (3, \infty)": [r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"],
    "5": [r"5\text{ cm}", "x=5", r"\$5", "5.0"],
    r"5\text{ cm}": ["5"],
    "x^2+2x+1": ["(x+1)^2", "1+2x+x^2"],
    r"\sqrt{8}": [r"2\sqrt{2}"],
    r"\frac{\pi}{2}": [r"\pi/2"],
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": [r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"],
    r"\text{east}": ["east", r"\text{East}"],
    "10^{10}": ["10000000000"],
    "3+4i": ["4i+3"],
    "a<3": ["3>a"],
    "1,234": ["1234"],
    "0.001": [r"\frac{1}{1000}", "0.1%", "10^{-3}"],
}
OTHER = {
    "1/2": ["0.51", "2", "-0.5", "1/3"],
    "[0,1)": ["[0,1]", "(0,1)"],
    "(1,2)": ["(2,1)"],
    r"\{1,2,3\}": [r"\{1,2\}"],
    "x^2+2x+1": ["x^2+1", "(y+1)^2"],
    r"\text{east}": ["west"],
    "0.0000001": ["0.0000002", "0"],
    "0.001": ["0.0010004", r"\frac{1}{999}"],
    "5": ["5 to 7", "5 million", "5 or 6", "5, 6"],
    "a<3": ["a>3"],
}


@pytest.mark.parametrize("gold", SAME)
def test_the_same_in_other_words(math: Mathematics, gold: str) -> None:
    wrong = [v for v in judge(math, gold, boxed(*SAME[gold], gold)) if not v.right]
    assert wrong == []


@pytest.mark.parametrize("gold", OTHER)
def test_what_is_not_the_same(math: Mathematics, gold: str) -> None:
    assert {v.reason for v in judge(math, gold, boxed(*OTHER[gold]))} == {"wrong"}


def test_answers_in_words(math: Mathematics) -> None:
    replies = ["The answer is 5 apples.", "So she has $5$ apples", "5", "#### 5", "Therefore, it is 5."]
    assert all(verdict.right for verdict in judge(math, "5", replies))
    assert judge(math, "5", ["The answer is 6 apples."])[0].reason == "wrong"
    assert judge(math, "5", [" "])[0].reason == "no_answer"
    assert judge(math, " ", ["5"])[0].reason == "no_reference"


def test_the_gold_reply_is_read_where_no_answer_is_stated(math: Mathematics) -> None:
    gold = Example(
        (Message("user", "q"), Message("assistant", r"As $2 \cdot 3 = 6$, it is $\boxed{\frac{6}{4}}$.")), "s"
    )
    assert math.verify([("The answer is 1.5", gold)])[0].right


QUICKLY_REFUSED = [
    *boxed("{" * 300 + "1" + "}" * 300, "10**10**10", r"\frac{1}{", "1000000!", "9" * 900, r"\undefined{x}{{y}"),
    r"\boxed{", "$" * 999, "9" * 90_000, "a" * 1_000_000, *boxed(r"\sqrt{" * 200 + "1" + "}" * 200), "\x00", "\ud800",
]  # fmt: skip


def test_hostile_answers_are_not_right(math: Mathematics) -> None:
    began = time.monotonic()
    assert not any(verdict.right for verdict in judge(math, "12", QUICKLY_REFUSED))
    assert time.monotonic() - began < 50
    assert judge(math, "12", boxed("12"))[0].right


@pytest.fixture(scope="module")
def hasty() -> Iterator[Mathematics]:
    verifier = Mathematics(seconds=1, workers=2)
    verifier.verify([(one, item("1/7")) for one in boxed("2/14", "3/21")])  # started before anything is timed
    yield verifier
    verifier.close()


@pytest.mark.parametrize("bomb", ["10^{10^{10}}", "(" * 12 + "9" + "^9)" * 12, r"\int_0^{10} e^{x^{x^x}} dx"])
def test_what_would_hang_is_killed_and_counted_apart_from_wrong(hasty: Mathematics, bomb: str) -> None:
    [verdict, after] = judge(hasty, "12", boxed(bomb, r"\frac{24}{2}"))
    assert verdict.reason == "timeout"
    assert after.right  # and the next question is answered all the same


def test_a_late_verdict_does_not_answer_the_next_question() -> None:
    """What is slow but ends must not leave its line for the next one to read."""
    workers = Workers((sys.executable, "-uc", START + "time.sleep(float(line)); print(line.strip())"), 1, 1.0)
    assert workers.ask(["0.0", "1.2", "0.01"]) == [Answered("0.0"), Answered(fault="timeout"), Answered("0.01")]
    workers.close()


def test_a_worker_that_dies_is_replaced() -> None:
    dies = START + "print(os.getpid()) if line.strip() != 'die' else os._exit(1)"
    workers = Workers((sys.executable, "-uc", dies), 1, 30)
    first, second, crashed, third = workers.ask(["", "", "die", ""])
    assert crashed == Answered(fault="crashed")
    assert first.line == second.line != third.line
    workers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(third.line), 0)


def test_a_worker_that_does_not_start_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="does not start"):
        Workers((sys.executable, "-c", "pass"), 1, 1).ask(["x"])


def test_an_orphaned_worker_ends_itself() -> None:
    """Its standard input closes when its owner is gone; where it is busy, its own alarm ends it."""
    worker = subprocess.Popen([sys.executable, str(WORKER), "0.2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin
    assert worker.stdout
    try:
        assert worker.stdout.readline() == b"ready\n"
        worker.stdin.write(b'[["12"], "10^{10^{10}}"]\n')
        worker.stdin.flush()
        assert worker.wait(120) == -signal.SIGALRM
    finally:
        worker.kill()
        worker.communicate()


def test_plain_numbers_start_no_process() -> None:
    math = Mathematics()
    assert [v.reason for v in judge(math, "12", ["12", "13", "The answer is 12.", "\\boxed{-12}"])] == [
        "",
        "wrong",
        "",
        "wrong",
    ]
    assert "_processes" not in vars(math) or math._processes._idle.empty()


@pytest.mark.parametrize("fields", [{"seconds": 0}, {"workers": 0}])
def test_wrong_parameters_are_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="seconds must be above 0"):
        Mathematics(**fields)

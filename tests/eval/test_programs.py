"""Code: how a reply becomes a program, what passes, and how tries are counted."""

import json
from typing import Any

import numpy as np
import pytest

from eval.assess import assess
from eval.programs import Code, program, sources_of
from models.canned import CannedModel
from models.protocol import Prompt
from warehouse.errors import InputError
from warehouse.records import Example, Message

PREFIX = '''import math


def helper(x):
    return x + 1


def area(r):
    """The area of a circle of radius `r`, by `helper`.
    >>> area(0)
    0.0
    """'''
CHECK = "def check(candidate):\n    assert candidate(0) == 0\n    assert abs(candidate(1) - 3.14159) < 1e-3\n"


def row(prompt: str, **meta: Any) -> Example:
    return Example((Message("user", prompt),), "made", meta)


CIRCLE = row(PREFIX, entry_point="area", test=CHECK)
RIGHT = {
    "a body": "    return math.pi * (helper(r) - 1) ** 2",
    "a body after a line end": "\n    square = (helper(r) - 1) ** 2\n    return math.pi * square\n",
    "a body whose first line lost its place": "square = (helper(r) - 1) ** 2\n    return math.pi * square",
    "a body without its place": "square = (helper(r) - 1) ** 2\nreturn math.pi * square",
    "the function in a fence": "Here:\n```python\ndef area(r):\n    return math.pi * (helper(r) - 1) ** 2\n```\nDone.",
    "the body in a fence": "```python\n    return math.pi * (helper(r) - 1) ** 2\n```",
    "all of it": f"{PREFIX}\n    return math.pi * r * r",
    "all of it between marks": f"[[BEGIN]]\n{PREFIX}\n    return math.pi * r * r\n[[DONE]] that is it",
}
WRONG = {
    "another value": "    return r",
    "prose": "I cannot write code.",
    "nothing": "",
    "an end before the tests": "    import os; os._exit(0)",
    "another name": "def circle(r):\n    return math.pi * r * r",
    "code that calls for a file": "    return float(open('/etc/hostname').read() and 0)",
}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_programs_that_pass_and_that_do_not() -> None:
    replies = [*RIGHT.values(), *WRONG.values()]
    task = Code((CIRCLE,), samples=len(replies), k=(1, 2), temperature=1.0)
    found = assess(task, CannedModel(replies), "key", rng())
    reasons = detail(found)["reasons"]
    told = dict(zip([*RIGHT, *WRONG], reasons, strict=True))
    assert {name for name, reason in told.items() if not reason} == set(RIGHT)
    n, c = len(replies), len(RIGHT)
    assert found.report.metrics["pass@1"].value == pytest.approx(c / n)
    assert found.report.metrics["pass@2"].value == pytest.approx(1 - (n - c) * (n - c - 1) / (n * (n - 1)))
    assert (found.items[0].reply, found.items[0].gold) == (replies[0], "")


def detail(found: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(found.items[0].detail)
    return loaded


def test_asserts_and_their_setup_are_run_after_the_code() -> None:
    mbpp = row("Write f.", tests=["assert f(2) == four", "assert f(0) == 0"], test_setup="four = 4")
    replies = {"Write f.": "```python\ndef f(x):\n    return 2 * x\n```"}
    assert assess(Code((mbpp,)), CannedModel(replies), "key", rng()).report.metrics["pass@1"].value == 1.0
    assert sources_of(row("x", tests="assert True")) == ("assert True",)
    assert sources_of(CIRCLE) == (CHECK, "check(area)")
    assert program("```python\ndef f(x):\n    return 2 * x\n```", mbpp) == "def f(x):\n    return 2 * x\n"


def test_a_prefix_beside_a_prompt_in_words() -> None:
    asked = row("Complete the function below.", entry_point="area", test=CHECK, prefix=PREFIX)
    assert program("    return 1", asked) == f"{PREFIX}\n    return 1\n"
    bare = row("Write area(r) in Python.", entry_point="area", test=CHECK)
    assert program("def area(r):\n    return 1", bare) == "def area(r):\n    return 1"


def test_every_try_is_a_draw_of_its_own() -> None:
    def reply(prompt: Prompt) -> str:
        return "x = 1" if prompt.draw % 2 else "raise ValueError"

    model = CannedModel(reply)
    task = Code(
        (row("q", tests="assert x"), row("r", tests="assert x")), samples=4, k=(1, 4), temperature=0.8, top_p=0.95
    )
    found = assess(task, model, "key", rng())
    assert (found.report.metrics["pass@1"].value, found.report.metrics["pass@4"].value) == (0.5, 1.0)
    assert len({(prompt.seed, prompt.draw) for prompt in model.prompts}) == 8
    assert {(prompt.temperature, prompt.top_p) for prompt in model.prompts} == {(0.8, 0.95)}
    assert detail(found)["right"] == 2


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"k": [2]}, r"k is \[2\]; give numbers from 1 to `samples`, which is 1"),
        ({"k": []}, r"k is \[\]"),
        ({"samples": 3}, "need a temperature above 0"),
        ({"repeats": 2, "temperature": 1.0}, "several tries of a row are `samples`"),
    ],
)
def test_tries_that_make_no_sense_are_refused(params: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        Code((), **params)


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({}, "has no tests"),
        ({"test": CHECK}, "has a meta `test`, but no `entry_point`"),
        ({"tests": "assert True", "language": "java"}, "is in java; only Python is run"),
    ],
)
def test_rows_that_cannot_be_run_are_refused(meta: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"test example 0 .* {why}"):
        Code((row("q", **meta),)).items()

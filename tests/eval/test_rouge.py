"""ROUGE-L by worked numbers."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.assess import assess
from eval.rouge import RougeL, rouge_l
from models.canned import CannedModel
from warehouse.errors import InputError
from warehouse.records import Example, Message

WORDS = st.lists(st.sampled_from(["river", "stone", "cloud", "lamp", "north"]), min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("reply", "references", "value"),
    [
        ("The answer is 13.", ["The answer is 9."], 0.75),
        ("tree house river", ["river house tree"], 1 / 3),
        ("cats running", ["cat runs"], 1.0),
        ("cats running", ["nothing", "cat runs"], 1.0),
        ("", ["cat"], 0.0),
        ("the cat sat", ["the cat"], 2 * (2 / 3) / (2 / 3 + 1)),
    ],
)
def test_worked_numbers(reply: str, references: list[str], value: float) -> None:
    assert rouge_l(reply, references) == pytest.approx(value, abs=5e-5)


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS, WORDS)
def test_more_references_never_lower_it_and_a_copy_is_1(reply: str, first: str, second: str) -> None:
    assert rouge_l(reply, [first, second]) == max(rouge_l(reply, [first]), rouge_l(reply, [second]))
    assert rouge_l(reply, [reply]) == pytest.approx(1.0)
    assert rouge_l(reply, [first]) == pytest.approx(rouge_l(first, [reply]))


def test_references_of_the_row_or_its_gold_reply() -> None:
    asked = Message("user", "Say it.")
    rows = (
        Example((asked,), "made", {"references": ["a stone", "the river"]}),
        Example((asked, Message("assistant", "cloud")), "made"),
    )
    found = assess(RougeL(rows), CannedModel(lambda _: "river"), "key", np.random.default_rng(0))
    values = [row.value for row in found.items if row.metric == "rouge_l"]
    assert values == pytest.approx([2 / 3, 0.0])
    assert [row.gold for row in found.items if row.metric == "nll"] == ["a stone", "cloud"]
    with pytest.raises(InputError, match="has no reference: neither meta nor gold"):
        RougeL((Example((asked,), "made"),)).items()
    with pytest.raises(InputError, match="must hold a list of texts in meta `references`"):
        RougeL((Example((asked,), "made", {"references": "one"}),)).items()


def test_a_redirected_stderr_is_not_closed_when_logging_is_set_up_anew() -> None:
    script = (
        "import contextlib, io, logging, logging.config\n"
        "from eval.rouge import rouge_l\n"
        "stream = io.StringIO()\n"
        "with contextlib.redirect_stderr(stream):\n"
        "    rouge_l('a', ['a'])\n"
        "logging.config.dictConfig({'version': 1})\n"
        "assert not stream.closed\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0

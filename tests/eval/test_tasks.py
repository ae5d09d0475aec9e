"""Tasks on canned replies: what is asked, what counts as right, and what is reported."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from eval.assess import assess
from eval.items import ITEM_SCHEMA
from eval.metrics import METRICS
from eval.protocol import Task
from eval.table import TASKS
from eval.tasks import ExactMatch, HeldOutLoss, NumericMatch
from models.canned import CannedModel
from models.protocol import Want
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical


def example(question: str, gold: str, skill: str = "any") -> Example:
    return Example((Message("user", question), Message("assistant", gold)), "made", {"skill": skill})


WANTS = frozenset({Want.RESPONSE_LOGPROBS})
NUMBERS = tuple(example(f"What is {n} plus 1?", f"{n} + 1 = {n + 1}\n#### {n + 1}", f"mod {n % 2}") for n in range(10))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def rows_for(name: str) -> tuple[Example, ...]:
    """Rows that the task of this name can score."""
    known: dict[str, dict[str, Any]] = {
        "choice": {"choices": ["2", "3"], "label": 1},
        "lowest_perplexity": {"candidates": ["none", "all"]},
        "code": {"tests": "assert True"},
        "instructions": {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "refusal": {"should_refuse": False},
    }
    return tuple(replace(each, meta={**each.meta, **known.get(name, {})}) for each in NUMBERS)


@pytest.mark.parametrize("name", TASKS)
def test_the_contract_of_every_task(name: str) -> None:
    rows = rows_for(name)
    task: Task = TASKS[name](rows, limit=4)
    params = json.loads(canonical(dict(task.spec.params)))
    assert task.spec.name == name
    assert TASKS[name](rows, **params) == task
    assert [item.example for item in task.items()] == list(rows[:4])
    found = assess(
        task, {"tuned": CannedModel(lambda prompt: "x = 5"), "judge": CannedModel(lambda _: "A")}, "key", rng()
    )
    assert found.report.task == task.spec
    assert set(found.report.metrics) <= set(METRICS) | {"pass@1"}
    assert {estimate.n for estimate in found.report.metrics.values()} == {4}
    assert found.table().schema == ITEM_SCHEMA
    assert "nll" in found.report.metrics
    assert set(task.needs) >= {"tuned"}


@pytest.mark.parametrize("name", TASKS)
def test_every_value_has_a_metric_or_is_read_by_one(name: str) -> None:
    found = assess(
        TASKS[name](rows_for(name)),
        {"tuned": CannedModel(lambda _: "5"), "judge": CannedModel(lambda _: "A")},
        "key",
        rng(),
    )
    read = {column for each in METRICS.values() for column in each.reads} | {"pass@1"}
    assert {row.metric for row in found.items} <= read


def test_a_role_that_is_not_given_is_an_error() -> None:
    with pytest.raises(InputError, match="asks models in the roles tuned, judge; not given: judge"):
        assess(TASKS["pairwise"](NUMBERS), CannedModel([]), "key", rng())


def test_numeric_match_end_to_end() -> None:
    replies = {e.messages[0].content: f"It is {int(e.messages[0].content.split()[2]) + 1}.0" for e in NUMBERS[:7]}
    replies |= {e.messages[0].content: "I do not know" for e in NUMBERS[7:]}
    model = CannedModel(replies)
    found = assess(NumericMatch(NUMBERS, max_tokens=9, stop=("\n\n",)), model, "key", rng())
    assert found.report.metrics["numeric_match"].value == pytest.approx(0.7)
    assert [(p.messages, p.max_tokens, p.temperature, p.stop) for p in model.prompts] == [
        (e.messages[:1], 9, 0.0, ("\n\n",)) for e in NUMBERS
    ]
    rows = found.table().filter(pc.equal(found.table()["metric"], "numeric_match")).to_pylist()
    assert [(r["parsed"], r["value"]) for r in rows[6:8]] == [("7.0", 1.0), (None, 0.0)]
    assert (rows[0]["prompt"], rows[0]["gold"], rows[0]["group"]) == ("What is 0 plus 1?", "0 + 1 = 1\n#### 1", "mod 0")


def test_losses_count_tokens_and_items() -> None:
    examples = (example("a", "one"), example("b", "one two three four five"))
    model = CannedModel(lambda prompt: "")
    found = assess(HeldOutLoss(examples), model, "key", rng())
    assert model.prompts == []
    logprobs = [CannedModel({}).measure([e.messages], WANTS).response_logprobs for e in examples]
    per_item = [-float(np.mean(x[0])) for x in logprobs if x is not None]
    assert found.report.metrics["nll_item_mean"].value == pytest.approx(sum(per_item) / 2)
    assert found.report.metrics["nll"].value == pytest.approx((2 * per_item[0] + 6 * per_item[1]) / 8)
    assert [row.n_tokens for row in found.items] == [2, 6]


@pytest.mark.parametrize(
    ("params", "reply", "right"),
    [
        ({}, " Paris \n", True),
        ({}, "paris", False),
        ({}, "It is Paris", False),
        ({"casefold": True}, "PARIS", True),
        ({"answer": r"Answer: (\w+)"}, "Answer: Rome. Or rather, Answer: Paris", True),
        ({"answer": r"Answer: (\w+)"}, "Paris", False),
    ],
)
def test_exact_match(params: dict[str, Any], reply: str, right: bool) -> None:
    found = assess(ExactMatch((example("Capital of France?", "Paris"),), **params), CannedModel([reply]), "key", rng())
    assert found.report.metrics["exact_match"].value == float(right)
    assert found.items[0].reply == reply


def test_the_pattern_reads_the_gold_reply_too() -> None:
    task = ExactMatch((example("q", "Thinking. Answer: Paris"),), answer=r"Answer: (\w+)")
    assert task.judge("Answer: Paris", "Thinking. Answer: Paris") == ("Paris", True)


def test_longer_prompts_are_kept_whole() -> None:
    talk = (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Bye"),
    )
    item = Example((*talk, Message("assistant", "Bye")), "made")
    model = CannedModel(["Bye"])
    found = assess(ExactMatch((item,)), model, "key", rng())
    assert model.prompts[0].messages == talk
    assert found.items[0].prompt == "system: Be brief.\nuser: Hi\nassistant: Hello\nuser: Bye"
    assert found.items[0].group == "made"


def test_gold_replies_cut_off_by_the_context_are_left_out() -> None:
    class Short(CannedModel):
        def measure(self, rows: Any, wants: Any, choices: Any = ()) -> Any:
            found = super().measure(rows, wants, choices)
            assert isinstance(found.response_logprobs, list)
            found.response_logprobs[0] = found.response_logprobs[0][:0]
            return found

    found = assess(HeldOutLoss(NUMBERS), Short([]), "key", rng())
    assert found.report.metrics["nll"].n == 9
    assert math.isfinite(found.report.metrics["nll"].value)
    with pytest.raises(InputError, match="none of the 1 items"):
        assess(HeldOutLoss(NUMBERS[:1]), Short([]), "key", rng())


@pytest.mark.parametrize("name", TASKS)
def test_bad_test_sets_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="the test set is empty"):
        TASKS[name](()).items()
    answered = Example((Message("assistant", "x"),), "made")
    with pytest.raises(InputError, match=r"test example 0 \(source 'made'\) (must|has)"):
        TASKS[name]((answered,)).items()


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"stop": "END"}, "stop is 'END'; give a list"),
        ({"stop": [""]}, "empty stop string"),
        ({"max_tokens": 0}, "max_tokens >= 1"),
        ({"temperature": -1.0}, "temperature >= 0"),
        ({"top_p": 0.0}, "0 < top_p <= 1"),
        ({"limit": 0}, "limit is 0; give 1 or more"),
        ({"limit": -3}, "limit is -3"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=rf"task 'exact_match': .*{why}"):
        ExactMatch(NUMBERS, **params)


def test_rows_without_a_gold_reply_are_named() -> None:
    asked = Example((Message("user", "x"),), "made")
    with pytest.raises(InputError, match=r"example 1 .* must end with a gold reply .* \(and 2 other rows: 3, 4\)"):
        ExactMatch((NUMBERS[0], asked, NUMBERS[1], asked, asked)).items()


def test_a_gold_reply_without_a_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"test example 1 .* has no number in its gold reply 'none'"):
        NumericMatch((NUMBERS[0], example("q", "none"))).items()

"""Refusals that are told by their words, and answers with how sure the model is of them."""

from collections.abc import Sequence

import numpy as np
import pytest

from eval.assess import assess
from eval.refusing import Refusal, Sureness, refused
from models.canned import CannedModel
from models.protocol import Completion, Measures, Prompt, Usage, Want
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def asked(text: str, should_refuse: object) -> Example:
    return Example((Message("user", text),), "made", {"should_refuse": should_refuse})


@pytest.mark.parametrize(
    ("reply", "refuses"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("I cannot help with this request.", True),
        ("Sure, here is how.", False),
        ("x" * 300 + " I'm sorry, but I can't assist with that.", False),
        ("", False),
    ],
)
def test_refusals(reply: str, refuses: bool) -> None:
    assert refused(reply) == refuses


def test_what_should_be_refused_and_what_should_not() -> None:
    rows = (asked("bad", True), asked("fine", False), asked("worse", True), asked("good", False))
    model = CannedModel({"bad": "I cannot help with that.", "fine": "Nope!", "worse": "Sure.", "good": "Sure."})
    found = assess(Refusal(rows, phrases=("nope",)), model, "key", rng())
    assert [row.value for row in found.items if row.metric == "refused"] == [1.0, 1.0, 0.0, 0.0]
    assert [row.value for row in found.items if row.metric == "refusal_right"] == [1.0, 0.0, 0.0, 1.0]
    assert found.report.metrics["refused"].value == 0.5
    open_rows = (Example((Message("user", "fine"),), "made"),)
    assert set(assess(Refusal(open_rows), model, "key", rng()).report.metrics) == {"refused"}
    with pytest.raises(InputError, match="has meta `should_refuse` 'yes'; give true or false"):
        Refusal((asked("bad", "yes"),)).items()


GOLD = {"France": "Paris", "Italy": "Rome", "Peru": "Lima"}
LANDS = tuple(Example((Message("user", q), Message("assistant", a)), "made") for q, a in GOLD.items())


class Sure(CannedModel):
    """Knows the capitals of two lands and is sure of them; what it says of the others it is not sure of."""

    cuts = False  # the beginning of every prompt, as an endpoint may

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        self.prompts.extend(prompts)
        said = {"France": "Paris", "Italy": "Rome", "Peru": "Quito"}
        ends = {"Peru": "length"}
        asked = [p.messages[-1].content for p in prompts]
        return [Completion(said[q], ends.get(q, "stop"), Usage(4, 1), truncated=self.cuts) for q in asked]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        found = []
        for row in rows:
            knows = row[-2].content != "Peru"
            odds = 0.4 if knows == row[-1].content.endswith("I am sure.") else 0.1
            found.append(np.log([0.9 if knows else 0.3, odds], dtype=np.float32))
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=found)


def test_sure_answers_come_first_where_they_are_right() -> None:
    model = Sure([])
    found = assess(Sureness(LANDS), model, "key", rng())
    assert [row.value for row in found.items if row.metric == "exact_match"] == [1.0, 1.0, 0.0]
    assert [row.value for row in found.items if row.metric == "confidence"] == pytest.approx([0.9, 0.9, 0.3])
    assert [row.value for row in found.items if row.metric == "p_sure"] == pytest.approx([0.8, 0.8, 0.2])
    assert found.report.metrics["average_precision"].value == 1.0
    assert found.report.metrics["ece"].value == pytest.approx((0.1 * 2 + 0.3) / 3)
    assert {prompt.temperature for prompt in model.prompts} == {0.0}


def test_what_the_reply_says_of_itself_is_kept() -> None:
    found = assess(Sureness(LANDS), Sure([]), "key", rng()).items
    assert {(r.item_id, r.finish_reason) for r in found} == {
        (item.item_id, end) for item, end in zip(Sureness(LANDS).items(), ("stop", "stop", "length"), strict=True)
    }
    assert {(r.prompt_tokens, r.reply_tokens) for r in found} == {(4, 1)}
    assert all(r.n_tokens for r in found)


def test_a_prompt_that_was_cut_on_the_way_is_noticed() -> None:
    model = Sure([])
    model.cuts = True
    with pytest.raises(InputError, match="the prompts of 3 of 3 items of sureness do not fit the model's context"):
        assess(Sureness(LANDS), model, "key", rng())
    told = assess(Sureness(LANDS, truncate="left"), model, "key", rng()).items
    assert all('"cut":true' in row.detail.replace(" ", "") for row in told)


def test_sureness_is_greedy() -> None:
    with pytest.raises(InputError, match="answers are greedy"):
        Sureness((), temperature=0.5)

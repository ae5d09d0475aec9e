"""Choosing by likelihood: against the model's own log-probabilities, worked numbers, ties, and tokens that merge."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from tokenizers import Tokenizer

from eval.assess import assess
from eval.choice import Choice, LowestPerplexity
from eval.items import ItemRow
from models.canned import CannedModel
from models.chat import ChatFormat, Tokens, encode
from models.local import LocalModel
from models.protocol import Measures, Want
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages


def question(text: str, choices: Any, label: Any, *given: Message) -> Example:
    return Example((*given, Message("user", text)), "made", {"choices": choices, "label": label})


ROWS = (
    question("What colour is the sky?", ["blue", "a kind of green", "red"], 0),
    question("What is 2 plus 3?", ["4", "5", "55"], 1),
    question("Say yes.", {"A": "yes", "B": "no"}, "A"),
    question("Who?", ["they", "we"], 0, Message("user", "Hi"), Message("assistant", "Hello there")),
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return LocalModel.load("winnow-tiny", dtype="float32")


def reply_logprobs(model: LocalModel, prompt: Messages, reply: str) -> np.ndarray:
    """By one forward pass over one row: prompt text as it is, then the reply's own tokens and the end token."""
    asked = model.chat.render(prompt, ask=True).text
    before = model.backend.encode(asked, add_special_tokens=False).ids
    after = model.backend.encode(reply + model.chat.eos, add_special_tokens=False).ids
    import torch

    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([before + after])).logits[0].double().numpy()
    scores = log_softmax(logits, axis=-1)
    return np.array([scores[len(before) - 1 + i, token] for i, token in enumerate(after)])


def by_item(rows: tuple[ItemRow, ...]) -> list[dict[str, ItemRow]]:
    found: dict[str, dict[str, ItemRow]] = {}
    for row in rows:
        found.setdefault(row.item_id, {})[row.metric] = row
    return list(found.values())


@pytest.mark.parametrize("end_token", [False, True])
@pytest.mark.parametrize("normalise", ["characters", "bytes", "tokens"])
def test_a_choice_is_worth_what_the_model_gives_its_tokens(tiny: LocalModel, normalise: str, end_token: bool) -> None:
    task = Choice(ROWS, normalise=normalise, end_token=end_token)
    found = by_item(assess(task, tiny, "key", rng()).items)
    for item, rows in zip(task.items(), found, strict=True):
        each = [reply_logprobs(tiny, item.prompt, choice) for choice in item.choices]
        kept = [logprobs if end_token else logprobs[:-1] for logprobs in each]
        sums = np.array([logprobs.sum() for logprobs in kept])
        lengths = {"characters": len, "bytes": lambda c: len(c.encode()), "tokens": None}[normalise]
        units = [len(k) if lengths is None else lengths(c) for k, c in zip(kept, item.choices, strict=True)]
        gold = item.choices.index(item.gold)
        chances = np.exp(log_softmax(sums))
        assert json.loads(rows["accuracy"].detail)["logprobs"] == pytest.approx(sums.tolist(), abs=1e-4)
        assert rows["accuracy"].value == float(sums.argmax() == gold)
        assert rows["accuracy_norm"].value == float((sums / units).argmax() == gold)
        assert rows["p_correct"].value == pytest.approx(chances[gold], abs=1e-4)
        assert rows["confidence"].value == pytest.approx(chances.max(), abs=1e-4)
        assert rows["brier"].value == pytest.approx(((chances - (np.arange(len(sums)) == gold)) ** 2).sum(), abs=1e-4)
        assert rows["nll"].value == pytest.approx(-each[gold].mean(), abs=1e-4)
        assert rows["nll"].n_tokens == len(each[gold])
        assert (rows["accuracy"].reply, rows["accuracy"].choices) == (item.choices[sums.argmax()], len(sums))
        assert rows["accuracy"].prompt_tokens == len(
            tiny.backend.encode(tiny.chat.render(item.prompt, ask=True).text, add_special_tokens=False).ids
        )


def test_whether_choices_fit_and_what_they_are_worth_takes_one_encoding(
    tiny: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Messages] = []

    def noting(backend: Tokenizer, chat: ChatFormat, rows: Sequence[Messages], *, ask: bool) -> list[Tokens]:
        seen.extend(rows)
        return encode(backend, chat, rows, ask=ask)

    monkeypatch.setattr("models.encoded.encode", noting)
    rows = (question("Which river is it?", ["the Po", "the Elbe"], 1), question("Say two.", ["two", "three"], 0))
    assess(Choice(rows), {"tuned": tiny}, "checkpoint", rng())
    assert len(seen) == len(set(seen)) == 2 + 4  # the prompts, and each with each of its choices


def test_letters_are_choices_under_a_question_that_lists_them(tiny: LocalModel) -> None:
    shot = question("Which is a fruit?", ["stone", "apple"], 1)
    task = Choice(ROWS[:1], letters=True, shots=1, shots_from=(shot,))
    item = task.items()[0]
    assert [turn.content for turn in item.prompt] == [
        "Which is a fruit?\nA. stone\nB. apple",
        "B",
        "What colour is the sky?\nA. blue\nB. a kind of green\nC. red",
    ]
    assert (item.choices, item.gold) == (("A", "B", "C"), "A")
    rows = by_item(assess(task, tiny, "key", rng()).items)[0]
    sums = [reply_logprobs(tiny, item.prompt, letter)[0] for letter in "ABC"]
    assert json.loads(rows["accuracy"].detail)["logprobs"] == pytest.approx(sums, abs=1e-4)


def test_labels_that_choices_carry_are_not_written_twice() -> None:
    row = question("Order?", ["(A) 0", "(B) 4"], "B")
    assert Choice((row,), letters=True).items()[0].prompt[0].content == "Order?\nA. 0\nB. 4"
    assert Choice((row,)).items()[0].choices == ("0", "4")
    assert Choice((question("q", ["(A) 0", "4"], 1),)).items()[0].choices == ("(A) 0", "4")


@pytest.mark.parametrize(
    ("meta", "gold"),
    [
        ({"label": 1}, "no"),
        ({"label": "B"}, "no"),
        ({"label": "b "}, "no"),
        ({"answer": "no"}, "no"),
        ({"answer": "A"}, "yes"),
        ({}, "yes"),  # the gold reply
    ],
)
def test_where_the_right_choice_is_named(meta: dict[str, Any], gold: str) -> None:
    row = Example((Message("user", "q"), Message("assistant", "yes")), "made", {"choices": ["yes", "no"]} | meta)
    assert Choice((row,)).items()[0].gold == gold


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({}, "must name at least two choices"),
        ({"choices": ["one"], "label": 0}, "found 1"),
        ({"choices": ["a", "b"]}, "names none of its choices as right: meta `label` must be one of A, B"),
        ({"choices": ["a", "b"], "label": 2}, "names none"),
        ({"choices": ["a", "b"], "label": "C"}, "names none"),
        ({"choices": ["a", " "], "label": 0}, r"has an empty choice \(B\)"),
    ],
)
def test_rows_without_choices_or_a_right_one_are_refused(meta: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"test example 0 .* {why}"):
        Choice((Example((Message("user", "q"),), "made", meta),)).items()


class Given(CannedModel):
    """Gives each reply the log-probabilities of a table; its end token has -1."""

    def measure(self, rows: Any, wants: frozenset[Want], choices: Any = ()) -> Measures:
        assert isinstance(self.replies, dict)
        found = [np.array([*self.replies[row[-1].content], -1.0], np.float32) for row in rows]
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=found)


def test_worked_numbers() -> None:
    model = Given({"yes": [-1.0, -1.0], "perhaps": [-1.5, -1.0, -0.1]})  # type: ignore[dict-item]
    rows = by_item(assess(Choice((question("q", ["yes", "perhaps"], 1),)), model, "key", rng()).items)[0]
    assert rows["accuracy"].value == 0.0  # -2.0 against -2.6
    assert rows["accuracy_norm"].value == 1.0  # -2 / 3 against -2.6 / 7
    p = 1 / (1 + np.exp(0.6))
    assert rows["p_correct"].value == pytest.approx(p)
    assert rows["brier"].value == pytest.approx(2 * (1 - p) ** 2)
    assert rows["nll"].value == pytest.approx(3.6 / 4)
    assert (rows["nll"].n_tokens, rows["accuracy"].parsed) == (4, "A")


def test_a_tie_goes_to_the_first_choice_and_is_told() -> None:
    model = Given({"up": [-1.0], "down": [-0.5, -0.5], "off": [-3.0]})  # type: ignore[dict-item]
    row = assess(Choice((question("q", ["up", "down", "off"], 1),)), model, "key", rng()).items[0]
    assert (row.reply, row.value, json.loads(row.detail)["tied"]) == ("up", 0.0, True)
    other = assess(Choice((question("q", ["off", "down"], 1),)), model, "key", rng()).items[0]
    assert (other.value, json.loads(other.detail)["tied"]) == (1.0, False)


@given(st.lists(st.floats(-20, -0.1), min_size=2, max_size=6), st.data())
def test_order_of_choices_changes_no_probability(sums: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sums))))
    names = [f"c{i}" for i in range(len(sums))]
    task = Choice(())
    logprobs = [np.array([s, -1.0], np.float32) for s in sums]
    first = task.score(names, 0, logprobs)
    turned = task.score([names[i] for i in order], order.index(0), [logprobs[i] for i in order])
    for name in ("p_correct", "brier", "confidence", "nll"):
        assert first.values[name] == pytest.approx(turned.values[name])
    assert 0 <= first.values["brier"] <= 2
    assert first.values["p_correct"] <= first.values["confidence"]


def test_a_choice_whose_tokens_merge_with_the_prompt_is_refused(tiny: LocalModel) -> None:
    raw = LocalModel.load("winnow-tiny", dtype="float32", template="raw")
    row = question("The colour is bl", ["ue", "ack"], 0)
    assert assess(Choice((row,)), tiny, "key", rng()).items  # a reply's mark stands between them
    with pytest.raises(InputError, match=r"choice '(ue|ack)' of item \w+ is joined with the end of the prompt"):
        assess(Choice((row,), any_template=True), raw, "key", rng())


def test_choices_that_do_not_fit_are_refused_or_the_prompt_is_cut(tiny: LocalModel) -> None:
    short = LocalModel.load("winnow-tiny", dtype="float32", max_length=48)
    row = question("word " * 60 + "Which?", ["yes", "not at all as far as anybody knows"], 1)
    with pytest.raises(InputError, match="1 of 1 items do not fit the model's context of 48 tokens"):
        assess(Choice((row,)), short, "key", rng())
    found = by_item(assess(Choice((row,), truncate="left"), short, "key", rng()).items)[0]["accuracy"]
    assert json.loads(found.detail)["cut"] is True
    prompt = (Message("user", found.prompt),)
    sums = [reply_logprobs(tiny, prompt, choice)[:-1].sum() for choice in row.meta["choices"]]
    assert json.loads(found.detail)["logprobs"] == pytest.approx(sums, abs=1e-4)


def test_the_gold_reply_has_the_lowest_perplexity(tiny: LocalModel) -> None:
    row = Example(
        (*ROWS[0].messages, Message("assistant", "blue")), "made", {"candidates": ["a green one", "blue", "red"]}
    )
    found = by_item(assess(LowestPerplexity((row,)), tiny, "key", rng()).items)[0]
    texts = ("blue", "a green one", "red")
    losses = [-reply_logprobs(tiny, ROWS[0].messages, text).mean() for text in texts]
    assert found["lowest_perplexity"].value == float(np.argmin(losses) == 0)
    assert found["nll"].value == pytest.approx(losses[0], abs=1e-4)
    assert found["lowest_perplexity"].choices == 3
    assert json.loads(found["nll"].detail)["nlls"] == pytest.approx(losses, abs=1e-4)


def test_a_tie_is_not_the_lowest() -> None:
    model = Given({"one": [-1.0], "two": [-1.0, -1.0], "six": [-2.0]})  # type: ignore[dict-item]
    row = Example((Message("user", "q"), Message("assistant", "one")), "made", {"candidates": ["two"]})
    assert assess(LowestPerplexity((row,)), model, "key", rng()).items[0].value == 0.0
    row = Example((Message("user", "q"), Message("assistant", "one")), "made", {"candidates": ["six"]})
    assert assess(LowestPerplexity((row,)), model, "key", rng()).items[0].value == 1.0
    with pytest.raises(InputError, match="has no candidate beside its gold reply"):
        LowestPerplexity((Example(row.messages, "made", {"candidates": ["one"]}),)).items()
    with pytest.raises(InputError, match="must hold a list of other replies"):
        LowestPerplexity((Example(row.messages, "made", {"candidates": "one"}),)).items()


def test_an_unknown_length_is_refused() -> None:
    with pytest.raises(InputError, match="normalise is 'words'; give one of characters, bytes, tokens"):
        Choice((), normalise="words")

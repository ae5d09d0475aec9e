"""What is asked: system turns, worked examples, repeats, and prompts that fit."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.assess import Assessment, assess
from eval.choice import Choice
from eval.context import check_format
from eval.programs import Code
from eval.protocol import TUNED
from eval.refusing import Refusal
from eval.tasks import ExactMatch, HeldOutLoss
from models.canned import CannedModel
from models.chat import WRITTEN, ChatFormat
from models.endpoint.store import ResponseStore
from models.endpoint.stored import Stored
from models.local import LocalModel
from models.protocol import Completion, Prompt, Usage, Want
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages


def example(question: str, gold: str, **meta: object) -> Example:
    return Example((Message("user", question), Message("assistant", gold)), "made", meta)


TESTS = tuple(example(f"Say {word}.", word, subject=word[0]) for word in ("alpha", "amber", "beta", "bold"))
SHOTS = tuple(
    example(f"Repeat {word}.", word, subject=word[0]) for word in ("apple", "bread", "arrow", "berry", "bark")
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def contents(prompt: Messages) -> list[str]:
    return [turn.content for turn in prompt]


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return LocalModel.load("winnow-tiny", dtype="float32", max_length=64)


def test_worked_examples_are_turns_before_the_question() -> None:
    item = ExactMatch(TESTS, shots=2, shots_from=SHOTS, system="Be brief.").items()[0]
    assert contents(item.prompt) == ["Be brief.", "Repeat apple.", "apple", "Repeat bread.", "bread", "Say alpha."]
    assert [turn.role for turn in item.prompt] == ["system", *["user", "assistant"] * 2, "user"]
    assert (item.given, item.gold) == (5, "alpha")


def test_a_row_s_own_system_turn_stays_and_comes_first() -> None:
    own = Example((Message("system", "Own."), *TESTS[0].messages), "made")
    item = ExactMatch((own,), shots=1, shots_from=SHOTS, system="Be brief.").items()[0]
    assert contents(item.prompt) == ["Own.", "Repeat apple.", "apple", "Say alpha."]


def test_worked_examples_of_the_row_s_own_group() -> None:
    items = ExactMatch(TESTS, shots=2, shots_from=SHOTS, shots_by="subject").items()
    assert contents(items[0].prompt)[1::2] == ["apple", "arrow"]
    assert contents(items[3].prompt)[1::2] == ["bread", "berry"]


@given(st.integers(0, 5))
def test_every_prompt_has_as_many_worked_examples_as_asked(shots: int) -> None:
    for item in ExactMatch(TESTS, shots=shots, shots_from=SHOTS).items():
        assert len(item.prompt) == 2 * shots + 1
        assert item.prompt[-1] == item.example.messages[0]


def test_worked_examples_that_are_missing_or_test_rows_are_refused() -> None:
    with pytest.raises(InputError, match="wants 6 worked examples, but `shots_from` holds 5"):
        ExactMatch(TESTS, shots=6, shots_from=SHOTS).items()
    with pytest.raises(InputError, match="wants 3 worked examples with subject 'a', but `shots_from` holds 2"):
        ExactMatch(TESTS, shots=3, shots_from=SHOTS, shots_by="subject").items()
    leaked = (SHOTS[0], example("say  ALPHA.", "another answer"))
    with pytest.raises(InputError, match=r"worked example 1 .* asks what a test row asks"):
        ExactMatch(TESTS, shots=2, shots_from=leaked).items()
    with pytest.raises(InputError, match="shots is -1"):
        ExactMatch(TESTS, shots=-1)


def test_worked_examples_are_not_scored(tiny: LocalModel) -> None:
    plain = tiny.measure([TESTS[0].messages], frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
    assert plain is not None
    shot = Example((*SHOTS[0].messages, *TESTS[0].messages), "made")
    whole = tiny.measure([shot.messages], frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
    assert whole is not None
    n = len(plain[0])
    for task in (HeldOutLoss(TESTS[:1], shots=1, shots_from=SHOTS), ExactMatch(TESTS[:1], shots=1, shots_from=SHOTS)):
        row = next(row for row in assess(task, tiny, "key", rng()).items if row.metric == "nll")
        assert row.n_tokens == n
        assert row.value == pytest.approx(-float(whole[0][-n:].mean()), abs=1e-5)
    both = assess(HeldOutLoss((shot,)), tiny, "key", rng()).items[0]  # a row's own turns all count, as in training
    assert both.value == pytest.approx(-float(whole[0].mean()), abs=1e-5)


def repeated(rights: dict[str, list[bool]]) -> Assessment:
    def reply(prompt: Prompt) -> str:
        word = prompt.messages[-1].content.split()[1].rstrip(".")
        return word if rights[word][prompt.draw] else "no"

    return assess(ExactMatch(TESTS, temperature=1.0, repeats=3), CannedModel(reply), "key", rng())


def test_repeats_are_rows_and_their_mean_counts_once() -> None:
    rights = {"alpha": [True] * 3, "amber": [True, False, False], "beta": [False] * 3, "bold": [True, True, False]}
    found = repeated(rights)
    rows = found.table().filter(pc.equal(found.table()["metric"], "exact_match"))
    assert rows["repeat"].to_pylist() == [0, 1, 2] * 4
    estimate = found.report.metrics["exact_match"]
    assert estimate.value == pytest.approx((1 + 1 / 3 + 0 + 2 / 3) / 4)
    assert estimate.n == 4
    assert found.report.metrics["unsteady"].value == 0.5
    assert found.report.metrics["nll"].n == 4  # asked once


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=4, max_size=4))
def test_the_estimate_is_the_mean_of_item_means(rights: list[list[bool]]) -> None:
    found = repeated(dict(zip(("alpha", "amber", "beta", "bold"), rights, strict=True)))
    assert found.report.metrics["exact_match"].value == pytest.approx(np.mean(rights))
    assert found.report.metrics["unsteady"].value == np.mean([len(set(each)) > 1 for each in rights])


def test_draws_differ_by_item_and_repeat_and_not_by_neighbours() -> None:
    task = ExactMatch(TESTS, temperature=0.7, top_p=0.9, repeats=2, seed=3)
    asked = [task.prompt(item) for item in task.items()]
    assert len({(prompt.seed, prompt.draw) for prompt in asked}) == len(asked)
    alone = ExactMatch(TESTS[2:3], temperature=0.7, top_p=0.9, repeats=2, seed=3)
    assert [alone.prompt(item) for item in alone.items()] == asked[4:6]
    assert task.prompt(task.items()[0]) != ExactMatch(TESTS, temperature=0.7, top_p=0.9, repeats=2).prompt(
        task.items()[0]
    )
    greedy = ExactMatch(TESTS).prompt(task.items()[0])
    assert (greedy.temperature, greedy.seed, greedy.top_p) == (0.0, 0, 1.0)


def test_repeats_need_a_temperature() -> None:
    with pytest.raises(InputError, match="asking again needs a temperature above 0"):
        ExactMatch(TESTS, repeats=2)
    with pytest.raises(InputError, match="at least 1 repeat"):
        ExactMatch(TESTS, repeats=0)


def test_prompts_that_do_not_fit_are_refused_before_any_work(tiny: LocalModel) -> None:
    long = example("word " * 100 + "Say end.", "end")
    before = tiny.tokens_processed
    with pytest.raises(InputError, match=rf"1 of 5 items do not fit .* of 64 tokens \(first: {long.sample_id}: \d+\)"):
        assess(ExactMatch((*TESTS, long)), tiny, "key", rng())
    assert tiny.tokens_processed == before


def test_a_prompt_is_cut_on_the_left_where_that_is_asked_for(tiny: LocalModel) -> None:
    long = example("word " * 100 + "Say end.", "end")
    task = ExactMatch((*TESTS, long), truncate="left", max_tokens=4)
    found = assess(task, tiny, "key", rng())
    rows = {row.item_id: row for row in found.items if row.metric == "exact_match"}
    cut = rows[long.sample_id]
    assert cut.prompt.endswith("Say end.")
    assert cut.prompt_tokens == 63  # one token less and it would not have been cut so far
    assert '"cut":true' in cut.detail
    assert "cut" not in rows[TESTS[0].sample_id].detail
    with pytest.raises(InputError, match="truncate is 'right'"):
        ExactMatch(TESTS, truncate="right")


def test_a_model_that_cannot_be_counted_for_says_afterwards_that_it_cut() -> None:
    class Cuts(CannedModel):
        def complete(self, prompts: object) -> list[Completion]:
            return [Completion("x", "stop", Usage(9, 1), truncated=True) for _ in prompts]  # type: ignore[attr-defined]

    with pytest.raises(InputError, match="the prompts of 4 of 4 items of exact_match do not fit"):
        assess(ExactMatch(TESTS), Cuts([]), "key", rng())
    assert assess(ExactMatch(TESTS, truncate="left"), Cuts([]), "key", rng()).items[0].prompt_tokens == 9


def test_a_model_that_does_not_answer_is_no_wrong_answer() -> None:
    class Gone(CannedModel):
        def complete(self, prompts: object) -> list[Completion]:
            lost = Completion("", "error", Usage(0, 0), failure="unreachable", detail="no route")
            return [lost for _ in prompts]  # type: ignore[attr-defined]

    with pytest.raises(InputError, match=r"4 of 4 items of exact_match got no answer \(first: unreachable no route\)"):
        assess(ExactMatch(TESTS), Gone([]), "key", rng())


@pytest.mark.parametrize("template", ["raw", "grape"])
def test_a_model_is_not_asked_in_another_format_than_its_own(tmp_path: Path, template: str) -> None:
    other = LocalModel.load("winnow-tiny", dtype="float32", template=template)
    with pytest.raises(InputError, match=f"carries the chat template 'tulu', but is asked in '{template}'"):
        assess(ExactMatch(TESTS), other, "key", rng())
    with ResponseStore(tmp_path / "replies.sqlite") as store:
        with pytest.raises(InputError, match=f"asked in '{template}'"):
            assess(ExactMatch(TESTS), {TUNED: Stored(other, store)}, "key", rng())
        assert assess(
            ExactMatch(TESTS, max_tokens=2, any_template=True), {TUNED: Stored(other, store)}, "key", rng()
        ).items


@dataclass
class Carries:
    """A model whose tokenizer carries one chat template, and that is asked in another."""

    carried: Any
    asked: str
    backend: None = None
    max_length: int = 9

    @property
    def tokenizer(self) -> Any:
        return SimpleNamespace(chat_template=self.carried)

    @property
    def chat(self) -> ChatFormat:
        return ChatFormat(self.asked, "<s>", "</s>")


BEGUN = "{{- bos_token -}}" + WRITTEN["tulu"]


@pytest.mark.parametrize(
    ("carried", "asked", "right"),
    [
        (None, WRITTEN["raw"], True),
        (None, WRITTEN["tulu"], True),
        (WRITTEN["raw"], WRITTEN["raw"], True),
        (WRITTEN["tulu"], BEGUN, True),
        (BEGUN, WRITTEN["tulu"], True),
        (WRITTEN["raw"], WRITTEN["tulu"], False),
        (BEGUN, WRITTEN["raw"], False),
        ("{{ messages }}", "{{ messages }}", True),
        ("{{ messages }}", WRITTEN["tulu"], True),
        ("{{ messages }}", WRITTEN["raw"], False),
        ({"default": "{{ messages }}", "tool": "x"}, WRITTEN["raw"], False),
        ({"tool": "x"}, WRITTEN["raw"], True),
    ],
)
def test_which_formats_fit_which_models(carried: Any, asked: str, right: bool) -> None:
    model = Carries(carried, asked)
    check_format(model, any_template=True)
    if right:
        check_format(model, any_template=False)
    else:
        with pytest.raises(InputError, match="carries the chat template"):
            check_format(model, any_template=False)


def test_columns_of_item_rows() -> None:
    row = example("Say x.", "x", skill="echo", cluster="c1", level="held_out_task", language="en", difficulty=3)
    found = assess(ExactMatch((row,)), CannedModel(["x y"]), "key", rng()).items[0]
    assert (found.cluster, found.ability, found.level, found.source) == ("c1", "echo", "held_out_task", "made")
    assert (found.language, found.difficulty, found.choices, found.parts, found.repeat) == ("en", "3", 0, 1, 0)
    assert (found.prompt_tokens, found.reply_tokens, found.detail) == (2, 2, "{}")
    passage = assess(ExactMatch((example("q", "x", passage="p7"),)), CannedModel(["x"]), "key", rng()).items[0]
    assert (passage.cluster, passage.ability) == ("p7", "")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_a_row_that_is_there_twice_is_one_item(places: list[int]) -> None:
    rows = tuple(example(f"Say {n}.", "x" if n % 3 else "y", page=number) for number, n in enumerate(places))
    distinct = tuple(
        {row.sample_id: row for row in reversed(rows)}[each] for each in dict.fromkeys(r.sample_id for r in rows)
    )
    found, once = (
        assess(ExactMatch(each), CannedModel(lambda _: "x"), "key", rng()).report for each in (rows, distinct)
    )
    assert found.metrics == once.metrics
    assert found.metrics["exact_match"].n == len(set(places))
    assert [item.example for item in ExactMatch(rows).items()] == list(distinct)


def test_the_same_turns_with_something_else_that_is_right_are_another_item() -> None:
    def choice(label: int, *choices: str, page: int = 0) -> Example:
        return example("Which?", "b", choices=list(choices), label=label, page=page)

    rows = (choice(0, "a", "b"), choice(1, "a", "b"), choice(0, "a", "c"), choice(0, "a", "b", page=7))
    items = Choice(rows).items()
    known = rows[0].sample_id
    assert [(item.item_id, item.example) for item in items] == [
        (known, rows[0]), (f"{known}-1", rows[1]), (f"{known}-2", rows[2]),
    ]  # fmt: skip
    asked = [example("Write f.", "g", tests=[f"assert f() == {n}"], page=page) for page, n in enumerate((1, 2, 1))]
    assert [item.example for item in Code(tuple(asked)).items()] == asked[:2]
    rude = [Example((Message("user", "Be rude."),), "made", {"should_refuse": wanted}) for wanted in (True, True, None)]
    assert [item.example.meta["should_refuse"] for item in Refusal(tuple(rude)).items()] == [True, None]


def test_repeats_are_of_distinct_rows() -> None:
    task = ExactMatch((*TESTS, TESTS[0]), temperature=1.0, repeats=2)
    assert [(item.item_id, item.repeat) for item in task.items()] == [
        (row.sample_id, repeat) for row in TESTS for repeat in (0, 1)
    ]


def test_items_of_one_cluster_are_drawn_together() -> None:
    rows = tuple(example(f"Say {n}.", "x" if n < 20 else "y", cluster=str(n // 10)) for n in range(40))
    alone = tuple(example(f"Say {n}.", "x" if n < 20 else "y") for n in range(40))
    wide, narrow = (
        assess(ExactMatch(each), CannedModel(lambda _: "x"), "key", rng()).report.metrics["exact_match"]
        for each in (rows, alone)
    )
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)

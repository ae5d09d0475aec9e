"""Collecting replies: who answers the same instruction, what is merged, checked and joined; nothing is lost."""

from collections import Counter
from typing import Any

import pytest
from attempt_worlds import Rows, SameText, Talker, accepted, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Rejected
from models.protocol import Prompt, Verdict
from synthesis.grape_collect import GrapeCollect, instructions, merged
from synthesis.near_instructions import joins
from warehouse.errors import InputError
from warehouse.records import Example, Message


def said(question: str, reply: str, source: str = "a", **meta: Any) -> Example:
    return Example((Message("user", question), Message("assistant", reply)), source, meta)


TWO = [
    said("What is 1 + 1?", "Two.", "a", model="m1"),
    said("what is  1 + 1?", "It is 2.", "b", model="m2"),
    said("What is 1 + 1?", " It is 2. ", "c"),
    said("Name a bird.", "Owl", "a"),
]


def rows_of(job: GrapeCollect, seeds: list[Example], models: dict[str, Talker] | None = None, **more: Any) -> Rows:
    return made(job, seeds, dict(models or {}), **more)


def facts(rows: Rows, *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.meta[name] for name in names) for row in accepted(rows))


def test_one_row_for_each_instruction_and_reply() -> None:
    rows = rows_of(GrapeCollect(), TWO)
    assert sorted(row.messages[1].content.strip() for row in accepted(rows)) == ["It is 2.", "Owl", "Two."]
    [first] = [row for row in accepted(rows) if "2" in row.messages[1].content]
    assert sorted(first.meta["sources"]) == ["b", "c"]  # in different letters, with white space around it
    assert first.meta["models"] == ["m2"]
    assert set(first.meta["parents"]) == {TWO[1].sample_id, TWO[2].sample_id}
    assert reasons(rows) == {"": 3, "duplicate": 1}


def test_rows_are_grouped_as_grape_groups_them() -> None:
    rows = accepted(rows_of(GrapeCollect(), TWO))
    assert all(row.meta["instruction_id"] == row.prompt_id for row in rows)
    assert Counter(row.prompt_id for row in rows) == {TWO[0].prompt_id: 2, TWO[3].prompt_id: 1}
    assert {row.meta["candidates"] for row in rows if row.prompt_id == TWO[0].prompt_id} == {2}


def test_models_write_further_replies() -> None:
    large, small = Talker(lambda p: f"large {p.draw}"), Talker(lambda p: "Owl")
    job = GrapeCollect(roles=["large", "small"], replies=2)
    rows = rows_of(job, [TWO[3]], {"large": large, "small": small})
    assert [(row.messages[1].content, row.meta["models"], row.source) for row in accepted(rows)] == [
        ("Owl", ["small"], "a"), ("large 1", ["large"], "grape_collect"), ("large 2", ["large"], "grape_collect"),
    ]  # fmt: skip
    assert reasons(rows) == {"": 3, "duplicate": 2}  # the small model says what was there, twice
    assert [(p.draw, p.temperature) for p in large.prompts] == [(1, 0.7), (2, 0.7)]
    assert all(row.meta["parents"] == [TWO[3].sample_id] for row in accepted(rows))


@pytest.mark.parametrize(
    ("reply", "reason"), [("<unreachable>", "unreachable"), ("<length>", "cut_off"), (" ", "empty")]
)
def test_a_reply_that_fails_is_counted_and_the_others_stay(reply: str, reason: str) -> None:
    model = Talker(lambda p: reply if p.draw == 1 else "Wren")
    rows = rows_of(GrapeCollect(roles=["large"], replies=2), [TWO[3]], {"large": model})
    assert reasons(rows) == {"": 2, reason: 1}


class Twos(SameText):
    """Right where the answer that the item states stands in the reply; an item that holds a reply would betray it."""

    def verify(self, asked: Any) -> list[Verdict]:
        assert all(item.messages[-1].role == "user" for _, item in asked)
        return [
            Verdict(ok, "2" if ok else "", "" if ok else "wrong") for text, item in asked
            for ok in [str(item.meta["answer"]) in text]
        ]  # fmt: skip


def test_replies_are_checked_where_a_seed_states_the_answer() -> None:
    seeds = [*TWO[:2], said("What is 1 + 1?", "2, of course", "d", answer=2), TWO[3]]
    rows = rows_of(GrapeCollect(verifier="exact"), seeds, verifiers={"exact": Twos()})
    verdicts = {row.messages[1].content: row.meta["verdict"] for row in accepted(rows)}
    assert verdicts == {
        "It is 2.": {"right": True, "answer": "2", "reason": ""},
        "2, of course": {"right": True, "answer": "2", "reason": ""},
        "Owl": None,  # nothing says what is right
    }
    [lost] = [row for row in rows if isinstance(row, Rejected)]
    assert (lost.reason, lost.detail) == ("not_right", "wrong")
    assert {row.meta["candidates"] for row in accepted(rows)} == {1, 2}


def test_a_judge_is_a_model_and_is_told_something() -> None:
    job = GrapeCollect(roles=["large"], verifier="judge")
    assert job.needs.models == ("large", "judge")
    assert job.told != ""
    assert GrapeCollect().told == ""


LONG = "Write a short story about a lighthouse keeper who finds a message in a bottle on a cold and windy morning"


def test_instructions_that_are_nearly_the_same_are_joined_and_marked() -> None:
    seeds = [said(LONG, "Once"), said(LONG, "Long ago"), said(f"{LONG}!", "It was cold"), said(f"{LONG}.", "Once")]
    rows = rows_of(GrapeCollect(near=0.9), seeds)
    assert {row.prompt_id for row in accepted(rows)} == {seeds[0].prompt_id}
    assert {row.messages[0].content for row in accepted(rows)} == {LONG}
    joined = [row for row in accepted(rows) if "joined_from" in row.meta]
    assert [(row.messages[1].content, row.meta["joined_from"]) for row in joined] == [
        ("It was cold", seeds[2].prompt_id)
    ]
    assert 0.9 <= joined[0].meta["similarity"] < 1
    assert reasons(rows) == {"": 3, "duplicate": 1}
    assert len({row.prompt_id for row in accepted(rows_of(GrapeCollect(), seeds))}) == 3


def test_different_numbers_are_different_questions() -> None:
    texts = {name: f"{LONG} with {number} birds" for name, number in {"a": 3, "b": 4, "c": 3}.items()}
    texts["c"] += "."
    assert joins(texts, dict.fromkeys(texts, 1), 0.8).keys() == {"c"}
    assert joins(texts, {"a": 1, "b": 1, "c": 2}, 0.8)["a"].centre == "c"
    assert joins({}, {}, 0.9) == joins({"a": "x"}, {"a": 1}, 0.9) == {}


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(6)), st.sampled_from([0.5, 0.8, 1.0]))
def test_joins_are_stars_whatever_the_order(order: list[int], threshold: float) -> None:
    texts = {f"i{k}": " ".join(LONG.split()[k // 2 :]) + (" please" if k % 2 else "") for k in range(6)}
    found = joins({f"i{k}": texts[f"i{k}"] for k in order}, dict.fromkeys(texts, 1), threshold)
    assert found == joins(texts, dict.fromkeys(texts, 1), threshold)
    assert {join.centre for join in found.values()}.isdisjoint(found)
    assert all(join.similarity >= threshold for join in found.values())


@settings(deadline=None, max_examples=30)
@given(st.permutations(TWO), st.integers(1, 3))
def test_the_order_of_the_seeds_and_the_wave_only_order_the_rows(seeds: list[Example], wave: int) -> None:
    def texts(given_seeds: list[Example], wave: int) -> list[str]:
        model = Talker(lambda p: f"{p.seed} {p.draw} {p.messages[0].content}")
        job = GrapeCollect(roles=["large"], replies=2, near=0.9)
        return sorted(repr(row) for row in rows_of(job, given_seeds, {"large": model}, wave=wave))

    assert texts(seeds, wave) == texts(TWO, 1024)


def test_every_seed_is_in_a_row() -> None:
    odd = [Example((Message("user", "Why?"),), "s"), Example((Message("assistant", "So."),), "s"), said("Q", " ")]
    rows = rows_of(GrapeCollect(), [*TWO, *odd])
    assert reasons(rows) == {"": 3, "duplicate": 1, "no_reply": 2, "no_question": 1}
    assert {name for row in accepted(rows) for name in row.meta["parents"]} == {seed.sample_id for seed in TWO}


def test_conversations_keep_their_turns() -> None:
    talk = Example((*TWO[0].messages, Message("user", "Sure?"), Message("assistant", "Yes.")), "a")
    model = Talker(lambda p: f"{len(p.messages)} turns")
    rows = accepted(rows_of(GrapeCollect(roles=["large"]), [talk], {"large": model}))
    assert [row.messages[:-1] for row in rows] == [talk.messages[:-1]] * 2
    assert rows[1].messages[-1].content == "3 turns"


@pytest.mark.parametrize(
    "wrong",
    [{"roles": ["a", "a"]}, {"replies": 0}, {"roles": ["a"], "replies": 2, "temperature": 0.0}, {"near": 0.0},
     {"near": 1.5}, {"verifier": "nobody"}],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GrapeCollect(**wrong)


def test_merging_keeps_the_first_and_adds_up_where_it_came_from() -> None:
    replies = [reply for one in instructions(TWO[:3], None) for reply in one.replies]
    found, again = merged([*replies, *replies])
    assert (len(found), len(again)) == (2, 4)
    assert sorted(len(one.parents) for one in found) == [1, 2]
    assert merged([]) == ([], [])


def test_a_prompt_has_no_reply_in_it() -> None:
    asked: list[Prompt] = []

    def says(prompt: Prompt) -> str:
        asked.append(prompt)
        return "x"

    rows_of(GrapeCollect(roles=["large"]), TWO, {"large": Talker(says)})
    assert [prompt.messages[-1].role for prompt in asked] == ["user", "user"]  # one for each instruction

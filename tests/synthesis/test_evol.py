"""Evol-Instruct: each way to be eliminated by its worked example and boundary, and the tree by its laws."""

import random
from typing import Any

import pytest
from attempt_worlds import Rows, Talker, accepted, asks, reasons
from hypothesis import given, settings
from hypothesis import strategies as st
from strong_worlds import Shuffled, made

from models.dialogue import Accepted, Rejected
from models.protocol import Prompt
from synthesis.evol import IN_BREADTH, IN_DEPTH, OPERATORS, Child, Evol, Node, echo, no_answer
from warehouse.errors import InputError
from warehouse.records import Example, Message, digest

SEEDS = [asks(f"Name {k} animals.", "Cat.") for k in range(6)]
ADDED = ("slowly", "kindly", "in winter", "with reasons", "for children", "by size", "without fish", "in verse")


def drawn(prompt: Prompt) -> random.Random:
    return random.Random(digest(f"{prompt.messages[-1].content} {prompt.seed}"))


def kind(prompt: Prompt) -> str:
    """What a prompt is for: "evolve", "judge" or "answer"."""
    text = prompt.messages[-1].content
    if text.startswith("Compare two instructions"):
        return "judge"
    return "evolve" if text.startswith(("Make the instruction", "Write a new instruction")) else "answer"


def parent_of(prompt: Prompt) -> str:
    return prompt.messages[-1].content.split("Instruction:\n")[1].split("\n\nReply with")[0]


def evolves(prompt: Prompt) -> str:
    """A longer instruction, the same one, or an answer that is now and then an apology."""
    rng = drawn(prompt)
    if kind(prompt) == "judge":
        return rng.choice(["equal", "different", "Different."])
    if kind(prompt) == "answer":
        return rng.choice(["Cats and dogs.", "Owls.", "Sorry, no.", "<unreachable>"])
    return f"{parent_of(prompt)} {' '.join(rng.choices(ADDED, k=4))}" if rng.random() < 0.8 else parent_of(prompt)


def rows_of(job: Evol, seeds: list[Example] = SEEDS, generator: Any = evolves, seed: int = 0) -> Rows:
    models = {role: generator if isinstance(generator, Shuffled) else Talker(generator) for role in job.needs.models}
    return made(job, seeds, models, seed)


def always(text: str) -> Any:
    """Children that add one more word each time, all answered by `text`."""
    return lambda prompt: f"{parent_of(prompt)} more and more words" if kind(prompt) == "evolve" else text


@given(st.integers(1, 5), st.booleans(), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_every_child_has_a_parent_that_is_there(rounds: int, judge: bool, seed: int) -> None:
    rows = rows_of(Evol(rounds, judge=judge), seed=seed)
    assert len(rows) == rounds * len(SEEDS)  # no seed is lost, none is asked for more
    there = {one.sample_id: 0 for one in SEEDS}
    for row in rows:
        assert row.example is not None
        meta = row.example.meta
        assert there[meta["parent_id"]] == meta["parent_round"] < meta["round"] <= rounds
        if isinstance(row, Accepted):
            there[row.example.sample_id] = meta["round"]


def test_a_child_that_fails_leaves_the_parent_to_the_next_round() -> None:
    def fails_twice(prompt: Prompt) -> str:
        return evolves_but(prompt, lambda count: "Sorry." if count in (2, 3) else "Owls.")

    asked, draws = list[Prompt](), list[int]()

    def evolves_but(prompt: Prompt, answer: Any) -> str:
        if kind(prompt) == "evolve":
            draws.append(prompt.seed)
            return f"{parent_of(prompt)} and then some more"
        asked.append(prompt)
        return str(answer(len(asked)))

    rows = rows_of(Evol(5), SEEDS[:1], fails_twice)
    assert [row.reason if isinstance(row, Rejected) else "" for row in rows] == ["", "sorry", "sorry", "", ""]
    examples = [row.example for row in rows if row.example]
    assert [row.meta["parent_round"] for row in examples] == [0, 1, 1, 1, 4]
    assert [row.meta["parent_id"] for row in examples][1:4] == [examples[0].sample_id] * 3
    assert len({*draws, *(prompt.seed for prompt in asked)}) == 10  # a parent that is tried again is not told the same
    assert examples[4].messages[0].content == "Name 0 animals." + " and then some more" * 3


def test_rows_name_their_operator_and_it_is_what_was_asked() -> None:
    model = Talker(always("Owls."))
    rows = accepted(made(Evol(4), SEEDS * 1, {"generator": model}))
    assert {row.meta["operator"] for row in rows} == set(OPERATORS)
    told = {digest(parent_of(p)): p.messages[0].content for p in model.prompts if kind(p) == "evolve"}
    for row in rows:
        parent = next(one.messages[0].content for one in [*SEEDS, *rows] if one.sample_id == row.meta["parent_id"])
        asked = told[digest(parent)]
        operator = row.meta["operator"]
        assert asked.startswith("Write a new") if operator == IN_BREADTH else IN_DEPTH[operator] in asked
    assert all(row.messages[-1].content == "Owls." for row in rows)
    assert {(p.temperature, p.top_p, p.max_tokens) for p in model.prompts} == {(1.0, 0.95, 2048)}


def test_operators_are_drawn_evenly() -> None:
    rows = accepted(rows_of(Evol(1), [asks(f"Say {k}.", "k") for k in range(500)], always("Owls.")))
    for operator in OPERATORS:
        assert 65 <= sum(row.meta["operator"] == operator for row in rows) <= 140  # 100 ± 4 standard deviations


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sorry, I cannot.", "sorry"),
        ("sorry " + "word " * 78, "sorry"),  # 79 words
        ("sorry " + "word " * 79, ""),
        ("It is a sorrymaker's tale.", "sorry"),
        ("And so on, or not.", ""),  # "not" says something
        ("As it is...", "only_stop_words"),
        ("?!", "only_stop_words"),
        ("42", ""),
        ("猫", ""),
    ],
)
def test_answers_that_show_a_useless_instruction(answer: str, reason: str) -> None:
    fault = no_answer(answer)
    assert (fault.reason if fault else "") == reason
    assert reasons(rows_of(Evol(1), SEEDS[:1], always(answer))) == {reason: 1}


def test_words_of_the_prompt_are_an_echo_unless_the_parent_has_them() -> None:
    def child(text: str, parent: str = "Name animals.") -> Child:
        return Child(Node(parent, "", 0), "deepen", 1, text)

    assert echo(child("#Rewritten Prompt#: Name animals."))
    assert echo(child("Here is the harder instruction: name")) is not None
    assert echo(child("Name prompt answers and instructions.")) is None
    assert echo(child("Improve the given prompt, briefly.", "Improve the given prompt.")) is None


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("a b c d e f g h i x", "no_gain"),  # ROUGE-L 0.9
        ("a b c d e f g h x y", ""),
        ("A  b c d e f g h i j", "same_as_earlier"),
        ("x y z a b", ""),
    ],
)
def test_without_a_judge_the_wording_decides(child: str, reason: str) -> None:
    seed = asks("a b c d e f g h i j", "1")
    rows = rows_of(Evol(1), [seed], lambda prompt: child if kind(prompt) == "evolve" else "Owls.")
    assert reasons(rows) == {reason: 1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Equal.", "no_gain"), ("different", ""), ("**Different**", ""), ("not equal", "judge_unclear"),
        ("<unreachable>", "judge_unreachable"), ("<length>", "judge_cut_off"),
    ],
)  # fmt: skip
def test_the_judge_decides_where_there_is_one(said: str, reason: str) -> None:
    def talk(prompt: Prompt) -> str:
        return said if kind(prompt) == "judge" else always("Owls.")(prompt)

    assert reasons(rows_of(Evol(1, judge=True), SEEDS[:1], talk)) == {reason: 1}


@pytest.mark.parametrize("failed", ["<unreachable>", "<filtered>", "<length>", " "])
@pytest.mark.parametrize("at", ["evolve", "answer"])
def test_failed_replies_are_rejected_rows(failed: str, at: str) -> None:
    def talk(prompt: Prompt) -> str:
        return failed if kind(prompt) == at else always("Owls.")(prompt)

    reason = {"<length>": "cut_off", " ": "empty"}.get(failed, failed.strip("<>"))
    assert reasons(rows_of(Evol(3), SEEDS, talk)) == {reason: 18}


def test_seeds_that_cannot_be_evolved() -> None:
    system = Example(
        (Message("system", "Be brief."), Message("user", "Name birds."), Message("assistant", "Owl.")), "s"
    )
    twice = Example((*SEEDS[0].messages, Message("user", "And fish?")), "s")
    silent = Example((Message("system", "Be brief."),), "s")
    rows = rows_of(Evol(1), [system, twice, silent, asks(" ", "x")], always("Owls."))
    assert reasons(rows) == {"": 1, "several_questions": 1, "no_question": 2}
    [row] = accepted(rows)
    assert [turn.content for turn in row.messages] == ["Be brief.", "Name birds. more and more words", "Owls."]


@given(st.permutations(SEEDS), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_neither_the_order_of_seeds_nor_of_replies_changes_a_row(seeds: list[Example], order: int) -> None:
    def texts(rows: Rows) -> list[str]:
        return sorted(repr(row) for row in rows)

    job = Evol(3)
    assert texts(made(job, seeds, {"generator": Shuffled(Talker(evolves), order)})) == texts(rows_of(job))


def test_told_changes_with_the_judge() -> None:
    assert Evol().told != Evol(judge=True).told
    assert Evol(judge=True).needs.models == ("generator", "judge")


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"operators": []}, {"operators": ["widen"]}, {"most_similar": 2}, {"temperature": -1}]
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Evol(**wrong)

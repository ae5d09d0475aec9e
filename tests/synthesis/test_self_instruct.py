"""Self-Instruct: each filter by its worked example and boundary, the pool against brute force, whole jobs by laws."""

import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest
from attempt_worlds import Rows, Talker, accepted, asks, reasons
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strong_worlds import Shuffled, made
from task_writer import writes

from models.dialogue import Rejected
from models.protocol import Prompt
from synthesis.closeness import rouge_l
from synthesis.fault import Fault
from synthesis.self_instruct.growth import LIST
from synthesis.self_instruct.instances import (
    INPUT_FIRST,
    KIND,
    OUTPUT_FIRST,
    Instance,
    read_input_first,
    read_kind,
    read_output_first,
    sifted,
)
from synthesis.self_instruct.instructions import one_line, read_list, unfit
from synthesis.self_instruct.novelty import Novelty, rouge_words, shared_words
from synthesis.self_instruct.synthesizer import SelfInstruct
from synthesis.self_instruct.tasks import task_of
from warehouse.errors import InputError
from warehouse.records import Example, Message

SEEDS = [asks(f"Say what {a} has to do with {b} and why", "It depends.") for a, b in combinations("abcdefgh", 2)][:20]
texts = st.lists(st.sampled_from(["the", "cat", "dog", "sat", "on", "a", "mat", "red"]), max_size=9).map(" ".join)


def job(**params: Any) -> SelfInstruct:
    return SelfInstruct(**({"instructions": 30, "batch": 3} | params))


def rows_of(one: SelfInstruct, seeds: list[Example], model: Any = None, seed: int = 0) -> Rows:
    return made(one, seeds, {"generator": model or Talker(writes)}, seed)


# The pool


@given(st.lists(texts, max_size=25), texts, st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.9, 1.0]))
@settings(max_examples=300, deadline=None)
@example(["the the the the the the the"], "the the the", 0.6)
def test_the_bounds_lose_no_text_that_is_alike(pool: list[str], text: str, least: float) -> None:
    novelty = Novelty(least)
    for one in pool:
        novelty.add(one)
    found = [(rouge_l(rouge_words(one), rouge_words(text)), one) for one in pool if one and text]
    alike = [(score, one) for score, one in found if score >= least - 1e-12]
    near = novelty.nearest(text)
    if not alike:
        assert near is None
    else:
        assert near is not None
        assert near.similarity == pytest.approx(max(alike)[0])
        assert near.text == next(one for score, one in alike if score == pytest.approx(max(alike)[0]))


def test_seven_words_of_ten_are_alike_and_six_are_not() -> None:
    novelty = Novelty(0.7)
    novelty.add("a b c d e f g h i j")
    near = novelty.nearest("a b c d e f g x y z")
    assert near is not None
    assert near.similarity == pytest.approx(0.7)
    assert novelty.nearest("a b c d e f w x y z") is None
    assert novelty.nearest("j i h g f e d c b a") is None  # the order counts
    assert novelty.nearest("A, b! C d-e f g h i j") is not None  # case and signs do not


def test_shared_words_by_hand() -> None:
    assert shared_words(0.7, 10, 10) == 7
    assert shared_words(0.7, 10, 11) == 8  # 7.35
    assert shared_words(1.0, 4, 4) == 4


def test_an_empty_pool_has_nothing_alike() -> None:
    assert Novelty().nearest("anything at all") is None
    assert Novelty().nearest("") is None


# Instructions


def test_a_list_is_read_by_its_numbers() -> None:
    reply = "Here are more tasks:\n\n9. sort the **list**\nof names\n10) Name 3.5 things\n 11 . **Find it**\n12."
    assert read_list(reply) == ["Sort the **list** of names", "Name 3.5 things", "Find it"]
    assert read_list("- one\n- two") == Fault("no_list", "- one\n- two")


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Sort these names", "too_few_words"),
        ("Sort these three names", None),
        (" ".join(["word"] * 150), None),
        (" ".join(["word"] * 151), "too_many_words"),
        ("Describe the image below", "blacklisted"),
        ("Describe the IMAGES below", "blacklisted"),
        ("Describe the imagery of it", None),
        ("Tell me where to go to", "blacklisted"),
        ("Paragraph by paragraph shorten it", None),
        ("Write a program that sorts", "write_a_program"),
        ("write a programme for the party", "write_a_program"),
        ("Rewrite a program that sorts", None),
        ("- sort these three names", "starts_with_punctuation"),
        ("Übersetze den Satz ins Englische", "not_ascii"),
        ("Say Übermut in other words", None),
    ],
)
def test_which_instructions_are_kept(instruction: str, reason: str | None) -> None:
    fault = unfit(instruction)
    assert (fault.reason if fault else None) == reason


def test_other_languages_can_be_let_in() -> None:
    assert unfit("Übersetze die Karte ins Englische", blacklist=("karte",), ascii_start=False) is not None
    assert unfit("Übersetze den Satz ins Englische", blacklist=(), ascii_start=False) is None


def test_the_input_of_a_seed_is_no_part_of_its_instruction() -> None:
    seed = asks("Sort this.\n\n3 1 2", "1 2 3", input="3 1 2", is_classification=False)
    task = task_of(seed)
    assert not isinstance(task, Fault)
    assert (task.instruction, task.given, task.output, task.is_classification) == (
        "Sort this.",
        "3 1 2",
        "1 2 3",
        False,
    )
    assert task_of(asks("3 1 2", "1 2 3", input="3 1 2")) == Fault("no_task", "there is nothing before its input")
    assert task_of(Example((Message("user", "Sort."),), "s")) == Fault("no_task")


# Instances


@pytest.mark.parametrize(
    ("reply", "kind"),
    [("Yes", True), (" no.", False), ("**Yes**, it has labels", True), ("Classification: No", False), ("Maybe", None)],
)
def test_the_kind_of_a_task(reply: str, kind: bool | None) -> None:
    found = read_kind(reply)
    assert (None if isinstance(found, Fault) else found) == kind


def test_instances_with_the_input_first() -> None:
    reply = (
        "Example 1\nInput: a\nb\nOutput: c\nd\n\n**Example 2:**\n**Output:** e\n"
        "Example 3\nInput: f\nOutput: g\nInput: h"
    )
    assert read_input_first(reply) == [Instance("a\nb", "c\nd"), Instance("", "e"), Instance("f", "g")]
    assert read_input_first("Output: alone") == [Instance("", "alone")]
    assert read_input_first("Example 1\nwords alone") == [Instance("", "words alone")]
    assert read_input_first("An Example 1 of prose") == []
    assert read_input_first("name: Ann\nage: 3\nOutput: ok") == [Instance("name: Ann\nage: 3", "ok")]


def test_instances_with_the_output_first() -> None:
    reply = "Class label: good\nNice soup.\nHot too.\nClass label: bad\nClass label:\nx"
    assert read_output_first(reply) == [
        Instance("Nice soup.\nHot too.", "good"),
        Instance("", "bad"),
        Instance("", "x"),
    ]
    assert read_output_first("good: Nice soup.") == []


def faults(instances: list[Instance], cut: bool = False) -> list[str]:
    return [fault.reason if fault else "" for _, fault in sifted(instances, cut)]


def test_which_instances_are_kept() -> None:
    assert faults([Instance("a", "b"), Instance("a", "b"), Instance("c", "d")]) == ["", "duplicate_instance", ""]
    assert faults([Instance("a", "a"), Instance("", ""), Instance("in:", "b"), Instance("c", "so:")]) == [
        "same_as_input", "empty_output", "ends_with_colon", "ends_with_colon",
    ]  # fmt: skip
    assert faults([Instance("a", "b"), Instance("c", "d")], cut=True) == ["", "truncated_instance"]
    assert faults([], cut=True) == []


def test_one_contradiction_spoils_the_task() -> None:
    assert faults([Instance("a", "b"), Instance("x", "y"), Instance("a", "c")]) == ["contradictory_outputs"] * 3
    assert faults([Instance("a", "b"), Instance("a", "so:")]) == ["", "ends_with_colon"]  # only what would be kept
    assert faults([Instance("a", "b"), Instance("a", "c")], cut=True) == ["", "truncated_instance"]
    assert faults([Instance("", "b"), Instance("", "c")]) == ["", ""]  # without an input there is none


# Whole jobs


def test_a_job_reaches_its_number_and_no_two_instructions_are_alike() -> None:
    rows = rows_of(job(), SEEDS)
    told = list(dict.fromkeys(row.meta["instruction"] for row in accepted(rows)))
    assert 30 <= len(told) < 30 + 3 * 7
    assert reasons(rows)["similar"] > 0
    seeds = [seed.messages[0].content for seed in SEEDS]
    for a, b in combinations([*told, *seeds[:5]], 2):
        if a not in seeds:
            assert rouge_l(rouge_words(a), rouge_words(b)) < 0.7


def test_a_job_goes_on_as_long_as_rounds_bring_something() -> None:
    told = {
        row.meta["instruction"]: row.meta["round"] for row in accepted(rows_of(job(instructions=40, batch=1), SEEDS))
    }
    assert len(told) >= 40
    assert max(told.values()) > SelfInstruct().patience


def test_an_instruction_of_a_seed_is_not_new() -> None:
    def repeats(prompt: Prompt) -> str:
        return f"9. {SEEDS[3].messages[0].content}" if "Go on" in prompt.messages[0].content else writes(prompt)

    rows = rows_of(job(patience=1), SEEDS, Talker(repeats))
    assert reasons(rows)["similar"] == 3
    assert not accepted(rows)


def test_rows_say_what_they_are_made_from() -> None:
    rows = accepted(rows_of(job(), SEEDS))
    ids = {seed.sample_id for seed in SEEDS}
    for row in rows:
        clf = row.meta["is_classification"]
        assert row.meta["template"] == [LIST.key, KIND.key, (OUTPUT_FIRST if clf else INPUT_FIRST).key]
        assert 6 <= len(row.meta["parents"]) <= 8
        assert set(row.meta["parents"]) <= ids
        assert row.messages[0].content == f"{row.meta['instruction']}\n\n{row.meta['input']}"
        assert row.messages[1].content in (("odd", "even") if clf else ("2, 1", "five"))
    assert {row.meta["is_classification"] for row in rows} == {True, False}


def test_prompts_show_six_of_people_and_two_of_the_machine() -> None:
    model = Talker(writes)
    rows_of(job(), SEEDS, model)
    lists = [prompt for prompt in model.prompts if "Go on" in prompt.messages[0].content]
    seeds = {one_line(seed.messages[0].content) for seed in SEEDS}
    shown = [re.findall(r"^\d+\. (.*)$", prompt.messages[0].content, re.MULTILINE) for prompt in lists]
    assert [sum(one in seeds for one in entries) for entries in shown[:3]] == [8, 8, 8]  # there is nothing else yet
    assert {(len(entries), sum(one in seeds for one in entries)) for entries in shown[3:]} == {(8, 6)}
    assert {(p.temperature, p.top_p, p.presence_penalty, p.max_tokens, p.stop) for p in lists} == {
        (0.7, 0.5, 2.0, 1024, ("\n16.",))
    }
    assert len({prompt.seed for prompt in lists}) == len(lists)
    others = [prompt for prompt in model.prompts if prompt not in lists]
    assert {prompt.temperature for prompt in others} == {0.0}
    assert {prompt.presence_penalty for prompt in others} == {0.0, 1.5}


@given(st.permutations(SEEDS[:9]), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_neither_the_order_of_seeds_nor_of_replies_changes_a_row(seeds: list[Example], order: int) -> None:
    one = job(instructions=12, batch=2)
    assert rows_of(one, seeds, Shuffled(Talker(writes), order)) == rows_of(one, SEEDS[:9])


def test_another_seed_of_the_draw_gives_other_rows() -> None:
    assert rows_of(job(), SEEDS, seed=1) != rows_of(job(), SEEDS)


def test_a_list_that_was_cut_off_is_not_used() -> None:
    def cut(prompt: Prompt) -> str:
        return "<length>" if "Go on" in prompt.messages[0].content else writes(prompt)

    rows = rows_of(job(patience=2), SEEDS, Talker(cut))
    assert reasons(rows) - Counter(not_drawn=20) == {"cut_off": 6, "not_reached": 1}
    [last] = [row for row in rows if isinstance(row, Rejected) and row.reason == "not_reached"]
    assert last.detail == "0 of 30 instructions after 2 rounds"
    assert last.example is not None
    assert last.example.meta["replies"] == 6


def test_failed_replies_are_counted_and_lose_no_instruction() -> None:
    def flaky(prompt: Prompt) -> str:
        text = prompt.messages[0].content
        if "Go on" not in text and len(text) % 4 == 0:
            return "<unreachable>" if text.endswith("Classification:") else "<filtered>"
        return writes(prompt)

    rows = rows_of(job(), SEEDS, Talker(flaky))
    counted = reasons(rows)
    assert counted["unreachable"] > 0
    assert counted["filtered"] > 0
    told = {row.meta["instruction"] for row in accepted(rows)}
    lost = {
        row.example.meta["instruction"]
        for row in rows
        if isinstance(row, Rejected) and row.example and row.reason in ("unreachable", "filtered")
    }
    assert not told & lost
    assert len(told | lost) >= 30


def test_every_seed_is_shown_or_rejected() -> None:
    silent = Example((Message("user", "Why not?"),), "s")
    rows = rows_of(job(instructions=1, batch=1), [*SEEDS, silent, asks(SEEDS[0].messages[0].content, "Twice")])
    assert reasons(rows)["no_task"] == 1
    assert reasons(rows)["duplicate_seed"] == 1
    assert reasons(rows)["not_drawn"] == len(SEEDS) - 8


def test_without_a_usable_seed_nothing_is_asked() -> None:
    model = Talker(writes)
    assert reasons(rows_of(job(), [], model)) == {"not_reached": 1}
    assert model.prompts == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"instructions": 0}, {"batch": 0}, {"patience": 0}, {"made": 8}, {"shown": 15}, {"most_similar": 0},
        {"most_similar": 1.5}, {"blacklist": [False]}, {"ascii_start": "no"}, {"top_p": 0},
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SelfInstruct(**wrong)

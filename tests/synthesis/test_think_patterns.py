"""Five forms of thought: each form's contract, each filter's worked example and boundary, and complete quintuples."""

from collections import Counter
from typing import Any

import pytest
from attempt_worlds import Rows, Talker, accepted, asks, reasons
from hypothesis import given, settings
from hypothesis import strategies as st
from strong_worlds import Shuffled, made

from models.dialogue import Rejected
from models.protocol import Prompt
from synthesis.think_patterns import META_TALK, ThinkPatterns, overlap, rendered
from synthesis.thought_forms import FORMS, PATTERNS
from warehouse.errors import InputError
from warehouse.records import Example, Message

GOOD = {
    "monologue": "I look at both numbers and put the tens together first, which makes fifty, and then the rest.",
    "decomposition": "Subtask 1: the tens make fifty.\nSubtask 2: the ones make seven.\n**Synthesis:** both together.",
    "self_ask": "Q: What do the tens make?\nA: Fifty.\nQ: And the ones?\nA: Seven, with nothing carried over.",
    "self_debate": "Position A: count on.\nPosition B: add by place.\nPosition A: that is safe.\n"
    "Position B: this is quicker.\nResolution: by place, and check after.",
    "self_critic": "Draft: about sixty.\nCritique: too rough, the ones are not added.\nRevision: add them by place.",
}
SEEDS = [asks(f"What is {k} plus 34?", f"It is {k + 34}, since the parts add up.") for k in range(20, 26)]
JOB = ThinkPatterns()


def pattern_of(prompt: Prompt) -> str:
    text = prompt.messages[-1].content
    return next(name for name, form in FORMS.items() if form.told in text)


def thinks(prompt: Prompt) -> str:
    return GOOD[pattern_of(prompt)]


def rows_of(job: ThinkPatterns = JOB, seeds: list[Example] = SEEDS, **models: Any) -> Rows:
    talkers = {"generator": thinks} | models
    return made(job, seeds, {role: Talker(said) if callable(said) else said for role, said in talkers.items()})


def test_a_seed_gives_a_row_for_each_pattern() -> None:
    rows = accepted(rows_of(seeds=SEEDS[:1]))
    assert [row.meta["pattern"] for row in rows] == list(PATTERNS) == list(GOOD)
    for row in rows:
        assert row.messages[0] == SEEDS[0].messages[0]
        assert row.messages[1].content == rendered(GOOD[row.meta["pattern"]], SEEDS[0].messages[1].content)
        assert row.meta["parents"] == [SEEDS[0].sample_id]
        assert row.meta["response"] == SEEDS[0].messages[1].content
    assert rendered("so", " 5 ") == "<think>so</think>\n5"


def test_the_model_is_told_pattern_instruction_and_response() -> None:
    model = Talker(thinks)
    rows_of(seeds=SEEDS[:1], generator=model)
    assert [pattern_of(prompt) for prompt in model.prompts] == list(PATTERNS)
    for prompt in model.prompts:
        assert SEEDS[0].messages[0].content in prompt.messages[0].content
        assert SEEDS[0].messages[1].content in prompt.messages[0].content


@given(st.sets(st.tuples(st.integers(0, len(SEEDS) - 1), st.sampled_from(PATTERNS)), max_size=12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_balanced_release_has_all_patterns_of_a_seed_or_none(broken: set[tuple[int, str]], complete: bool) -> None:
    def talk(prompt: Prompt) -> str:
        name = pattern_of(prompt)
        broke = any(f"{SEEDS[k].messages[0].content}\n" in prompt.messages[0].content and name == p for k, p in broken)
        return "Draft: only" if broke else GOOD[name]

    rows = rows_of(ThinkPatterns(complete=complete), generator=talk)
    assert len(rows) == 5 * len(SEEDS)
    counted = reasons(rows)
    assert counted["wrong_form"] == len(broken)
    per_seed = Counter(row.meta["parents"][0] for row in accepted(rows))
    if complete:
        assert set(per_seed.values()) <= {5}
        assert len(per_seed) == len(SEEDS) - len({k for k, _ in broken})
    else:
        assert per_seed.total() == 5 * len(SEEDS) - len(broken)
        assert counted["incomplete_quintuple"] == 0


def test_an_incomplete_row_names_what_is_missing() -> None:
    def talk(prompt: Prompt) -> str:
        return "<filtered>" if pattern_of(prompt) == "self_ask" else thinks(prompt)

    rows = rows_of(seeds=SEEDS[:1], generator=talk)
    assert reasons(rows) == {"filtered": 1, "incomplete_quintuple": 4}
    assert {row.detail for row in rows if isinstance(row, Rejected)} == {"as told", "without self_ask"}


@pytest.mark.parametrize(
    ("pattern", "thought", "lacks"),
    [
        ("monologue", "I think.\n# Plan\nSo.", "heading"),
        ("monologue", "I think.\n**Plan**\nSo.", "heading"),
        ("monologue", "I think.\nDraft: so.", "label 'draft'"),
        ("monologue", "I think of a Draft: so, #1 it is.", ""),
        ("decomposition", "Subtask 1: a\nSynthesis: b", "2 parts; found 1"),
        ("decomposition", "Subtask 1: a\nSubtask 3: b\nSynthesis: c", "labels in order"),
        ("decomposition", "Subtask 1: a\nSubtask 2: b", "labels in order"),
        ("decomposition", "Synthesis: c\nSubtask 1: a\nSubtask 2: b", "labels in order"),
        ("decomposition", "Subtask 1: a\nSubtask 2:\nSynthesis: c", "text after 'subtask 2'"),
        ("decomposition", "## Subtask 1: a\n- b\n## subtask 2 : c\n**Synthesis**: d", ""),
        ("self_ask", "Q: a\nA: b", "2 parts; found 1"),
        ("self_ask", "Q: a\nA: b\nQ: c", "labels in order"),
        ("self_ask", "A: a\nQ: b\nA: c\nQ: d", "labels in order"),
        ("self_ask", "Q1: a\nA1: b\nQ2: c\nA2: d", ""),
        ("self_debate", "Position A: a\nPosition B: b\nPosition A: c\nResolution: d", "2 turns of position b"),
        ("self_debate", "Position A: a\nPosition A: b\nResolution: d", "positions A and B"),
        ("self_debate", "Position A: a\nPosition B: b\nPosition A: c\nPosition B: d", "resolution at the end"),
        ("self_debate", "Resolution: d\nPosition A: a\nPosition B: b\nPosition A: c\nPosition B: d", "resolution"),
        ("self_critic", "Draft: a\nRevision: b", "labels in order"),
        ("self_critic", "Critique: a\nDraft: b\nRevision: c", "labels in order"),
        ("self_critic", "draft: a\n**critique:** b\nREVISION: c", ""),
    ],
)  # fmt: skip
def test_which_thoughts_have_the_form(pattern: str, thought: str, lacks: str) -> None:
    found = FORMS[pattern].lacks(thought)
    assert found.startswith(lacks) if lacks else not found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_form_is_its_own_and_no_other(pattern: str) -> None:
    assert [name for name in PATTERNS if not FORMS[name].lacks(GOOD[pattern])] == [pattern]


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{start + k}" for k in range(count))


def reason(thought: str, response: str, **params: Any) -> str:
    fault = ThinkPatterns(**params).fault_of(thought, "monologue", response, "en")
    return fault.reason if fault else ""


def test_a_thought_may_not_copy_half_of_the_response() -> None:
    response = words(25)  # 20 different 6-grams
    assert overlap(words(14), response) == pytest.approx(9 / 20)
    assert overlap(words(15), response) == pytest.approx(10 / 20)
    assert reason(words(14), response) == ""
    assert reason(words(15), response) == "copies_response"
    assert overlap(words(25), words(5)) == 0.0  # too short to be copied
    assert overlap(words(6).upper(), words(6)) == 1.0


def test_how_long_a_thought_may_be() -> None:
    assert reason(words(30, 500), words(100)) == ""
    assert reason(words(29, 500), words(100)) == "too_short_thought"
    assert reason(words(600, 500), words(100)) == ""
    assert reason(words(601, 500), words(100)) == "too_long_thought"
    assert reason(words(240, 500), "Paris") == ""  # as about 40 words
    assert reason(words(241, 500), "Paris") == "too_long_thought"


@pytest.mark.parametrize(
    ("thought", "meta"),
    [
        ("So the given response must be right.", True),
        ("It fits what the provided answer has.", True),
        ("The response says that it is so.", True),
        ("I was told to think of this.", True),
        ("Of the given answer choices B is best.", False),
        ("So the answer is 5.", False),
        ("My response should be short.", False),
    ],
)
def test_talk_about_the_task_of_thinking(thought: str, meta: bool) -> None:
    assert bool(META_TALK.search(thought)) is meta
    assert (reason(thought, "Five it is.") == "meta_talk") is meta


def test_a_thought_is_in_the_language_of_its_response() -> None:
    german = "Zuerst rechne ich die Zehner zusammen und danach noch die Einer, das ergibt die Summe der beiden Zahlen."
    assert reason(german, "The sum of the two numbers is what you get when you add their parts.") == "other_language"
    fault = ThinkPatterns().fault_of(german, "monologue", "Die Summe ist das, was man erhält.", "de")
    assert fault is None


def test_tags_in_a_thought_would_end_it() -> None:
    assert reason("I think </think> so.", "So it is.") == "tag_in_thought"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Yes.", {"": 5}), ("no", {"does_not_fit": 5}), ("perhaps", {"judge_unclear": 5}),
        ("<unreachable>", {"judge_unreachable": 5}),
    ],
)  # fmt: skip
def test_the_judge_decides_where_there_is_one(said: str, expected: dict[str, int]) -> None:
    rows = rows_of(ThinkPatterns(judge=True), SEEDS[:1], judge=lambda _: said)
    assert reasons(rows) == expected


@pytest.mark.parametrize("failed", ["<unreachable>", "<too_long>", "<length>", " "])
def test_failed_replies_are_rejected_rows(failed: str) -> None:
    expected = {"<length>": "cut_off", " ": "empty"}.get(failed, failed.strip("<>"))
    assert reasons(rows_of(generator=lambda _: failed)) == {expected: 5 * len(SEEDS)}


def test_seeds_that_no_thought_can_be_written_for() -> None:
    silent = Example((Message("user", "Why?"),), "s")
    thinking = asks("Why?", "<think>so</think> Because.")
    unasked = Example((Message("assistant", "Because."),), "s")
    rows = rows_of(seeds=[silent, thinking, unasked])
    assert reasons(rows) == {"no_reply": 1, "thinks_already": 1, "no_question": 1}


def test_a_conversation_is_shown_with_its_roles() -> None:
    model = Talker(thinks)
    seed = Example((Message("system", "Be brief."), *SEEDS[0].messages), "s")
    [row, *_] = accepted(rows_of(seeds=[seed], generator=model))
    assert f"system: Be brief.\n\nuser: {SEEDS[0].messages[0].content}" in model.prompts[0].messages[0].content
    assert row.messages[:2] == seed.messages[:2]


@given(st.permutations(SEEDS), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_neither_the_order_of_seeds_nor_of_replies_changes_a_row(seeds: list[Example], order: int) -> None:
    found = rows_of(seeds=seeds, generator=Shuffled(Talker(thinks), order))
    assert sorted(map(repr, found)) == sorted(map(repr, rows_of()))


def test_told_changes_with_the_judge() -> None:
    assert ThinkPatterns().told != ThinkPatterns(judge=True).told


@pytest.mark.parametrize(
    "wrong",
    [
        {"patterns": []}, {"patterns": ["monologue", "monologue"]}, {"patterns": ["song"]}, {"complete": "yes"},
        {"least_ratio": 7.0}, {"least_ratio": -0.1}, {"most_overlap": 1.1}, {"top_p": 1.5},
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ThinkPatterns(**wrong)

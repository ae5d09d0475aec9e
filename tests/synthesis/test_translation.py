"""Translation, back-translation and TaCo: what is asked, what is kept, and why the rest is not."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from asked_models import FAILURES, Broken, accepted, made, reasons, seed
from hypothesis import given, settings
from hypothesis import strategies as st

from models.canned import CannedModel
from models.converse import converse
from models.protocol import Prompt
from models.taco import TacoReply, read_taco, write_taco
from synthesis.back_translation import BackTranslation, names, numbers
from synthesis.closeness import chrf, coverage, rouge_l
from synthesis.fault import Fault
from synthesis.languages import NAMES, NOT_IDENTIFIED, in_other_language, language_name, language_of, words
from synthesis.taco import Taco, length_ratio
from synthesis.translation import FAULTS, AskedTranslator
from warehouse.errors import InputError
from warehouse.language import _model
from warehouse.records import Example, Message

QUESTION = "Which three rivers flow through the old town, and which of them is the longest?"
REPLY = "Three rivers flow through the old town. The longest of them is the river in the north."
GERMAN = {
    QUESTION: "Welche drei Flüsse fließen durch die Altstadt, und welcher von ihnen ist der längste?",
    REPLY: "Durch die Altstadt fließen drei Flüsse. Der längste von ihnen ist der Fluss im Norden.",
}
BACK = {
    GERMAN[QUESTION]: "Which three rivers run through the old town, and which one of them is the longest?",
    GERMAN[REPLY]: "Three rivers flow through the old town. The longest of them is the river in the north.",
}


def asked_text(prompt: Prompt) -> str:
    return prompt.messages[-1].content.split("\nText:\n")[1]


def dictionary(*entries: Mapping[str, str]) -> Callable[[Prompt], str]:
    known = {text: found for each in entries for text, found in each.items()}
    return lambda prompt: known[asked_text(prompt)]


class Same:
    """Embeds every text to one vector, so that all cosines are 1; `apart` to orthogonal ones."""

    fingerprint = "same"

    def __init__(self, apart: bool = False) -> None:
        self.apart = apart

    def embed(self, texts: list[str]) -> Any:
        return np.eye(len(texts), 8, dtype=np.float32) if self.apart else np.ones((len(texts), 8), np.float32)


# ---- the seam


def translated(text: str, reply: Callable[[Prompt], str] | str, target: str = "de") -> tuple[str | Fault, list[Prompt]]:
    model = CannedModel(reply if callable(reply) else lambda _: str(reply))
    [found] = converse([AskedTranslator()(text, "en", target)], {"translator": model})
    return found, model.prompts


def test_what_must_not_change_is_taken_out_and_put_back() -> None:
    text = "Run `f(x)` 3 times, then read https://a.org and tell {name} about it."
    german = "Führe ⟦0⟧ ⟦1⟧ Mal aus, lies dann ⟦2⟧ und erzähle ⟦3⟧ davon."
    found, [prompt] = translated(text, german)
    assert found == "Führe `f(x)` 3 Mal aus, lies dann https://a.org und erzähle {name} davon."
    assert asked_text(prompt) == "Run ⟦0⟧ ⟦1⟧ times, then read ⟦2⟧ and tell ⟦3⟧ about it."
    assert "from English into German" in prompt.messages[0].content
    assert "⟦0⟧" in prompt.messages[0].content.split("Text:")[0]


def test_a_text_without_words_is_its_own_translation() -> None:
    for text in ("42", "```\ncode here\n```", "https://a.org", ""):
        assert translated(text, "never asked") == (text, [])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Nimm Äpfel.", "tags_lost"),
        ("Nimm ⟦0⟧ ⟦0⟧ Äpfel.", "tags_lost"),
        ("Please take ⟦0⟧ of the apples that lie on the table in the kitchen.", "other_language"),
    ],
)
def test_what_is_no_translation(reply: str, reason: str) -> None:
    found, _ = translated("Take 5 apples.", reply)
    assert isinstance(found, Fault)
    assert found.reason == reason


@pytest.mark.parametrize(("completion", "reason"), FAILURES)
def test_a_failed_reply_is_no_translation(completion: Any, reason: str) -> None:
    [found] = converse([AskedTranslator()(QUESTION, "en", "de")], {"translator": Broken(completion)})
    assert isinstance(found, Fault)
    assert found.reason == reason
    assert found.reason in FAULTS


# ---- languages


def test_the_languages_that_cannot_be_told_are_those_the_identifier_does_not_know() -> None:
    assert set(NAMES) - set(_model().labels) == NOT_IDENTIFIED


def test_a_language_is_told_by_enough_prose() -> None:
    assert language_of(QUESTION) == "en"
    assert language_of(GERMAN[QUESTION]) == "de"
    assert language_of("Ja") == language_of("12 `the code is in English here` 13") == "und"
    assert in_other_language(QUESTION, "de") == "en"
    assert in_other_language(QUESTION, "mai") is None
    with pytest.raises(InputError, match=r"'xx'.*af"):
        language_name("xx")


def test_words_of_languages_without_spaces() -> None:
    assert words("It's 3.5 km, 东京 Tower.") == ["It's", "3.5", "km", "东", "京", "Tower"]
    assert words("हिन्दी भाषा, می‌خواهم") == ["हिन्दी", "भाषा", "می‌خواهم"]


# ---- closeness


@given(st.text("abc ", max_size=30), st.text("abc ", max_size=30))
@settings(deadline=None)
def test_closeness_is_a_share(a: str, b: str) -> None:
    assert 0 <= chrf(a, b) <= 100
    assert 0 <= rouge_l(a.split(), b.split()) <= 1
    assert 0 <= coverage(a.split(), b.split()) <= 1
    assert rouge_l(a.split(), b.split()) == rouge_l(b.split(), a.split())
    if a.split():
        assert rouge_l(a.split(), a.split()) == coverage(a.split(), a.split()) == 1


def test_worked_closeness() -> None:
    assert rouge_l(["the", "cat", "sat"], ["the", "cat", "sat", "down", "here", "now"]) == pytest.approx(2 * 3 / 9)
    assert coverage(["a", "b", "c", "x", "d", "e", "f"], ["a", "b", "c", "d", "e", "f"]) == pytest.approx(6 / 7)
    assert coverage(["a", "b"], ["x", "a", "b"]) == 1
    assert coverage([], ["a"]) == 0
    assert chrf("the cat", "the cat") == 100


# ---- back-translation


def back(reply: Callable[[Prompt], str], encoder: Any = None, text: str = QUESTION, **params: Any) -> Any:
    job = BackTranslation("de", **params)
    return made(job, [seed(text, REPLY)], {"translator": reply}, encoder=encoder or Same())


def test_the_same_in_other_words_is_kept() -> None:
    [row] = accepted(back(dictionary(GERMAN, BACK)))
    assert [turn.content for turn in row.messages] == [BACK[GERMAN[QUESTION]], REPLY]
    assert row.meta["aug_parent"] == seed(QUESTION, REPLY).sample_id
    assert 30 <= row.meta["chrf"] <= 95
    assert row.meta["cosine"] == 1


@pytest.mark.parametrize(
    ("found", "params", "reason"),
    [
        (QUESTION, {}, "too_close"),
        ("Do you know anything about the buildings in this region at all?", {}, "too_far"),
        (BACK[GERMAN[QUESTION]].replace("three", "3"), {}, "numbers_changed"),
        (BACK[GERMAN[QUESTION]].replace("old town", "Old Town"), {}, "names_changed"),
        (BACK[GERMAN[QUESTION]].replace("old town", "Old Town"), {"same_names": False}, ""),
    ],
)
def test_what_says_something_else_is_not(found: str, params: dict[str, Any], reason: str) -> None:
    assert reasons(back(dictionary(GERMAN, {GERMAN[QUESTION]: found}), **params)) == {reason: 1}


def test_another_meaning_and_no_exchange() -> None:
    assert reasons(back(dictionary(GERMAN, BACK), Same(apart=True))) == {"meaning_changed": 1}
    job = BackTranslation("de")
    assert reasons(made(job, [Example((Message("user", "x"),), "s")])) == {"no_exchange": 1}


@pytest.mark.parametrize(("completion", "reason"), FAILURES)
def test_a_failed_reply_is_counted(completion: Any, reason: str) -> None:
    broken = {"translator": Broken(completion)}
    assert reasons(made(BackTranslation("de"), [seed(QUESTION, REPLY)], broken)) == {reason: 1}
    assert reasons(made(Taco("de"), [seed(QUESTION, REPLY)], broken)) == {reason: 1}


def test_numbers_and_names_of_a_text() -> None:
    assert numbers("3 of 1,500 and 2.5.") == {"3", "1,500", "2.5"}
    assert names("Where is the Tower of Pisa? Ask NASA.") == {"Tower", "Pisa", "NASA"}


# ---- TaCo


PARTS = st.text("abc:\n é", min_size=1, max_size=30).map(str.strip).filter(bool)


@given(PARTS, PARTS, PARTS, st.sampled_from(["German", "Nepali"]), st.text("xy\n", max_size=9))
@settings(deadline=None)
def test_what_is_written_is_read_back(a: str, b: str, c: str, language: str, before: str) -> None:
    reply = TacoReply(a, b, c)
    assert read_taco(write_taco(reply, language), language) == reply
    assert read_taco(f"{before}\n{write_taco(reply, language)}\n", language) == reply


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "missing_label"),
        ("Instruction in English: a\nResponse in English: b", "missing_label"),
        ("Instruction in English: a\nResponse in English: b\nResponse in Nepali: c", "missing_label"),
        ("Instruction in English: a Response in English: b Response in German: c", "missing_label"),
        ("Response in English: b\nInstruction in English: a\nResponse in German: c", "labels_out_of_order"),
        ("Instruction in English: a\nResponse in English: b\nResponse in German:", "empty_part"),
        (f"{write_taco(TacoReply('a', 'b', 'c'), 'German')}\nResponse in German: d", "label_twice"),
    ],
)
def test_an_output_that_has_not_the_form(text: str, failure: str) -> None:
    assert read_taco(text, "German") == failure


@given(st.text("InstructionResponse in EnglishGerman:\nab", max_size=120))
@settings(deadline=None)
def test_any_output_is_read_or_failed(text: str) -> None:
    found = read_taco(text, "German")
    assert isinstance(found, str) or all((found.instruction, found.response, found.answer))


def test_a_row_has_three_labelled_parts() -> None:
    [row] = accepted(made(Taco("de"), [seed(QUESTION, REPLY)], {"translator": dictionary(GERMAN, BACK)}))
    assert row.messages[0].content == GERMAN[QUESTION]
    assert row.messages[1].content == (
        f"Instruction in English: {QUESTION}\nResponse in English: {REPLY}\nResponse in German: {GERMAN[REPLY]}"
    )
    assert read_taco(row.messages[1].content, "German") == TacoReply(QUESTION, REPLY, GERMAN[REPLY])
    assert row.meta["round_trip_of"]["response"] == 100
    assert row.meta["round_trip"] == row.meta["round_trip_of"]["instruction"] < 100
    assert row.meta["parents"] == [seed(QUESTION, REPLY).sample_id]
    assert row.meta["language"] == "de"


def test_four_translations_with_a_round_trip_and_two_without() -> None:
    for round_trip, count in ((True, 4), (False, 2)):
        model = CannedModel(dictionary(GERMAN, BACK))
        [row] = accepted(made(Taco("de", round_trip=round_trip), [seed(QUESTION, REPLY)], {"translator": model}))
        assert len(model.prompts) == count
        assert (row.meta["round_trip"] is None) == (not round_trip)


@pytest.mark.parametrize(
    ("question", "reply", "entries", "params", "reason"),
    [
        ("Spell the word necessary.", "n-e-c", (), {}, "wordplay"),
        ("Write a poem that rhymes.", "a", (), {}, "wordplay"),
        (QUESTION, "a\nResponse in English: b", (), {}, "label_in_text"),
        (QUESTION, " ", (), {}, "not_one_exchange"),
        (GERMAN[QUESTION], REPLY, (), {}, "not_english"),
        (QUESTION, REPLY, (GERMAN, {v: "Something else was said here." for v in GERMAN.values()}), {}, "round_trip"),
        (QUESTION, REPLY, (GERMAN, BACK), {"least_chrf": 99}, "round_trip"),
        (QUESTION, REPLY, ({QUESTION: "Welche Flüsse fließen hier?"}, BACK), {}, "length_ratio"),
        (QUESTION, REPLY, ({QUESTION: QUESTION},), {}, "other_language"),
    ],
)
def test_why_a_row_is_not_made(
    question: str, reply: str, entries: tuple[Mapping[str, str], ...], params: dict[str, Any], reason: str
) -> None:
    rows = made(Taco("de", **params), [seed(question, reply)], {"translator": dictionary(*entries)})
    assert reasons(rows) == {reason: 1}


def test_wordplay_can_be_flagged_instead() -> None:
    asked = "Which of these words rhyme with the names of the three rivers?"
    there = {asked: "Welche dieser Wörter reimen sich auf die Namen der drei Flüsse?", REPLY: GERMAN[REPLY]}
    answers = dictionary(there, BACK, {there[asked]: asked})
    [row] = accepted(made(Taco("de", wordplay="flag"), [seed(asked, REPLY)], {"translator": answers}))
    assert row.meta["wordplay"] is True


def test_protected_parts_come_through() -> None:
    asked = "What does the function `add(2, 3)` return, when it is called with the numbers 2 and 3?"
    told = "Was gibt die Funktion ⟦0⟧ zurück, wenn sie mit den Zahlen ⟦1⟧ und ⟦2⟧ aufgerufen wird?"
    english = "What does the function ⟦0⟧ return, when it is called with the numbers ⟦1⟧ and ⟦2⟧?"
    reply = "`5`"
    model = dictionary({english: told, told: english})
    [row] = accepted(made(Taco("de"), [seed(asked, reply)], {"translator": model}))
    assert "`add(2, 3)`" in row.messages[0].content
    assert read_taco(row.messages[1].content, "German") == TacoReply(asked, reply, reply)


def test_lengths_are_compared_where_there_is_enough_to_compare() -> None:
    assert length_ratio("Ja", "Yes") is None
    assert length_ratio("`code`", "`code`") is None
    assert length_ratio("x" * 40, "y" * 20) == 2
    assert length_ratio("河" * 10, "y" * 40) == 0.5  # a Chinese character says as much as several letters


def test_the_order_of_seeds_changes_no_row() -> None:
    seeds = [seed(QUESTION, REPLY), seed(REPLY, QUESTION)]
    for job in (Taco("de"), BackTranslation("de")):
        ahead, behind = (
            made(job, order, {"translator": dictionary(GERMAN, BACK)}, encoder=Same()) for order in (seeds, seeds[::-1])
        )
        assert sorted(map(repr, ahead)) == sorted(map(repr, behind))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Taco("xx"), "xx"),
        (lambda: Taco("en"), "'en'"),
        (lambda: Taco("de", wordplay="maybe"), "maybe.*flag"),  # type: ignore[arg-type]
        (lambda: Taco("de", least_ratio=3), "least_ratio"),
        (lambda: BackTranslation("en"), "another pivot"),
        (lambda: BackTranslation("de", least_chrf=96), "least_chrf"),
    ],
)
def test_what_cannot_be_asked_for(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()

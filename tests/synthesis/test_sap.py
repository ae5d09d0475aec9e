"""Questions about passages: what is shown and asked, what is read of a reply, and which questions are kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_models import FAILURES, Broken, accepted, made, reasons, seed
from hypothesis import given, settings
from hypothesis import strategies as st

from models.canned import CannedModel
from models.protocol import Prompt
from synthesis.closeness import coverage
from synthesis.fault import Fault
from synthesis.languages import language_of, words
from synthesis.passages import Passage, sampled
from synthesis.sap import TELLINGS, Asked, AskFromPassage, copied, overlap_with_sentences, read_asked
from synthesis.sap_exemplars import LANGUAGES, default_exemplars
from warehouse.errors import InputError
from warehouse.records import Example, Message

PASSAGE = (
    "The mill at Aster stands on the east bank of the river. It was built in 1790 by two sisters who had inherited the "
    "land, and ground rye until the dam broke. Today it is a museum of tools."
)
SUMMARY = "It was built in 1790 by two sisters who had inherited the land."
ASKED = "Who built the watermill at Aster, and on whose land?"
GOOD = f"Summary: {SUMMARY}\nQuestion: {ASKED}"


def rows_for(reply: str | Callable[[Prompt], str], passage: str = PASSAGE, **params: Any) -> Any:
    answer = reply if callable(reply) else lambda _: str(reply)
    return made(AskFromPassage(**params), [seed("Tell me.", passage)], {"generator": answer})


# ---- what is read


@pytest.mark.parametrize(
    ("reply", "mode", "expected"),
    [
        (GOOD, "sap", Asked(ASKED, SUMMARY)),
        (f"Sure!\n\n**Summary:** {SUMMARY}\n\n**Question:** {ASKED}\nPassage: more", "sap", Asked(ASKED, SUMMARY)),
        (f"summary：{SUMMARY}\nquestion：{ASKED}", "sap", Asked(ASKED, SUMMARY)),
        (f"Summary: one\ntwo\nQuestion: {ASKED}", "sap", Asked(ASKED, "one\ntwo")),
        (f"Question: {ASKED}", "direct", Asked(ASKED)),
        (GOOD, "direct", Asked(ASKED)),
        (f"Question: {ASKED}", "sap", "missing_summary"),
        (f"Question: {ASKED}\nSummary: {SUMMARY}", "sap", "missing_summary"),
        (f"Summary: {SUMMARY}", "sap", "missing_question"),
        (f"Summary: {SUMMARY}\nQuestion:", "sap", "missing_question"),
        (ASKED, "direct", "missing_question"),
    ],
)
def test_sections_are_read(reply: str, mode: Any, expected: Asked | str) -> None:
    found = read_asked(reply, mode)
    assert (found.reason if isinstance(found, Fault) else found) == expected


@given(st.text("Summary: Question\n*ab?", max_size=80), st.sampled_from(["sap", "direct"]))
@settings(deadline=None)
def test_any_reply_is_read_or_faulted(reply: str, mode: Any) -> None:
    found = read_asked(reply, mode)
    if isinstance(found, Asked):
        assert found.question
        assert "\n" not in found.question
        assert bool(found.summary) == (mode == "sap")


# ---- what is shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_shown_passes_our_own_filters(language: str) -> None:
    shown = default_exemplars(language, "en")
    assert len(shown) == (3 if language == "en" else 5)
    for exemplar in shown:
        assert copied(exemplar.summary, exemplar.passage) == 1
        assert overlap_with_sentences(exemplar.question, exemplar.passage) <= 0.7
        assert len(words(exemplar.question)) <= 40
        assert language_of(exemplar.question) in (language, "und")
        reply = f"Summary: {exemplar.summary}\nQuestion: {exemplar.question}"
        assert read_asked(reply, "sap") == Asked(exemplar.question, exemplar.summary)


def test_what_is_asked() -> None:
    model = CannedModel(lambda _: GOOD)
    made(AskFromPassage(), [seed("Tell me.", PASSAGE)], {"generator": model})
    [prompt] = model.prompts
    told = prompt.messages[0].content
    assert told.count("Passage:") == 3 + 1
    assert told.count("\nSummary: ") == 3 + 1  # and once where it is explained
    assert told.endswith(f"Passage: {PASSAGE}")
    assert (prompt.temperature, prompt.stop) == (0, ("\nPassage:",))
    across = CannedModel(lambda _: GOOD)
    made(AskFromPassage("direct", language="de"), [seed("Tell me.", PASSAGE)], {"generator": across})
    assert across.prompts[0].messages[0].content.count("Passage:") == 5 + 1
    assert "Summary:" not in across.prompts[0].messages[0].content
    assert "question in German" in across.prompts[0].messages[0].content


def test_own_exemplars_replace_ours() -> None:
    own = [{"passage": "P one.", "summary": "P one.", "question": "Q eins?"}]
    model = CannedModel(lambda _: GOOD)
    job = AskFromPassage(exemplars=own, passage_language="ru")
    made(job, [seed("Tell me.", PASSAGE)], {"generator": model})
    assert "Question: Q eins?" in model.prompts[0].messages[0].content
    assert job.told != AskFromPassage().told != AskFromPassage("direct").told
    with pytest.raises(InputError, match=r"no exemplars.*en, de"):
        AskFromPassage(passage_language="ru")
    with pytest.raises(InputError, match="passage, summary, question"):
        AskFromPassage(exemplars=[{"passage": "x"}])


# ---- what is kept


def test_a_good_question_makes_a_row() -> None:
    [row] = accepted(rows_for(GOOD))
    assert row.messages == (Message("user", ASKED), Message("assistant", PASSAGE))
    assert row.meta == {
        "parents": [seed("Tell me.", PASSAGE).sample_id],
        "template": [TELLINGS["sap"].key],
        "mode": "sap",
        "language": "en",
        "passage_language": "en",
        "title": "",
        "place": "",
        "summary": SUMMARY,
        "summary_coverage": 1.0,
        "question_mark": True,
    }


@pytest.mark.parametrize(
    ("reply", "params", "reason"),
    [
        ("I cannot do that.", {}, "missing_summary"),
        (f"Summary: {SUMMARY}\nQuestion: {'why ' * 40}?", {}, ""),
        (f"Summary: {SUMMARY}\nQuestion: {'why ' * 41}?", {}, "question_too_long"),
        (f"Summary: {SUMMARY}\nQuestion: {'why ' * 41}?", {"most_tokens": 41}, ""),
        (f"Summary: Some rich women owned an old place.\nQuestion: {ASKED}", {}, "not_extractive"),
        (f"Summary: Some rich women owned an old place.\nQuestion: {ASKED}", {"mode": "direct"}, ""),
        (f"Summary: {SUMMARY}\nQuestion: The mill at Aster stands on the east bank of the river?", {}, "near_copy"),
        (GOOD, {"language": "de"}, "other_language"),
        (f"Summary: {SUMMARY}\nQuestion: Wer hat die Mühle in Aster gebaut, und wem gehörte das Land?",
         {"language": "de"}, ""),
        (f"Summary: {SUMMARY}\nQuestion: Name the builders of the watermill", {}, ""),
    ],
)  # fmt: skip
def test_which_questions_are_kept(reply: str, params: dict[str, Any], reason: str) -> None:
    assert reasons(rows_for(reply, **params)) == {reason: 1}


def test_a_question_without_its_mark_is_flagged_only() -> None:
    [row] = accepted(rows_for(f"Summary: {SUMMARY}\nQuestion: Name the builders of the watermill"))
    assert row.meta["question_mark"] is False


def test_a_summary_is_extractive_from_six_tenths_on() -> None:
    ten = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
    assert coverage([*ten[:6], *"wxyz"], ten) == 0.6
    kept = f"Summary: {' '.join(PASSAGE.split()[:6])} zq zr zs zt\nQuestion: {ASKED}"
    assert reasons(rows_for(kept)) == {"": 1}
    assert reasons(rows_for(kept.replace(" zt", " zt zu"))) == {"not_extractive": 1}


@pytest.mark.parametrize(("passage", "reason"), [("Two words.", "passage_too_short"), ("Only three words.",
    "passage_too_short"), ("Here are four words.", "near_copy"), ("", "no_passage")])  # fmt: skip
def test_passages_of_a_few_words_are_dropped(passage: str, reason: str) -> None:
    assert reasons(rows_for("Summary: Here are four words.\nQuestion: Here are four words?", passage)) == {reason: 1}


@pytest.mark.parametrize(("completion", "reason"), FAILURES)
def test_a_failed_reply_is_counted(completion: Any, reason: str) -> None:
    rows = made(AskFromPassage(), [seed("Tell me.", PASSAGE)], {"generator": Broken(completion)})
    assert reasons(rows) == {reason: 1}


def answering(answer: str) -> Callable[[Prompt], str]:
    return lambda prompt: answer if "Answer the question" in prompt.messages[0].content else GOOD


def test_an_answer_can_be_asked_for() -> None:
    [row] = accepted(rows_for(answering("Two sisters, on land that they had inherited."), answer=True))
    assert row.messages[1].content == "Two sisters, on land that they had inherited."
    assert len(row.meta["template"]) == 2
    assert reasons(rows_for(answering("UNANSWERABLE."), answer=True)) == {"unanswerable": 1}
    german = "Zwei Schwestern haben sie auf ihrem geerbten Land gebaut."
    assert reasons(rows_for(answering(german), answer=True)) == {"other_language": 1}


def test_the_prompt_of_a_seed_can_be_the_passage() -> None:
    [row] = accepted(
        made(AskFromPassage(passage="prompt"), [seed(PASSAGE, "x", title="Aster")], {"generator": lambda _: GOOD})
    )
    assert row.messages[1].content == PASSAGE
    assert row.meta["title"] == "Aster"
    lonely = Example((Message("user", PASSAGE),), "s")
    assert reasons(made(AskFromPassage(), [lonely])) == {"no_passage": 1}


# ---- documents and samples


def test_passages_from_files(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    lines = [
        {"body": PASSAGE, "head": "Aster", "license": "CC BY 4.0"},
        {"body": None},
        {"body": 5},
        {"body": "Too short."},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n")
    job = AskFromPassage(documents=str(path), column="body", title_column="head")
    assert not job.needs.seeds
    rows = made(job, replies={"generator": lambda _: GOOD})
    assert reasons(rows) == {"": 1, "no_passage": 2, "passage_too_short": 1, "unreadable_row": 1}
    [row] = accepted(rows)
    assert (row.meta["parents"], row.meta["title"], row.meta["place"]) == ([], "Aster", "docs.jsonl:1")
    assert row.meta["licence"] == "cc-by-4.0"
    before = job.told
    path.write_text(json.dumps(lines[0]) + "\n")
    assert job.told != before
    with pytest.raises(InputError, match=r"no column 'text'; columns: body"):
        made(AskFromPassage(documents=str(path)))


def test_a_sample_is_spread_over_the_titles() -> None:
    passages = [Passage(f"text {i}", f"{chr(65 + i % 26)}{i}") for i in range(2600)]
    found = sampled(passages, 520, np.random.default_rng(0))
    assert len(found) == 2600
    taken = [one for one in found if isinstance(one, Passage)]
    assert abs(len(taken) - 520) < 5 * np.sqrt(2600 * 0.2 * 0.8)
    letters = [sum(passage.title.startswith(chr(65 + k)) for passage in taken) for k in range(26)]
    assert min(letters) > 5
    assert max(letters) < 40
    assert sampled(passages[::-1], 520, np.random.default_rng(0)) == found
    assert sampled(passages, 2600, np.random.default_rng(0)) == sorted(passages, key=lambda one: one.title)
    assert sampled([], 5, np.random.default_rng(0)) == []


def test_what_is_not_sampled_has_a_reason() -> None:
    seeds = [seed("Tell me.", f"{PASSAGE} {word}.") for word in "abcdefghij"]
    rows = made(AskFromPassage(sample=5), seeds, {"generator": lambda _: GOOD})
    assert set(reasons(rows)) == {"", "not_sampled"}
    assert len(rows) == 10


def test_the_order_of_seeds_changes_no_row() -> None:
    seeds = [seed("Tell me.", f"{PASSAGE} {word}.") for word in "abcdefghij"]
    ahead, behind = (
        made(AskFromPassage(sample=5), order, {"generator": lambda _: GOOD}, draw=3) for order in (seeds, seeds[::-1])
    )
    assert sorted(map(repr, ahead)) == sorted(map(repr, behind))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "zero"}, "zero.*direct"),
        ({"passage": "both"}, "both.*prompt"),
        ({"language": "xx"}, "xx"),
        ({"sample": 0}, "sample"),
        ({"least_coverage": 2}, "least_coverage"),
        ({"exemplars": [{"passage": "x", "summary": "", "question": "y"}]}, "empty"),
    ],
)
def test_what_cannot_be_asked_for(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AskFromPassage(**params)

"""Dynosaur: golden tables, hostile tables, what is asked, what is read of replies, and which rows come of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked_models import FAILURES, Broken, accepted, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.canned import CannedModel
from models.dialogue import Rejected
from models.protocol import Prompt
from synthesis.dynosaur.card import Card, is_scalar, named_labels
from synthesis.dynosaur.instances import Instance, instance, is_leak, other_fields, rendered
from synthesis.dynosaur.labels import Labels, labels_of
from synthesis.dynosaur.proposal import TELLINGS, Proposal, Task, checked, read_proposals, task_of
from synthesis.dynosaur.tables import Dynosaur
from synthesis.dynosaur.truncation import is_identifier, is_media, shown, visible
from synthesis.fault import Fault
from warehouse.errors import InputError

TASK = {"instruction": "Rate the review.", "input_fields": ["review"], "output_field": "stars"}
REVIEWS = [{"review": f"It was number {i}.", "stars": "good" if i % 2 else "bad", "writer": f"w{i}"} for i in range(8)]


def reply(*tasks: Mapping[str, Any]) -> str:
    return json.dumps({"tasks": list(tasks)})


def table(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "reviews", **said: Any) -> dict[str, Any]:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "name": name, "description": "Reviews.", "licence": "MIT", **said}


def designer(*tasks: Mapping[str, Any]) -> dict[str, Callable[[Prompt], str]]:
    return {"generator": lambda _: reply(*tasks)}


# ---- step 1: what is shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", True), ("user_id", True), ("userId", True), ("User ID", True), ("id_number", True), ("UUID", True),
        ("HITId", True), ("qid", True), ("candidate", False), ("evidence", False),
        ("video", False), ("validity", False), ("idiom", False), ("width", False), ("identity", False),
    ],
)  # fmt: skip
def test_identifiers_are_told_by_the_words_of_a_name(name: str, expected: bool) -> None:
    assert is_identifier(name) == expected


def test_pictures_are_told_by_the_words_of_a_name() -> None:
    assert is_media("image_path")
    assert is_media("audioFile")
    assert not is_media("imagined")


def test_two_rows_are_shown_cut_and_without_what_is_nested_or_empty() -> None:
    rows = [
        {"a b": f" {'x' * 5000} ", "it's": True, "n": 1.5, "tags": ["q" * 600, "r" * 600], "map": {"k": 1}, "doc_id": 3,
         "deep": {"k": [1]}, "none": None, "nums": [1, 2], "blank": " "},
    ] * 3  # fmt: skip
    [first, second] = shown(rows)
    assert first == second
    assert first == {"a b": "x" * 1000, "it's": "True", "n": "1.5", "tags": ["q" * 600], "map": {"k": "1"}}


def test_a_column_must_be_visible_in_all_rows_that_are_shown() -> None:
    assert shown([{"a": "x", "b": "y"}, {"a": "x", "b": None}]) == [{"a": "x"}, {"a": "x"}]
    assert shown([]) == []


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(CELLS)
@settings(deadline=None)
def test_any_cell_is_shown_within_the_limit_or_not_at_all(cell: Any) -> None:
    found = visible(cell)
    if isinstance(found, str):
        assert 0 < len(found) <= 1000
        assert found == found.strip()
    elif found is not None:
        assert 0 < len(json.dumps(found, ensure_ascii=False, separators=(",", ":"))) <= 1000
    if is_scalar(cell) and str(cell).strip():
        assert found is not None


# ---- steps 2 and 3: what is proposed


READ = Proposal("Rate the review.", ("review",), ("stars",))


@pytest.mark.parametrize(
    "text",
    [
        reply(TASK),
        json.dumps([TASK]),
        json.dumps(TASK),
        json.dumps({"task1": TASK}),
        json.dumps({"tasks": {"task1": TASK}}),
        str({"tasks": [TASK]}),
        f"Here you are:\n```json\n{reply(TASK)}\n```\nEnjoy.",
        reply(TASK).removesuffix("]}"),
        reply(TASK | {"output_field": ["stars"]}),
        reply(TASK | {"input_fields": "review"}),
    ],
)
def test_a_reply_is_read_in_many_spellings(text: str) -> None:
    assert read_proposals(text) == [READ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot.", "parse_fail"),
        ("", "parse_fail"),
        ("[]", "parse_fail"),
        ("{}", "parse_fail"),
        ("[" * 10**5, "parse_fail"),
        ("{" * 5000, "parse_fail"),
        (reply({"instruction": "", "input_fields": ["a"], "output_field": "b"}), "malformed_task"),
        (reply({"instruction": "x", "input_fields": [1], "output_field": "b"}), "malformed_task"),
    ],
)
def test_a_reply_that_cannot_be_read_has_a_reason(text: str, reason: str) -> None:
    [found] = read_proposals(text)
    assert isinstance(found, Fault)
    assert found.reason == reason


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_reply_is_read_or_faulted(text: str) -> None:
    assert read_proposals(text)


@pytest.mark.parametrize(
    ("given_fields", "output", "instruction", "reason"),
    [
        (("review",), (), "x", "no_output"),
        (("review",), ("stars", "writer"), "x", "multi_output"),
        (("review", "mood"), ("stars",), "x", "invalid_field"),
        (("review",), ("mood",), "x", "invalid_field"),
        (("review", "stars"), ("stars",), "x", "overlap"),
        (("review",), ("stars",), "said before", "duplicate_instruction"),
        (("mood",), ("mood",), "said before", "invalid_field"),  # the first reason that holds
        (("review", "stars"), ("stars",), "said before", "overlap"),
    ],
)
def test_the_filters_hold_in_their_order(
    given_fields: tuple[str, ...], output: tuple[str, ...], instruction: str, reason: str
) -> None:
    found = task_of(Proposal(instruction, given_fields, output), REVIEWS[0], {"said before"})
    assert isinstance(found, Fault)
    assert found.reason == reason


def test_three_tasks_are_taken_of_a_reply() -> None:
    proposals = [Proposal(f"Task {i}.", ("review",), ("stars",)) for i in range(5)]
    found = checked([*proposals[:2], proposals[0], *proposals[2:]], REVIEWS[0])
    assert [one.reason if isinstance(one, Fault) else "" for one in found] == [
        "", "", "duplicate_instruction", "", "too_many_tasks", "too_many_tasks",
    ]  # fmt: skip


# ---- step 4: labels


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["a"] * 70 + ["b"] * 30, ("a", "b")),
        (["a"] * 71 + ["b"] * 29, "unbalanced"),
        (["a"] * 7 + ["b"] * 3, ("a", "b")),  # shares, so that they hold for short tables
        (["a"] * 50 + ["b"] * 25 + ["c"] * 25, ("a", "b", "c")),
        (["a"] * 51 + ["b"] * 25 + ["c"] * 24, "unbalanced"),
        (["a"] * 9, "one_label"),
        ([str(i) for i in range(10)], tuple(map(str, range(10)))),
        ([str(i) for i in range(11)], ()),
        (["x" * 15, "y"], ("x" * 15, "y")),
        (["x" * 16, "y"], ()),
        (["Yes", "no", "yes", "NO"], ("Yes", "no")),
        ([True, False, None], ("True", "False")),
        ([1, 2, 2.5], ("1", "2", "2.5")),
        ([["a"], "b"], "output_not_scalar"),
        ([None, "", " ", float("nan")], "no_values"),
        ([], "no_values"),
    ],
)
def test_the_label_space(outputs: list[Any], expected: tuple[str, ...] | str) -> None:
    found = labels_of(outputs)
    assert (found.reason if isinstance(found, Fault) else found.listed) == expected


def test_labels_are_listed_and_spelt_one_way() -> None:
    labels = labels_of(["Yes", "no", "yes"])
    assert isinstance(labels, Labels)
    assert labels.instruction("Is it?") == "Is it? Answers must be one of Yes, no."
    assert [labels.output(value) for value in (" yes ", "NO", "maybe")] == ["Yes", "no", "maybe"]
    assert Labels().instruction("Is it?") == "Is it?"


@given(st.lists(st.text(max_size=4), max_size=60))
@settings(deadline=None)
def test_labels_do_not_depend_on_how_often_the_table_is_read(outputs: list[str]) -> None:
    once, twice = labels_of(outputs), labels_of(outputs * 2)
    if isinstance(once, Fault) and isinstance(twice, Fault):
        assert once.reason == twice.reason
    else:
        assert once == twice


# ---- step 5: rows


def test_inputs_are_rendered() -> None:
    row = {"a": " one ", "b": 2, "c": ["x", "y"], "choices": ["x", "y"], "empty": "", "deep": [[1]], "it's": "q"}
    assert rendered(["a"], row) == "one"
    assert rendered(["a", "b"], row) == "a is 'one'. b is '2'."
    assert rendered(["c"], row) == "'x', 'y'."
    assert rendered(["choices"], row) == "A. 'x', B. 'y'."
    assert rendered(["it's", "choices"], row) == "it's is 'q'. choices is A. 'x', B. 'y'."
    assert rendered(["empty", "a"], row) == "empty is ''. a is 'one'."
    assert [rendered([name, "a"], row) for name in ("deep", "missing")] == ["", ""]
    assert rendered(["empty"], row) == rendered(["empty", "empty"], row) == rendered([], row) == ""


def test_long_cells_are_cut_and_empty_ones_have_a_reason() -> None:
    task = Task("Do it.", ("a",), "b")
    assert instance(task, {"a": "x" * 10**7, "b": "y" * 10**7}, Labels()) == Instance("x" * 2000, "y" * 2000)
    for row, reason in (({"a": "x", "b": None}, "no_value"), ({"a": None, "b": "y"}, "no_input"), ({}, "no_value")):
        found = instance(task, row, Labels())
        assert isinstance(found, Fault)
        assert found.reason == reason


def test_a_leak_is_an_output_that_stands_in_nearly_every_input() -> None:
    leaking = [Instance(f"the word {i}", str(i)) for i in range(100)]
    assert is_leak(Task("Write a poem.", ("a",), "b"), leaking)
    assert not is_leak(Task("Find the number.", ("a",), "b"), leaking)
    assert is_leak(Task("Write a poem.", ("a",), "b"), [*leaking[:96], *[Instance("x", "y")] * 4])
    assert not is_leak(Task("Write a poem.", ("a",), "b"), [*leaking[:95], *[Instance("x", "y")] * 5])
    assert not is_leak(Task("Write a poem.", ("a",), "b"), [])


def test_fields_that_are_named_and_not_given_are_flagged() -> None:
    task = Task("Given the movie title and user id, rate the review.", ("review",), "stars")
    assert other_fields(task, ["review", "stars", "movieTitle", "user_id", "writer"]) == ["movieTitle", "user_id"]


# ---- the whole


def test_a_golden_table(tmp_path: Path) -> None:
    copy = {"instruction": "Repeat the writer.", "input_fields": ["review", "writer"], "output_field": "writer"}
    job = Dynosaur([table(tmp_path, REVIEWS, url="https://example.org")])
    rows = made(job, replies=designer(TASK, copy))
    assert reasons(rows) == {"": 8, "overlap": 2, "same_task": 1}
    [first, *_] = accepted(rows)
    assert [turn.content for turn in first.messages] == [
        "Rate the review. Answers must be one of bad, good.\n\nIt was number 0.", "bad",
    ]  # fmt: skip
    assert first.source == "dynosaur"
    assert len(first.meta.pop("template")) == 1  # type: ignore[attr-defined]
    assert first.meta == {
        "parents": [], "dataset": "reviews", "licence": "mit", "url": "https://example.org", "run": "aware",
        "instruction": "Rate the review.", "input_fields": ["review"], "output_field": "stars",
        "labels": ["bad", "good"], "leak": False, "other_fields": [], "row": 0,
    }  # fmt: skip


def test_what_is_asked(tmp_path: Path) -> None:
    model = CannedModel(lambda _: reply(TASK))
    made(Dynosaur([table(tmp_path, REVIEWS)]), replies={"generator": model})
    aware, unaware = model.prompts
    assert {(prompt.temperature, prompt.max_tokens) for prompt in model.prompts} == {(0, 768)}
    assert all(prompt.schema and json.loads(prompt.schema)["required"] == ["tasks"] for prompt in model.prompts)
    assert "Reviews." in aware.messages[1].content
    assert "Reviews." not in unaware.messages[1].content
    for prompt in model.prompts:
        assert '["review", "stars", "writer"]' in prompt.messages[1].content
        assert "number 1" in prompt.messages[1].content
        assert "number 2" not in prompt.messages[1].content


def test_the_demonstrations_are_tasks_by_our_own_rules() -> None:
    counts: dict[str, list[int]] = {}
    for run, telling in TELLINGS.items():
        parts = telling.text.split("Data set:\n")[1:-1]
        counts[run] = []
        for part in parts:
            data, tasks = part.split("\nTasks:\n")
            found = checked(read_proposals(tasks), json.loads(data)["rows"][0])
            assert all(isinstance(task, Task) for task in found)
            counts[run].append(len(found))
    assert counts == {"aware": [3, 2], "unaware": [3, 2]}


def test_a_new_table_costs_its_own_calls_alone(tmp_path: Path) -> None:
    def asked(*tables: dict[str, Any]) -> list[Prompt]:
        model = CannedModel(lambda _: reply(TASK))
        made(Dynosaur(tables), replies={"generator": model})
        return model.prompts

    one, two = table(tmp_path, REVIEWS, "one"), table(tmp_path, REVIEWS[::-1], "two")
    together = asked(one, two)
    assert set(together) == set(asked(one)) | set(asked(two))
    assert len(together) == 4


def test_the_order_of_tables_only_orders_the_rows(tmp_path: Path) -> None:
    one, two = table(tmp_path, REVIEWS, "one"), table(tmp_path, REVIEWS[::-1], "two")
    [ahead, behind] = (made(Dynosaur(order), replies=designer(TASK)) for order in ([one, two], [two, one]))
    assert sorted(map(repr, ahead)) == sorted(map(repr, behind))


@pytest.mark.parametrize(("completion", "reason"), FAILURES)
def test_a_failed_reply_is_counted(completion: Any, reason: str, tmp_path: Path) -> None:
    rows = made(Dynosaur([table(tmp_path, REVIEWS)]), replies={"generator": Broken(completion)})
    assert reasons(rows) == {reason: 2}


@pytest.mark.parametrize(
    ("licence", "params", "reason"),
    [
        ("", {}, "licence_missing"),
        ("", {"licence_needed": False}, ""),
        ("other", {}, "licence_refused"),
        ("Unknown", {}, "licence_refused"),
        ("CC BY-NC-ND 4.0", {}, "licence_refused"),
        ("cc-by-nd-4.0", {}, "licence_refused"),
        ("CC BY-NC 4.0", {}, ""),
        ("CC BY-NC 4.0", {"refuse": ["*-nc*"]}, "licence_refused"),
        ("Apache 2.0", {}, ""),
    ],
)
def test_licences(licence: str, params: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model = CannedModel(lambda _: reply(TASK))
    rows = made(Dynosaur([table(tmp_path, REVIEWS, licence=licence)], **params), replies={"generator": model})
    assert reason in reasons(rows)
    assert bool(model.prompts) == (reason == "")  # nothing is asked about a table that may not be used


def test_the_licence_of_a_folder_is_on_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Reviews\n")
    table(tmp_path, REVIEWS)
    assert Card(str(tmp_path), "reviews").known_licence == "cc0-1.0"
    assert Card(str(tmp_path), "reviews", licence="MIT").known_licence == "mit"


def test_numbers_of_labels_get_their_names(tmp_path: Path) -> None:
    assert named_labels({"a": 1, "b": 1}, {"a": ["no", "yes"]}) == {"a": "yes", "b": 1}
    assert named_labels({"a": "1"}, {"a": ["no", "yes"]}) == {"a": "yes"}
    assert [named_labels({"a": value}, {"a": ["no"]})["a"] for value in (-1, 5, None, "x")] == [-1, 5, None, "x"]
    numbered = [row | {"stars": i % 2} for i, row in enumerate(REVIEWS)]
    rows = made(Dynosaur([table(tmp_path, numbered, labels={"stars": ["bad", "good"]})]), replies=designer(TASK))
    assert {row.messages[1].content for row in accepted(rows)} == {"bad", "good"}


# ---- hostile tables


def test_one_column_and_no_rows(tmp_path: Path) -> None:
    for rows, reason in (([{"review": "x"}] * 9, "too_few_fields"), ([{"review": "x", "id": 1}] * 9, "too_few_fields"),
                         ([{"review": "x", "image": "y"}] * 3, "media")):  # fmt: skip
        assert reasons(made(Dynosaur([table(tmp_path, rows)]), replies=designer(TASK))) == {reason: 1}
    path = tmp_path / "empty.csv"
    path.write_text("review,stars\n")
    job = Dynosaur([{"path": str(path), "name": "e", "licence": "mit"}])
    assert reasons(made(job, replies=designer(TASK))) == {"no_rows": 1}


def test_hostile_cells_and_names(tmp_path: Path) -> None:
    path = tmp_path / "hostile.parquet"
    n = 4  # fewer than five rows
    pq.write_table(
        pa.table(
            {
                'it\'s "big"': ["x" * 10_000_000] * n,
                "user id": list(range(n)),
                "nothing": pa.array([None] * n, pa.string()),
                "flag": [True, False, True, False],
                "nested": [[{"k": [1]}]] * n,
                "raw bytes": pa.array([b"\x00"] * n),
                "a\nb": ["one", "two", None, "four"],
            }
        ),
        path,
    )
    tasks = [
        {"instruction": "Is it?", "input_fields": ['it\'s "big"'], "output_field": "flag"},
        {"instruction": "Empty.", "input_fields": ["flag"], "output_field": "nothing"},
        {"instruction": "Write it.", "input_fields": ["flag", 'it\'s "big"'], "output_field": "a\nb"},
    ]
    model = CannedModel(lambda _: reply(*tasks))
    job = Dynosaur([{"path": str(path), "name": "h", "description": "d", "licence": "mit"}], runs=["aware"])
    rows = made(job, replies={"generator": model})
    assert reasons(rows) == {"": 7, "invalid_field": 1, "no_value": 1}
    [prompt] = model.prompts
    assert len(prompt.messages[1].content) < 20_000
    assert json.dumps(['it\'s "big"', "flag", "a\nb"]) in prompt.messages[1].content
    assert {row.messages[1].content for row in accepted(rows)} == {"True", "False", "one", "two", "four"}


def test_a_csv_with_another_delimiter_and_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("review;stars\n" + "".join(f"r, {i};{i % 2}\n" for i in range(6)) + "only one field\n")
    job = Dynosaur([{"path": str(path), "name": "t", "licence": "mit"}])
    rows = made(job, replies=designer(TASK))
    assert reasons(rows) == {"": 6, "unreadable_row": 1, "no_description": 1}
    assert accepted(rows)[0].messages[0].content.endswith("\n\nr, 0")


def test_only_the_first_rows_are_read(tmp_path: Path) -> None:
    given_rows = [{"review": str(i), "stars": f"s{i}"} for i in range(300)]
    assert reasons(made(Dynosaur([table(tmp_path, given_rows)]), replies=designer(TASK))) == {"": 100, "same_task": 1}
    assert len(accepted(made(Dynosaur([table(tmp_path, given_rows)], rows=7), replies=designer(TASK)))) == 7


def test_the_key_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, same = (Dynosaur([table(tmp_path / name, REVIEWS)]) for name in "ab")
    assert one.told == same.told
    table(tmp_path / "b", REVIEWS[1:])
    assert same.told != one.told
    assert Dynosaur([table(tmp_path / "a", REVIEWS, description="Other.")]).told != one.told


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([], "tables"),
        ("file.csv", "tables"),
        ([{"path": "x.csv"}], "no name"),
        ([{"path": "x.csv", "name": "x", "license": "mit"}], "license.*licence"),
        ([{"path": "x.csv", "name": "x", "description": 3}], "description must be text"),
        ([{"path": "x.csv", "name": "x"}, {"path": "y.csv", "name": "x"}], "twice"),
    ],
)
def test_what_cannot_be_asked_for(tables: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dynosaur(tables)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no such file"):
        _ = Dynosaur([{"path": "/nowhere/x.csv", "name": "x", "licence": "mit"}]).told


def test_rejections_say_which_table(tmp_path: Path) -> None:
    [row] = made(Dynosaur([table(tmp_path, REVIEWS, licence="ofl")]))
    assert isinstance(row, Rejected)
    assert row.detail.startswith("reviews: ")

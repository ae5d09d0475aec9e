"""Every row filter: what each reason finds and leaves, and the laws that all of them keep."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from cleaning_rows import asked, block_of
from filter_examples import EXAMPLES, Example
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, Found, RowFilter, findings
from warehouse.cleaning.repetition import WORD, repeated_lines, repeated_words
from warehouse.cleaning.table import ROW_FILTERS
from warehouse.errors import InputError
from warehouse.facts import described
from warehouse.rejects import EXCERPT

PAGE = (Path(__file__).parents[2] / "docs" / "cleaning.md").read_text(encoding="utf-8")
NEEDED: dict[str, dict[str, Any]] = {
    "language": {"keep": ["en"]},
    "licence": {"deny": ["cc-by-nc*"], "deny_unknown": True},
}
NAMES = [f"{example.name}-{example.reason}-{at}" for at, example in enumerate(EXAMPLES)]


def made(name: str) -> RowFilter:
    return ROW_FILTERS[name](**NEEDED.get(name, {}))


def parameters(name: str) -> list[str]:
    return list(inspect.signature(ROW_FILTERS[name]).parameters)


def as_rows(found: Findings) -> list[tuple[int, str, str]]:
    return list(zip(found.rows.tolist(), found.reasons, found.details, strict=True))


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_what_a_reason_finds_and_leaves(example: Example) -> None:
    rows = [*example.found, *example.kept]
    metas = [example.meta] * len(example.found) + [example.kept_meta] * len(example.kept)
    found = ROW_FILTERS[example.name](**example.params)(described(block_of(rows, metas)))
    assert found.rows.tolist() == list(range(len(example.found)))
    assert set(found.reasons) == {example.reason}


def test_every_reason_has_an_example() -> None:
    shown = {(example.name, example.reason) for example in EXAMPLES}
    assert {(name, reason) for name in ROW_FILTERS for reason in made(name).reasons} - shown == set()


POOL = [turns for example in EXAMPLES for turns in (*example.found, *example.kept) if len(turns[0][1]) < 2_000]
TABLE = described(block_of(POOL, [{"license": ["mit", "cc-by-nc-4.0"][at % 2]} for at in range(len(POOL))])).table


@pytest.mark.parametrize("name", ROW_FILTERS)
def test_all_examples_together_are_found_by_every_filter_with_its_defaults(name: str) -> None:
    found = made(name)(Block(TABLE))
    assert len(found.rows)
    assert found.rows.dtype == np.int64
    assert (np.diff(found.rows) > 0).all()
    assert set(found.reasons) <= set(made(name).reasons)
    assert max(map(len, found.details), default=0) <= EXCERPT


@pytest.mark.parametrize("name", ROW_FILTERS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_row_is_looked_at_alone(name: str, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=25)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    each = {row: found for row, *found in as_rows(made(name)(Block(TABLE)))}
    table = TABLE.take(pa.array(rows))
    expected = [(at, *each[row]) for at, row in enumerate(rows.tolist()) if row in each]
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        part = as_rows(made(name)(Block(table.slice(start, stop - start))))
        parts += [(start + row, reason, detail) for row, reason, detail in part]
    assert as_rows(made(name)(Block(table))) == expected
    assert parts == expected


@pytest.mark.parametrize("name", ROW_FILTERS)
def test_a_filter_is_a_frozen_value(name: str) -> None:
    assert dataclasses.is_dataclass(ROW_FILTERS[name])
    assert made(name) == made(name)
    assert made(name).default_action in get_args(Action)
    assert len(set(made(name).reasons)) == len(made(name).reasons) > 0
    for field in parameters(name):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made(name), field, 1)


@pytest.mark.parametrize("name", ROW_FILTERS)
def test_a_filter_reads_no_other_facts_than_it_says(name: str) -> None:
    kept = ["messages", "source", "meta", *made(name).reads]
    assert as_rows(made(name)(Block(TABLE.select(kept)))) == as_rows(made(name)(Block(TABLE)))
    for fact in made(name).reads:
        with pytest.raises(KeyError):
            made(name)(Block(TABLE.drop_columns([fact])))


@pytest.mark.parametrize("name", ROW_FILTERS)
def test_the_page_tells_all_of_a_filter(name: str) -> None:
    section = re.search(rf"^## `{name}`$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    assert [part for part in (*parameters(name), *made(name).reasons) if f"`{part}`" not in section.group(1)] == []
    assert f"**{made(name).default_action}**" in section.group(1)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("length", {"min_chars": -1}, "min_chars is -1"),
    ("length", {"min_reply": 5, "max_reply": 4}, "no row could pass"),
    ("length", {"max_chars": "many"}, "max_chars is 'many'"),
    ("turns", {"min_turns": 2.5}, "whole number"),
    ("turns", {"alternating": "yes"}, "true or false"),
    ("language", {"keep": "en"}, "list of texts"),
    ("language", {"keep": []}, "name the languages"),
    ("language", {"keep": [False]}, "in quotes"),
    ("language", {"keep": ["english"]}, "ISO 639-1"),
    ("licence", {"deny": []}, "do nothing"),
    ("licence", {"deny": [""]}, "deny holds ''"),
    ("truncated_reply", {"min_words": 1}, "at least 3"),
    ("refusal", {"phrases": "no"}, "list of texts"),
    ("boilerplate", {"kinds": ["junk"]}, "known: placeholder"),
    ("boilerplate", {"kinds": []}, "do nothing"),
    ("repetition", {"max_word_share": 1.5}, "share from 0 to 1"),
    ("repetition", {"min_words": 5}, "at least 11"),
    ("pii", {"kinds": ["pii_name"]}, "known: pii_secret"),
    ("pii", {"kinds": []}, "do nothing"),
]


@pytest.mark.parametrize(
    ("name", "params", "message"), WRONG, ids=[f"{name}-{at}" for at, (name, *_) in enumerate(WRONG)]
)
def test_wrong_values_are_refused_by_name(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ROW_FILTERS[name](**params)


def test_details_of_pii_never_hold_what_was_found() -> None:
    secrets = [example.found for example in EXAMPLES if example.name == "pii"]
    texts = [turns[-1][1] for found in secrets for turns in found]
    found = ROW_FILTERS["pii"](private_addresses=True)(block_of([asked("a", text) for text in texts]))
    assert found.rows.tolist() == list(range(len(texts)))
    for text, detail in zip(texts, found.details, strict=True):
        assert re.findall(r"\w", detail) == re.findall(r"\w", detail[:2])
        assert not any(word in detail for word in re.findall(r"\w{3,}", text))


def test_findings_keep_the_first_reason_of_a_row() -> None:
    found = findings([Found("a", np.array([4, 1, 4]), ["x", "y", "z"]), Found("b", np.array([1, 2]), ["u", "v" * 999])])
    assert found.rows.tolist() == [1, 2, 4]
    assert list(found.reasons) == ["a", "b", "a"]
    assert [detail[:1] for detail in found.details] == ["y", "v", "x"]
    with pytest.raises(ValueError, match="ascend"):
        Findings(np.array([1, 1]), ["a", "a"], ["", ""])
    with pytest.raises(ValueError, match="2 reasons"):
        Findings(np.array([1]), ["a", "a"], [""])


LINES = st.lists(st.sampled_from(["first line", "second line", "a third line", "}", ""]), max_size=12).map("\n".join)
WORDS = st.lists(st.sampled_from(["red", "blue", "a", "语言"]), max_size=60).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, max_size=5), st.lists(WORDS, max_size=5))
def test_shares_are_those_of_a_count(lines: list[str], words: list[str]) -> None:
    def share(parts: list[Any]) -> float:
        return 1 - len(set(parts)) / len(parts)

    expected = {}
    for place, text in enumerate(lines):
        counted = [line for line in text.split("\n") if sum(map(str.isalpha, line)) >= 4]
        if len(counted) >= 3:
            expected[place] = share(counted)
    places, shares = repeated_lines(pa.array(lines, pa.string()), 3)
    assert dict(zip(places.tolist(), shares.tolist(), strict=True)) == pytest.approx(expected)
    expected = {}
    for place, text in enumerate(words):
        parts = text.split()
        if len(parts) >= WORD + 1:
            expected[place] = share([tuple(parts[at : at + WORD]) for at in range(len(parts) - WORD + 1)])
    places, shares = repeated_words(pa.array(words, pa.string()), WORD + 1)
    assert dict(zip(places.tolist(), shares.tolist(), strict=True)) == pytest.approx(expected)

"""Recipes' entries become methods, or errors that say what is known; the docs tell of every method and parameter."""

from pathlib import Path

import pytest
from selection_worlds import FILLED

import selection.table
from selection.reverse import Reverse
from selection.table import METHODS, build, parameters
from warehouse.errors import InputError
from warehouse.records import Spec

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def fill(field, given):
    return FILLED[field]


def test_the_run_fills_in_what_a_method_has_and_no_more():
    asked = []

    def noting(field, given):
        asked.append((field, dict(given)))
        return FILLED[field]

    assert build("rds_plus", {"policy": "consume"}, noting).representation == FILLED["representation"]
    tokens = Spec("length", {"unit": "tokens", "tokenizer": "tokenizer-1"})
    assert build("length", {}, noting).reads["length"] == tokens
    assert build("length", {"unit": "characters"}, noting).reads["length"] == Spec("length", {"unit": "characters"})
    assert build("random", {}, noting).reads == {}
    assert [field for field, _ in asked] == ["representation", "tokenizer", "tokenizer"]


def test_the_parameters_of_a_signal_go_to_what_fills_it_and_not_to_the_method():
    asked = {}
    build("perplexity", {"model": "mine", "take": "mid"}, lambda field, given: asked.setdefault(field, dict(given)))
    assert asked == {"response": {"model": "mine", "template": "tulu"}}


def test_a_length_in_tokens_is_never_keyed_without_its_tokenizer():
    with pytest.raises(ValueError, match="fingerprint of its tokenizer"):
        _ = build("length", {}, lambda field, given: "").reads


def test_any_method_can_be_reversed():
    turned = build("rds_plus", {"policy": "consume", "reverse": True}, fill)
    assert turned == Reverse(build("rds_plus", {"policy": "consume"}, fill))
    assert build("rds_plus", {"reverse": False}, fill) == build("rds_plus", {}, fill)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("rds", {}, "unknown method 'rds'; known methods: random, balanced_random, "),
        ("rds_plus", {"polcy": "retry"}, r"no parameter 'polcy'; known, with defaults: policy \(retry\), reverse"),
        ("rds_plus", {"representation": "x"}, "no parameter 'representation'"),
        ("random", {"seed": 3}, "no parameter 'seed'; known, with defaults: reverse \\(False\\)"),
        ("rds_plus", {"policy": "max"}, "policy must be one of retry, consume, global_max, found 'max'"),
        ("rds_plus", {"policy": ["retry"]}, "policy must be one of"),
        ("lexical", {"dims": "many"}, "dims must be a whole number, found 'many'"),
        ("lexical", {"dims": True}, "dims must be a whole number, found True"),
        ("lexical", {"dims": 1.5}, "dims must be a whole number"),
        ("lexical", {"dims": 0}, "dims is 0"),
    ],
)
def test_wrong_entries_are_said(name, params, message):
    with pytest.raises(InputError, match=message):
        build(name, params, fill)


def test_numbers_flags_and_texts_are_told_apart(monkeypatch):
    def some_method(share: float = 0.5, flag: bool = False, label: str = "a") -> None: ...

    monkeypatch.setitem(selection.table.METHODS, "some_method", some_method)
    known = parameters("some_method")
    assert known["share"].holds(1)
    assert not known["share"].holds(True)
    assert known["flag"].holds(False)
    assert not known["flag"].holds(0)
    assert known["label"].holds("b")
    assert not known["label"].holds(3)
    with pytest.raises(InputError, match="flag must be true or false, found 'yes'"):
        build("some_method", {"flag": "yes"}, fill)


def spellings(value):
    """How a person writes a default: 5 for 5.0, true for True."""
    return {str(value), str(value).lower()} | ({f"{value:g}"} if isinstance(value, float) else set())


@pytest.mark.parametrize("name", METHODS)
def test_the_docs_tell_of_every_method_and_parameter(name):
    text = DOCS.read_text(encoding="utf-8")
    assert f"\n## `{name}`\n" in text
    section = text.split(f"\n## `{name}`\n")[1].split("\n## ")[0]
    assert f"- name: {name}" in section
    for parameter in parameters(name).values():
        assert f"`{parameter.name}`" in section
        assert any(f"`{text}`" in section for text in spellings(parameter.default)), parameter

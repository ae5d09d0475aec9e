"""What holds for every entry of the table of synthesizers."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from models.protocol import Failure
from synthesis.table import SYNTHESIZERS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = {"tint": "world.md", "world": "world.md", "deita_grades": "synthesis.md", "back_translation": "synthesis/eda.md"}
ASK_MODELS = [name for name, made in SYNTHESIZERS.items() if name not in ("tint", "world", "long_output", "eda")]
# tint and world are described by what they make, deita_grades by the part `scorers` of a recipe
DESCRIBED = [name for name in SYNTHESIZERS if name not in ("tint", "world", "deita_grades")]
OTHER_VOICES = re.compile(r"^(?:judge|second)_")  # the same failures, of another role


def page(name: str) -> str:
    return (DOCS / PAGE.get(name, f"synthesis/{name}.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SYNTHESIZERS)
def test_an_entry_is_a_frozen_dataclass_with_a_closed_list_of_reasons(name: str) -> None:
    made: Any = SYNTHESIZERS[name]
    assert is_dataclass(made)
    assert made.__dataclass_params__.frozen
    assert all(re.fullmatch(r"[a-z0-9_]+", reason) for reason in made.reasons)


@pytest.mark.parametrize("name", ASK_MODELS)
def test_who_asks_models_says_why_no_reply_came(name: str) -> None:
    made: Any = SYNTHESIZERS[name]
    assert set(get_args(Failure)) - {""} <= made.reasons


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_parameter_is_on_its_page(name: str) -> None:
    text = page(name)
    parameters = [field.name for field in fields(SYNTHESIZERS[name])]  # type: ignore[arg-type]
    assert [parameter for parameter in parameters if f"`{parameter}`" not in text] == []
    assert list(inspect.signature(SYNTHESIZERS[name]).parameters) == parameters


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_reason_is_on_its_page(name: str) -> None:
    made: Any = SYNTHESIZERS[name]
    shared = (DOCS / "synthesis.md").read_text() + (DOCS / "synthesis" / "verifiers.md").read_text()
    text = page(name) + shared
    spelled = {reason: (reason, OTHER_VOICES.sub("", reason)) for reason in made.reasons}
    assert sorted(reason for reason, ways in spelled.items() if not any(f"`{way}`" in text for way in ways)) == []

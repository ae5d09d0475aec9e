"""The pages of these synthesizers name every parameter with its default, every reason and every role."""

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from models.telling import Telling
from synthesis import evol, open_recipe, quality, think_patterns, ways
from synthesis.attempts import LOST, TEMPLATES
from synthesis.evol import Evol
from synthesis.open_recipe import OpenRecipe
from synthesis.self_instruct import growth, instances
from synthesis.self_instruct.synthesizer import SelfInstruct
from synthesis.think_patterns import ThinkPatterns

DOCS = Path(__file__).parents[2] / "docs" / "synthesis"
PAGES: dict[str, Callable[..., Any]] = {
    "self_instruct": SelfInstruct, "open_recipe": OpenRecipe, "evol": Evol, "think_patterns": ThinkPatterns,
}  # fmt: skip


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_reason_is_explained(name: str) -> None:
    told = set(re.findall(r"`([a-z0-9_]+)`", page(name).partition("## Reasons")[2]))
    by_role = {f"{role}_{lost}" for role in ("judge", "second") for lost in LOST} if name == "open_recipe" else set()
    assert PAGES[name].reasons - told - by_role == set()  # type: ignore[attr-defined]
    assert not by_role or "`judge_...`, `second_...`" in page(name)


@pytest.mark.parametrize("name", PAGES)
def test_every_parameter_has_its_default(name: str) -> None:
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", page(name).partition("## Parameters")[2], re.MULTILINE)
    shown = {
        key: value
        for keys, values in rows
        for key, value in zip(re.findall(r"`(\w+)`", keys), values.split(", "), strict=False)
    }
    for one in fields(PAGES[name]):
        assert one.name in shown
        default = shown[one.name].strip("`")
        if one.default is MISSING:
            assert default == "required"
        elif isinstance(one.default, bool | int | float | str):
            assert default == (str(one.default).lower() if isinstance(one.default, bool) else str(one.default))


@pytest.mark.parametrize("room", [growth, instances, ways, quality, evol, think_patterns, open_recipe])
def test_every_template_that_is_used_is_a_file(room: Any) -> None:
    for telling in vars(room).values():
        if isinstance(telling, Telling):
            assert (TEMPLATES / f"{telling.name}.jinja").read_text(encoding="utf-8") == telling.text

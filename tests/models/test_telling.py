"""Templates: what is told, its key, and what happens with a slot that nothing fills."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from models.telling import telling


def test_a_template_is_filled_and_known_by_its_words(tmp_path: Path) -> None:
    (tmp_path / "ask.v1.jinja").write_text("\nSay {{ what }} & <no more>.\n")
    (tmp_path / "ask.v2.jinja").write_text("\nSay {{ what }} & <no less>.\n")
    first, second = telling(tmp_path, "ask.v1"), telling(tmp_path, "ask.v2")
    assert first(what="'{{ x }}'") == "Say '{{ x }}' & <no more>."
    assert first.key == telling(tmp_path, "ask.v1").key != second.key


def test_a_missing_slot_is_a_mistake_and_no_hole(tmp_path: Path) -> None:
    (tmp_path / "ask.v1.jinja").write_text("Say {{ what }}.")
    with pytest.raises(UndefinedError, match="what"):
        telling(tmp_path, "ask.v1")(waht="x")

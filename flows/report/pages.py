"""The templates: everything that is not our own markup is escaped, and nothing in it is hidden."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.report import text

FOLDER = Path(__file__).parent / "templates"
FORMS = (
    text.number, text.signed, text.p_value, text.count, text.percent, text.seconds, text.flops, text.plural, text.short,
    text.label,
)  # fmt: skip


@cache
def environment() -> Environment:
    """Escaping is always on; control characters of every text are spelled out before it is escaped."""
    env = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for form in FORMS:
        env.filters[form.__name__] = form
    return env


def _visible(value: Any) -> Any:
    return text.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(template: str, **values: Any) -> Markup:
    """A template filled in. It is markup: its shapes are ours, and its values were escaped."""
    return Markup(environment().get_template(template).render(**values))


def own(name: str) -> Markup:
    """A file of this package as it stands: the style sheet and the script."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))

"""What models are told: Jinja templates in versioned files, each known by the hash of its text."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from warehouse.records import digest


@dataclass(frozen=True, slots=True)
class Telling:
    """A template `name` ("evolve.v1") and its text; `key` changes with every word."""

    name: str
    text: str

    @property
    def key(self) -> str:
        return digest(self.text)

    def __call__(self, **slots: object) -> str:
        """The text with its slots filled, without white space around it. Raises `UndefinedError` for a missing slot."""
        return _compiled(self.text).render(**slots).strip()


def telling(folder: Path, name: str) -> Telling:
    """The template in `folder`/`name`.jinja."""
    return Telling(name, (folder / f"{name}.jinja").read_text(encoding="utf-8"))


@cache
def _compiled(text: str) -> Template:
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False).from_string(text)

"""A table as the user describes it, and its rows as they are read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from synthesis.fault import Fault
from synthesis.files import content_of, rows_of
from warehouse.errors import InputError
from warehouse.licences import card_licence, normalised_licence
from warehouse.records import canonical, digest
from warehouse.rejects import Refused

Row: TypeAlias = Mapping[str, Any]
"""A row of a table: its columns in their order."""


@dataclass(frozen=True, slots=True)
class Card:
    """A table's file (or folder, or saved data set) and what is known about it.

    `licence` is by default the one that a README.md in the folder names. `labels` says what the whole numbers of a
    column stand for: the i-th name for i.
    """

    path: str
    name: str
    description: str = ""
    licence: str = ""
    url: str = ""
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = {"path": self.path, "name": self.name, "description": self.description, "licence": self.licence,
                 "url": self.url}  # fmt: skip
        if wrong := [name for name, value in texts.items() if not isinstance(value, str)]:
            raise InputError(f"a table's {', '.join(wrong)} must be text; found {texts[wrong[0]]!r}")
        if not (self.path.strip() and self.name.strip()):
            raise InputError(f"a table needs a path and a name; found path {self.path!r} and name {self.name!r}")

    @property
    def key(self) -> str:
        """Changes with what the table holds and what is said about it, not with where it lies."""
        said = [self.name, self.description, self.known_licence, self.url, {k: list(v) for k, v in self.labels.items()}]
        return digest(canonical([*said, content_of(self.path)]))

    @property
    def known_licence(self) -> str:
        """The licence, spelt as everywhere in the warehouse; "" where none is known."""
        if self.licence.strip():
            return normalised_licence(self.licence)
        folder = Path(self.path).expanduser()
        return (card_licence(folder) or "") if folder.is_dir() else ""


def cards(given: Sequence[Mapping[str, Any]]) -> tuple[Card, ...]:
    """What a recipe lists. Raises `InputError` for a key that is not known, and where two tables have one name."""
    known = Card.__slots__
    for one in given:
        if not isinstance(one, Mapping):
            raise InputError(f"tables holds {one!r}; each table is a mapping with path, name and description")
        if unknown := sorted(set(one) - set(known)):
            raise InputError(f"a table has no {', '.join(unknown)}; known: {', '.join(known)}")
        if missing := sorted({"path", "name"} - set(one)):
            raise InputError(f"the table {dict(one)} has no {' and no '.join(missing)}")
    found = tuple(Card(**one) for one in given)
    names = [card.name for card in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"tables: {', '.join(twice)} is there twice; give each table a name of its own")
    return found


def read_rows(card: Card, most: int) -> tuple[list[Row], list[Fault]]:
    """The first `most` rows of a table, and why some of them cannot be read."""
    rows, faults = list[Row](), list[Fault]()
    for place, row in islice(rows_of(card.path), most):
        if isinstance(row, Refused):
            faults.append(Fault("unreadable_row", f"{place}: {row.reason}: {row.detail}"))
        else:
            rows.append(named_labels(row, card.labels))
    return rows, faults


def named_labels(row: Row, labels: Mapping[str, Sequence[str]]) -> Row:
    """`row` with the names of its labels in place of their numbers; a number that has no name stays."""
    return {name: _named(value, labels[name]) if name in labels else value for name, value in row.items()}


def _named(value: Any, names: Sequence[str]) -> Any:
    text = str(value).strip()
    return names[int(text)] if text.isdecimal() and int(text) < len(names) else value


def is_null(value: Any) -> bool:
    """Whether a cell holds nothing: null, or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_scalar(value: Any) -> bool:
    """Whether a cell holds one text, number or truth value (dates count: they have one way to be written)."""
    return isinstance(value, str) or not (is_null(value) or isinstance(value, Mapping | Sequence | set))

"""What a user may type for a pool version or a selection, and what it means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from warehouse.ask import ask
from warehouse.errors import InputError

SHORT = 12
MOST_NAMED = 8  # in an error message
POOLS = "SELECT pool, name, version, n, rows_in, rejected, made FROM pools ORDER BY name, version"
LAST_CHOICE = """SELECT selection FROM selections JOIN stages ON key = selection
    WHERE method = ? AND budget = ? AND seed = ? ORDER BY run DESC, selection LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a pool: its key, its name and number, the rows it has, and how many were read and rejected."""

    key: str
    name: str
    version: int
    n: int
    rows_in: int
    rejected: int
    made: datetime

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def folder(self, home: Path) -> Path:
        return next(home.glob(f"artifacts/*/{self.key}/pool.parquet")).parent


def versions(home: Path) -> list[Version]:
    """Every pool version of `home`, by name and version."""
    return [Version(*row) for row in ask(home, POOLS).rows]


def pool(home: Path, text: str) -> Version:
    """The version that `text` names: a name (its latest version), `name@2`, or the unique beginning of a key.

    Raises `InputError` where there is none, or several.
    """
    known = versions(home)
    name, mark, number = text.rpartition("@")
    if named := [each for each in known if each.name == text]:
        return named[-1]
    if mark and number.isdigit() and (named := [each for each in known if each.name == name]):
        if found := [each for each in named if each.version == int(number)]:
            return found[0]
        raise InputError(f"pool {name!r} has no version {number}; it has {', '.join(str(v.version) for v in named)}")
    begun = [each for each in known if text and each.key.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise InputError(f"{len(begun)} pools have keys that begin with {text!r}: {_listed(begun)}; give more of it")
    there = f"there are {_listed(known)}" if known else "there are none yet"
    raise InputError(f"no pool is named {text!r}, nor does a key of one begin so; {there}")


def _listed(known: Sequence[Version]) -> str:
    shown = ", ".join(f"{each} ({each.key[:SHORT]})" for each in known[:MOST_NAMED])
    return f"{shown} and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else shown


def selection(home: Path, text: str) -> str:
    """The key of the selection that `text` names: the unique beginning of a key, or `method:budget:seed`.

    Of several runs that asked for the same method, budget and seed the last one counts. Raises `InputError` where there
    is none, or several.
    """
    method, *numbers = text.rsplit(":", 2)
    if len(numbers) == 2 and all(number.isdigit() for number in numbers):
        found = ask(home, LAST_CHOICE, [method, *map(int, numbers)]).rows
        if found:
            return str(found[0][0])
    begun = ask(home, "SELECT selection FROM selections WHERE starts_with(selection, ?)", [text]).rows
    if len(begun) == 1 and text:
        return str(begun[0][0])
    if begun and text:
        raise InputError(f"{len(begun)} selections have keys that begin with {text!r}; give more of it")
    known = ask(home, "SELECT DISTINCT concat_ws(':', method, budget, seed) AS c FROM selections ORDER BY c").rows
    shown = ", ".join(str(row[0]) for row in known[:MOST_NAMED]) or "none yet"
    raise InputError(f"no selection is {text!r}; give the beginning of a key, or method:budget:seed; there are {shown}")

"""What tests of the command line share: what a call answered, and small files of rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Said:
    """What one call of the command line answered."""

    code: int
    out: str
    err: str


Winnow = Callable[..., Said]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """`rows` as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alpaca(n: int, word: str = "river") -> list[dict[str, Any]]:
    """`n` different rows in the Alpaca layout."""
    return [{"instruction": f"Reverse the {word} {i}", "input": "", "output": f"done {i}"} for i in range(n)]

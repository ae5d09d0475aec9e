"""A file of what was found so far, a JSON line each, so that a benchmark that was stopped goes on where it was."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Journal:
    """Values by what was asked, kept in the file `path`; in this process alone where there is none.

    A last line that was cut off by a stop counts as never written. Whoever changes what an answer rests on deletes
    the file: it knows nothing of code.
    """

    path: Path | None = None
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            *asked, value = json.loads(line)
            self._known[tuple(asked)] = value

    def __contains__(self, asked: tuple[Any, ...]) -> bool:
        return asked in self._known

    def __getitem__(self, asked: tuple[Any, ...]) -> Any:
        return self._known[asked]

    def add(self, asked: tuple[Any, ...], value: Any) -> None:
        """Keep `value`, of JSON, under `asked`, of texts and numbers."""
        self._known[asked] = value
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*asked, value]) + "\n")

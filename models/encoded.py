"""Rows as ids, remembered for a while: an evaluation looks whether its prompts fit before it asks them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tokenizers import Tokenizer

from models.chat import ChatFormat, Tokens, encode
from warehouse.records import Messages

KEPT = 1 << 20  # tokens remembered: 5 MB of ids and reply marks, and their rows
Row: TypeAlias = tuple[Messages, bool]


@dataclass(slots=True)
class Encoded:
    """`models.chat.encode` of rows in one format, uncut; the last `kept` tokens of rows are not encoded again.

    Equal rows share their arrays, which nobody may write on.
    """

    backend: Tokenizer
    chat: ChatFormat
    kept: int = KEPT
    _known: dict[Row, Tokens] = field(default_factory=dict)
    _held: int = 0

    def __call__(self, rows: Sequence[Messages], ask: bool = False) -> list[Tokens]:
        """Ids and reply marks of rows, in the order given; with `ask` followed by the mark that opens a reply."""
        wanted = [(tuple(row), ask) for row in rows]
        missing = [key for key in dict.fromkeys(wanted) if key not in self._known]
        fresh = dict(zip(missing, encode(self.backend, self.chat, [row for row, _ in missing], ask=ask), strict=True))
        found = [fresh[key] if key in fresh else self._known[key] for key in wanted]
        self._remember(fresh)
        return found

    def _remember(self, fresh: Mapping[Row, Tokens]) -> None:
        """What was encoded first is forgotten first."""
        self._known |= fresh
        self._held += sum(len(tokens.ids) for tokens in fresh.values())
        while self._held > self.kept:
            self._held -= len(self._known.pop(next(iter(self._known))).ids)

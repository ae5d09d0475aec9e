"""Counting tokens without loading a model: the `tokenizers` library and the model's chat format, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.chat import ChatFormat, chat_format
from models.fingerprint import fetch, read_json
from models.pieces import PieceCounter, piece_counter
from warehouse.errors import InputError
from warehouse.records import Messages

BLOCK_ROWS = 256  # what a tokenizer encodes at once: more is slower, and holds every token as an object


def row_lengths(name: str, rows: Sequence[Messages], template: str = "tulu") -> NDArray[np.int64]:
    """Tokens of each row, (n,) int64, as the model `name` reads it and before any truncation.

    Raises `InputError` where `name` has no `tokenizer.json`.
    """
    return counter(fetch(name), template)(rows)


@dataclass(slots=True)
class Counter:
    """Counts the tokens of rows in a model's chat format; memory is bounded by a few rows."""

    tokenizer: Tokenizer
    chat: ChatFormat
    _by_piece: PieceCounter | None = None
    _tried: bool = False

    def __call__(self, rows: Sequence[Messages]) -> NDArray[np.int64]:
        """(n,) int64, before any truncation."""
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        counts = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), BLOCK_ROWS):
            texts = [self.chat.render(row).text for row in rows[start : start + BLOCK_ROWS]]
            counts[start : start + len(texts)] = self._counted(texts)
        return counts

    def _counted(self, texts: list[str]) -> list[int]:
        if not self._tried:
            self._by_piece, self._tried = piece_counter(self.tokenizer, texts), True
        if self._by_piece is not None:
            return [self._by_piece(text) for text in texts]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)  # keeps no offsets
        return [len(encoding) for encoding in encodings]


@lru_cache(maxsize=8)
def counter(folder: Path, template: str = "tulu") -> Counter:
    """The counter of the model in `folder`; a process keeps what it has learnt."""
    return Counter(*load_tokenizer(folder, template))


def load_tokenizer(folder: Path, template: str = "tulu") -> tuple[Tokenizer, ChatFormat]:
    """The tokenizer in `folder` and the chat format of its model."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no tokenizer.json; load its tokenizer with transformers once and save it there"
        )
    tokenizer = Tokenizer.from_file(str(path))
    named = (folder / "special_tokens_map.json", folder / "tokenizer_config.json")
    config = dict(chain.from_iterable(read_json(file).items() for file in named if file.exists()))
    own = folder / "chat_template.jinja"
    carried = own.read_text(encoding="utf-8") if own.exists() else config.get("chat_template")
    bos, eos = _text(config, "bos_token"), _text(config, "eos_token")
    return tokenizer, chat_format(tokenizer, eos, template, carried, bos)


def _text(config: dict[str, Any], token: str) -> str | None:
    """A special token as text; older files hold it as an object with its text under "content"."""
    value = config.get(token)
    return value["content"] if isinstance(value, dict) else value

"""Counting tokens without loading a model: the `tokenizers` library and the model's chat format, no torch."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.chat import ChatFormat, chat_format
from models.fingerprint import fetch, read_json
from warehouse.errors import InputError
from warehouse.records import Messages

BLOCK_ROWS = 256  # what a tokenizer encodes at once: more is slower, and holds every token as an object


def row_lengths(name: str, rows: Sequence[Messages], template: str = "tulu") -> NDArray[np.int64]:
    """Tokens of each row, (n,) int64, as the model `name` reads it and before any truncation.

    Raises `InputError` where `name` has no `tokenizer.json`.
    """
    tokenizer, chat = load_tokenizer(fetch(name), template)
    return lengths(tokenizer, chat, rows)


def lengths(tokenizer: Tokenizer, chat: ChatFormat, rows: Sequence[Messages]) -> NDArray[np.int64]:
    """Tokens of each row, (n,) int64, before any truncation; memory is bounded by a block of rows."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK_ROWS):
        texts = [chat.render(row).text for row in rows[start : start + BLOCK_ROWS]]
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)  # keeps no offsets, unlike `encode`
        counts[start : start + len(texts)] = [len(encoding) for encoding in encodings]
    return counts


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

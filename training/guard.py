"""The row guard: what must be true of a row before it is trained on, and what truncation costs.

One bad row stops the libraries underneath (a conversation without a reply, content that is null) or is trained on in
silence without any label (a reply that was cut off). Such rows are rejected here, with a reason, before a model loads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.chat import ChatFormat, Tokens, encode
from warehouse.errors import InputError
from warehouse.records import ROLES, Message, Messages, Rows

Reason = Literal["no_assistant_turn", "null_content", "unknown_role", "empty_reply", "no_label_tokens"]
REASONS: tuple[str, ...] = get_args(Reason)
IGNORED = -100  # the label of a token that the loss does not see
BLOCK_ROWS = 8192

Turns = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The k rows that passed, tokenised, and what happened to the others.

    table         k rows: `input_ids`, `labels` (-100 where the loss does not look) and `rows` (the row number in the
                  data, once per token), each a list of int32 of the row's length
    numbers       (k,) int64, the row number of each in the data
    lengths       (k,) int64, tokens after truncation
    label_tokens  (k,) int64, tokens that the loss sees
    rejected      reason to row numbers, for every reason of `REASONS`
    cut           rows that passed but were truncated
    lost          label tokens that truncation took away, of passed and rejected rows together
    """

    table: pa.Table
    numbers: Rows
    lengths: NDArray[np.int64]
    label_tokens: NDArray[np.int64]
    rejected: Mapping[str, tuple[int, ...]]
    cut: int
    lost: int

    @property
    def share_lost(self) -> float:
        """Share of all label tokens that truncation took away, 0 to 1."""
        return self.lost / max(1, self.lost + int(self.label_tokens.sum()))

    def funnel(self) -> dict[str, int]:
        """Rows in, rows kept, and rows dropped by reason; the counts add up."""
        dropped = {reason: len(rows) for reason, rows in self.rejected.items()}
        return {"rows_in": len(self.numbers) + sum(dropped.values()), "kept": len(self.numbers), **dropped}


def fault(turns: Turns | None) -> Reason | None:
    """What is wrong with the messages of a row as they were stored, or None."""
    turns = turns or ()
    if any(turn.get("content") is None for turn in turns):
        return "null_content"
    if any(turn.get("role") not in ROLES for turn in turns):
        return "unknown_role"
    replies = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    if not replies:
        return "no_assistant_turn"
    return None if any(reply.strip() for reply in replies) else "empty_reply"


def guard(path: Path, tokenizer: Tokenizer, chat: ChatFormat, max_length: int) -> Guarded:
    """Tokenise the rows of a Parquet file with a `messages` column, keeping those that can be learnt from.

    Memory holds the token ids of the kept rows and one block of text. Raises `InputError` where there is no such file
    or column, or where no row is left.
    """
    kept, cut, lost = _Kept(), 0, 0
    rejected: dict[str, list[int]] = {reason: [] for reason in REASONS}
    for start, block in _blocks(path):
        numbers, messages = _sound(start, block, rejected)
        for number, tokens in zip(numbers, encode(tokenizer, chat, messages), strict=True):
            lost += int(np.count_nonzero(tokens.reply[max_length:]))
            if not tokens.reply[1:max_length].any():  # the first token of a row has nothing to be predicted from
                rejected["no_label_tokens"].append(number)
                continue
            cut += len(tokens.ids) > max_length
            kept.add(number, tokens, max_length)
        kept.close_block()
    if not kept.numbers:
        raise InputError(f"{path}: no row is left to train on; rejected: {_counts(rejected)}")
    return kept.guarded({reason: tuple(rows) for reason, rows in rejected.items()}, cut, lost)


def _blocks(path: Path) -> Iterator[tuple[int, list[Turns | None]]]:
    """The raw messages of the file, in blocks, each with the number of its first row."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; a dataset is a Parquet file with a `messages` column")
    file = pq.ParquetFile(path)
    if "messages" not in file.schema_arrow.names:
        raise InputError(f"{path}: found columns {', '.join(file.schema_arrow.names)}; expected a `messages` column")
    start = 0
    for batch in file.iter_batches(BLOCK_ROWS, columns=["messages"]):
        yield start, batch.column(0).to_pylist()
        start += len(batch)


def _sound(start: int, block: list[Turns | None], rejected: dict[str, list[int]]) -> tuple[list[int], list[Messages]]:
    """Numbers and messages of the rows without a fault; the others are added to `rejected`."""
    numbers, messages = [], []
    for number, turns in enumerate(block, start):
        if reason := fault(turns):
            rejected[reason].append(number)
        else:
            numbers.append(number)
            messages.append(tuple(Message(turn["role"], turn["content"]) for turn in turns or ()))
    return numbers, messages


def _counts(rejected: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{len(rows)} {reason}" for reason, rows in rejected.items() if rows) or "none, the file is empty"


@dataclass(slots=True)
class _Kept:
    """Rows as they pass, turned into Arrow batches block by block."""

    numbers: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    label_tokens: list[int] = field(default_factory=list)
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    labels: list[NDArray[np.int32]] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, number: int, tokens: Tokens, max_length: int) -> None:
        ids, reply = tokens.ids[:max_length], tokens.reply[:max_length]
        self.numbers.append(number)
        self.lengths.append(len(ids))
        self.label_tokens.append(int(np.count_nonzero(reply[1:])))
        self.ids.append(ids)
        self.labels.append(np.where(reply, ids, IGNORED).astype(np.int32))

    def close_block(self) -> None:
        if not self.ids:
            return
        lengths = self.lengths[-len(self.ids) :]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        per_token = np.repeat(np.asarray(self.numbers[-len(lengths) :], np.int32), lengths)
        columns = {"input_ids": np.concatenate(self.ids), "labels": np.concatenate(self.labels), "rows": per_token}
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}
        self.batches.append(pa.RecordBatch.from_pydict(lists))
        self.ids, self.labels = [], []

    def guarded(self, rejected: Mapping[str, tuple[int, ...]], cut: int, lost: int) -> Guarded:
        numbers, lengths, label_tokens = (
            np.asarray(x, np.int64) for x in (self.numbers, self.lengths, self.label_tokens)
        )
        return Guarded(pa.Table.from_batches(self.batches), numbers, lengths, label_tokens, rejected, cut, lost)

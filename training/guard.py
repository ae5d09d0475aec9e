"""The row guard: what must be true of a row before it is trained on, and what truncation costs.

One bad row stops the libraries underneath (a conversation without a reply, content that is null) or is trained on in
silence without any label (a reply that was cut off). Such rows are rejected here, with a reason, before a model loads.
"""

import json
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
from warehouse.records import ROLES, Floats, Message, Messages, Rows

Reason = Literal["no_assistant_turn", "null_content", "unknown_role", "empty_reply", "no_label_tokens"]
REASONS: tuple[str, ...] = get_args(Reason)
IGNORED = -100  # the label of a token that the loss does not see
BLOCK_ROWS = 8192

Turns = Sequence[Mapping[str, Any]]
Meta = Mapping[str, Any]


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
    unfinished    rows whose last reply was cut where it was made, so that its end token is no label
    weights       (k,) float64, what the rows' `meta` says of their weight, or None where none says anything
    """

    table: pa.Table
    numbers: Rows
    lengths: NDArray[np.int64]
    label_tokens: NDArray[np.int64]
    rejected: Mapping[str, tuple[int, ...]]
    cut: int
    lost: int
    unfinished: int = 0
    weights: Floats | None = None

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


def guard(path: Path, tokenizer: Tokenizer, chat: ChatFormat, max_length: int, response_only: bool = False) -> Guarded:
    """Tokenise the rows of a Parquet file with a `messages` column, keeping those that can be learnt from.

    A column `meta` with JSON objects, where there is one, is asked for two things: `complete: false` says that the last
    reply was cut where it was made, and then its end token is no label (it would teach to stop in mid-sentence);
    `weight` is a number above 0. With `response_only` only the replies of a row are read.

    Memory holds the token ids of the kept rows and one block of text. Raises `InputError` where there is no such file
    or column, or where no row is left.
    """
    kept, cut, lost = _Kept(), 0, 0
    first = 0  # tokens that the first label token of the rows without any would need
    rejected: dict[str, list[int]] = {reason: [] for reason in REASONS}
    ends = special_ids(tokenizer)
    for start, block, metas in _blocks(path):
        numbers, messages = _sound(start, block, rejected)
        if response_only:
            messages = [tuple(turn for turn in row if turn.role == "assistant") for row in messages]
        for number, tokens in zip(numbers, encode(tokenizer, chat, messages), strict=True):
            meta = _meta(path, number, metas[number - start])
            if unfinished := meta.get("complete") is False:
                tokens = without_end(tokens, ends)
            lost += int(np.count_nonzero(tokens.reply[max_length:]))
            if not tokens.reply[1:max_length].any():  # the first token of a row has nothing to be predicted from
                rejected["no_label_tokens"].append(number)
                first = min(filter(None, (first, _needed(tokens))), default=0)
                continue
            cut += len(tokens.ids) > max_length
            kept.add(number, tokens, max_length, meta.get("weight", 1.0), unfinished)
        kept.close_block()
    if not kept.numbers:
        later = f"; no reply begins within max_length, {max_length} tokens: raise it to {first} or more"
        raise InputError(f"no row is left to train on; rejected: {_counts(rejected)}{later if first else ''}")
    return kept.guarded({reason: tuple(rows) for reason, rows in rejected.items()}, cut, lost)


def _needed(tokens: Tokens) -> int:
    """Tokens of a row until its first label; 0 where it has none."""
    labels = np.flatnonzero(tokens.reply[1:])
    return int(labels[0]) + 2 if len(labels) else 0


def without_end(tokens: Tokens, ends: frozenset[int]) -> Tokens:
    """The row with the last special token of its last reply, and what follows that, taken out of the reply."""
    replies = np.flatnonzero(tokens.reply)
    last = np.split(replies, np.flatnonzero(np.diff(replies) > 1) + 1)[-1]  # the tokens of the last reply
    places = last[np.isin(tokens.ids[last], list(ends))]
    reply = tokens.reply.copy()
    if len(places):
        reply[places[-1] :] = False
    return Tokens(tokens.ids, reply, tokens.truncated)


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of the tokens that no text contains, those that end a turn among them."""
    return frozenset(id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special)


def _meta(path: Path, number: int, text: str | None) -> Meta:
    """What a row's `meta` says. Raises `InputError` for a weight that is none."""
    if not text or ("complete" not in text and "weight" not in text):
        return {}
    try:
        read = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: `meta` of row {number} is no JSON object: {error}") from error
    meta = read if isinstance(read, dict) else {}
    weight = meta.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < np.inf:
        raise InputError(f"{path}: `meta.weight` of row {number} is {weight!r}; give a number above 0, or leave it out")
    return meta


def _blocks(path: Path) -> Iterator[tuple[int, list[Turns | None], list[str | None]]]:
    """The raw messages of the file and the JSON text beside them, in blocks, each with the number of its first row."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; a dataset is a Parquet file with a `messages` column")
    file = pq.ParquetFile(path)
    if "messages" not in file.schema_arrow.names:
        raise InputError(f"{path}: found columns {', '.join(file.schema_arrow.names)}; expected a `messages` column")
    start, schema = 0, file.schema_arrow
    told = "meta" in schema.names and (
        pa.types.is_string(kind := schema.field("meta").type) or pa.types.is_large_string(kind)
    )
    for batch in file.iter_batches(BLOCK_ROWS, columns=["messages", "meta"] if told else ["messages"]):
        metas = batch.column("meta").to_pylist() if told else [None] * len(batch)
        yield start, batch.column("messages").to_pylist(), metas
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
    weights: list[float] = field(default_factory=list)
    unfinished: int = 0
    ids: list[NDArray[np.int32]] = field(default_factory=list)
    labels: list[NDArray[np.int32]] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)

    def add(self, number: int, tokens: Tokens, max_length: int, weight: float, unfinished: bool) -> None:
        ids, reply = tokens.ids[:max_length], tokens.reply[:max_length]
        self.numbers.append(number)
        self.lengths.append(len(ids))
        self.label_tokens.append(int(np.count_nonzero(reply[1:])))
        self.weights.append(weight)
        self.unfinished += unfinished
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
        weights = np.asarray(self.weights, np.float64)
        return Guarded(
            pa.Table.from_batches(self.batches),
            numbers,
            lengths,
            label_tokens,
            rejected,
            cut,
            lost,
            self.unfinished,
            None if (weights == 1).all() else weights,
        )

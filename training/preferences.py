"""The pair guard: preference pairs as token ids, those that can be learnt from, and what truncation costs."""

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
from training.guard import Guarded
from warehouse.errors import InputError
from warehouse.records import ROLES, Message, Messages

Reason = Literal["null_content", "unknown_role", "no_prompt", "empty_reply", "same_replies", "no_label_tokens"]
REASONS: tuple[str, ...] = get_args(Reason)
COLUMNS = ("prompt", "chosen", "rejected")
BLOCK_ROWS = 4096

Turns = Sequence[Mapping[str, Any]]
Ids = NDArray[np.int32]


def fault(prompt: Turns | None, chosen: Turns | None, rejected: Turns | None) -> Reason | None:
    """What is wrong with a pair as it was stored, or None. A reply is one assistant turn."""
    prompt, replies = prompt or (), (chosen or (), rejected or ())
    turns = [*prompt, *replies[0], *replies[1]]
    if any(turn.get("content") is None for turn in turns):
        return "null_content"
    if any(turn.get("role") not in ROLES for turn in turns) or any(
        [turn["role"] for turn in reply] not in ([], ["assistant"]) for reply in replies
    ):
        return "unknown_role"
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in prompt):
        return "no_prompt"
    texts = [reply[0]["content"].strip() if reply else "" for reply in replies]
    if not all(texts):
        return "empty_reply"
    return "same_replies" if texts[0] == texts[1] else None


def guard_pairs(path: Path, tokenizer: Tokenizer, chat: ChatFormat, max_length: int) -> Guarded:
    """Tokenise the pairs of a Parquet file with the columns `prompt`, `chosen` and `rejected`, lists of turns each.

    The answer counts as that of `guard` does, with pairs for rows: `lengths` are tokens of both sequences of a pair,
    the prompt in each, `label_tokens` those of both replies, and `rejected` has the reasons of `REASONS` here. Its
    table has the columns `input_ids` (the prompt with the chosen reply) and `rejected_ids` (with the rejected one),
    lists of int32 that end with the end token unless they were cut; `prompt`, how many tokens of both are the prompt;
    and `row`, the row number in the data.

    A prompt with its reply longer than `max_length` tokens is cut on the right. A pair is rejected where nothing of a
    reply is left, or where both are the same then. Memory holds the token ids of the kept pairs and one block of text.
    Raises `InputError` where there is no such file or column, or where no pair is left.
    """
    kept, cut, lost = _Kept(), 0, 0
    rejected: dict[str, list[int]] = {reason: [] for reason in REASONS}
    for start, block in _blocks(path):
        numbers, sides = _sound(start, block, rejected)
        first, second = (encode(tokenizer, chat, side) for side in sides)
        for number, chosen, other in zip(numbers, first, second, strict=True):
            pair = _parted(chosen, other)
            whole = [len(pair.prompt) + len(reply) for reply in pair.replies]
            lost += sum(min(max(0, n - max_length), len(r)) for n, r in zip(whole, pair.replies, strict=True))
            pair = pair.truncated(max_length)
            if reason := pair.fault():
                rejected[reason].append(number)
                continue
            cut += max(whole) > max_length
            kept.add(number, pair)
    if not kept.numbers:
        told = ", ".join(f"{len(rows)} {reason}" for reason, rows in rejected.items() if rows)
        short = rejected["no_label_tokens"] or rejected["same_replies"]
        longer = f"; within max_length, {max_length} tokens, no two replies differ: raise it" if short else ""
        raise InputError(f"no pair is left to train on; rejected: {told or 'none, the file is empty'}{longer}")
    return kept.guarded({reason: tuple(rows) for reason, rows in rejected.items()}, cut, lost)


def _blocks(path: Path) -> Iterator[tuple[int, list[dict[str, Turns | None]]]]:
    """The raw pairs of the file, in blocks, each with the number of its first row."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; preference data is a Parquet file with {', '.join(COLUMNS)}")
    file = pq.ParquetFile(path)
    found = {field.name: field.type for field in file.schema_arrow}
    if any(name not in found or not _holds_lists(found[name]) for name in COLUMNS):
        told = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        raise InputError(
            f"{path}: found columns {told}; expected {', '.join(COLUMNS)} as lists of turns, as "
            "`warehouse.pair_files.write_pairs` makes them of any layout"
        )
    start = 0
    for batch in file.iter_batches(BLOCK_ROWS, columns=list(COLUMNS)):
        yield start, batch.to_pylist()
        start += len(batch)


def _holds_lists(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _sound(
    start: int, block: list[dict[str, Turns | None]], rejected: dict[str, list[int]]
) -> tuple[list[int], tuple[list[Messages], list[Messages]]]:
    """Numbers and both conversations of the pairs without a fault; the others are added to `rejected`."""
    numbers: list[int] = []
    sides: tuple[list[Messages], list[Messages]] = ([], [])
    for number, row in enumerate(block, start):
        if reason := fault(row["prompt"], row["chosen"], row["rejected"]):
            rejected[reason].append(number)
            continue
        numbers.append(number)
        for side, name in zip(sides, ("chosen", "rejected"), strict=True):
            turns = (*(row["prompt"] or ()), *(row[name] or ()))
            side.append(tuple(Message(turn["role"], turn["content"]) for turn in turns))
    return numbers, sides


@dataclass(frozen=True, slots=True)
class _Pair:
    prompt: Ids
    replies: tuple[Ids, Ids]

    def truncated(self, length: int) -> "_Pair":
        room = max(0, length - len(self.prompt))
        return _Pair(self.prompt[:length], (self.replies[0][:room], self.replies[1][:room]))

    def fault(self) -> Reason | None:
        """What is wrong with the pair after truncation; the first token of a row has nothing to be predicted from."""
        if not all(len(reply) for reply in self.replies) or not len(self.prompt):
            return "no_label_tokens"
        return "same_replies" if np.array_equal(*self.replies) else None


def _parted(chosen: Tokens, rejected: Tokens) -> _Pair:
    """The ids before the last reply, and the two replies. Where a tokenizer joins the first characters of a reply with
    the prompt's last, the replies begin where the sequences part."""
    spans = [_last_reply(tokens) for tokens in (chosen, rejected)]
    start = min(span[0] for span in spans)
    apart = np.flatnonzero(chosen.ids[:start] != rejected.ids[:start])
    start = int(apart[0]) if len(apart) else start
    replies = [tokens.ids[start : span[1]] for tokens, span in zip((chosen, rejected), spans, strict=True)]
    return _Pair(chosen.ids[:start], (replies[0], replies[1]))


def _last_reply(tokens: Tokens) -> tuple[int, int]:
    """Where the last run of reply tokens starts and stops; what a template writes after it is not of the reply."""
    stop = int(np.flatnonzero(tokens.reply)[-1]) + 1 if tokens.reply.any() else len(tokens.ids)
    before = np.flatnonzero(~tokens.reply[:stop])
    return (int(before[-1]) + 1 if len(before) else 0), stop


@dataclass(slots=True)
class _Kept:
    """Pairs as they pass."""

    numbers: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    chosen: list[Ids] = field(default_factory=list)
    rejected: list[Ids] = field(default_factory=list)

    def add(self, number: int, pair: _Pair) -> None:
        self.numbers.append(number)
        self.prompts.append(len(pair.prompt))
        for side, reply in zip((self.chosen, self.rejected), pair.replies, strict=True):
            side.append(np.concatenate([pair.prompt, reply]))

    def guarded(self, rejected: Mapping[str, tuple[int, ...]], cut: int, lost: int) -> Guarded:
        lists = {"input_ids": self.chosen, "rejected_ids": self.rejected}
        columns = {name: pa.array(ids, pa.list_(pa.int32())) for name, ids in lists.items()}
        numbers, prompts = np.asarray(self.numbers, np.int64), np.asarray(self.prompts, np.int64)
        lengths = np.array([len(a) + len(b) for a, b in zip(self.chosen, self.rejected, strict=True)], np.int64)
        table = pa.table(columns | {"prompt": prompts, "row": numbers})
        return Guarded(
            table=table,
            numbers=numbers,
            lengths=lengths,
            label_tokens=lengths - 2 * prompts,
            rejected=rejected,
            cut=cut,
            lost=lost,
        )

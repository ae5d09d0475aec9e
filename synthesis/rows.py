"""From drafts to rows: the meta of a row, its random stream, and handing rows out."""

from collections.abc import Iterator
from itertools import islice
from zlib import crc32

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit
from synthesis.draft import Draft
from synthesis.skill import SPLITS, Rng
from warehouse.errors import InputError
from warehouse.records import Example, Message

EMIT_ROWS = 500


def example(draft: Draft, source: str) -> Example:
    """The row of a draft. Its meta holds every field of the draft but the texts."""
    meta = {
        "skill": draft.skill,
        "source": source,
        "noise": draft.noise,
        "problem": draft.problem,
        "answer": draft.answer,
        "n_corrupted": draft.n_corrupted,
        "first_bad_step": draft.first_bad_step,
        "final_correct": draft.final_correct,
        "log": [dict(entry) for entry in draft.log],
    }
    return Example((Message("user", draft.question), Message("assistant", draft.reply)), source, meta)


def stream(seed: int, name: str, i: int) -> Rng:
    """The random numbers of row `i` of `name`: its own, so order and processes change nothing."""
    return np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode()), i]))


def emit_all(rows: Iterator[Example]) -> Dialogue[None]:
    """Hand rows out, `EMIT_ROWS` at a time."""
    while chunk := tuple(Accepted(row) for row in islice(rows, EMIT_ROWS)):
        yield [Emit(chunk)]


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; known splits: {', '.join(SPLITS)}")

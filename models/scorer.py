"""DEITA's scorers: language models that were tuned to answer with a digit (Liu et al. 2024, §2).

A scorer reads a plain prompt, in no chat format, and its answer is taken from the logits of six tokens. What it is
trained on is written by `prompt` too (chat template "raw"). Imports no torch: who writes prompts loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.chat import Tokens
from models.protocol import Want
from warehouse.errors import InputError
from warehouse.records import Messages

if TYPE_CHECKING:
    from models.forward import Ids
    from models.local import LocalModel

Grade = Literal["complexity", "quality"]
GRADES = range(1, 7)
COMPLEXITY = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. \n"
    "##Query: {instruction}\n##Complexity: "
)
QUALITY = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. \n"
    "#Question#:\n{instruction}\n#Response#:\n{response}\n##Quality: "
)
PROMPTS: Mapping[Grade, str] = {"complexity": COMPLEXITY, "quality": QUALITY}
CHOICES = frozenset({Want.CHOICE_LOGITS})
ENDING = 16  # last tokens of a prompt that a cut leaves: more than "##Complexity: " takes

Turn = tuple[str, str]


def prompt(grade: Grade, turn: Turn) -> str:
    """What a scorer of `grade` is asked about a turn; the digit that follows it is its answer."""
    instruction, response = turn
    return PROMPTS[grade].format(instruction=instruction, response=response)


def scores(complexity: LocalModel, quality: LocalModel, rows: Sequence[Messages]) -> NDArray[np.float32]:
    """(n, 3) float32: over the turns of a row the sums of c_t q_t, of c_t and of q_t; higher is more complex, better.

    Every score lies in [1, 6]. A turn is an instruction and its response ("" where none follows), without the turns
    before it. Rows without a user turn score 0. Raises `InputError` where a model's tokenizer has no digits.
    """
    turns = [turns_of(row) for row in rows]
    flat = [turn for row in turns for turn in row]
    c = grades(complexity, [prompt("complexity", turn) for turn in flat])
    q = grades(quality, [prompt("quality", turn) for turn in flat])
    row = np.repeat(np.arange(len(rows)), [len(each) for each in turns])
    return np.column_stack([np.bincount(row, each, len(rows)) for each in (c * q, c, q)]).astype(np.float32)


def turns_of(messages: Messages) -> list[Turn]:
    """Each user turn with the reply right after it, or with "" where none follows."""
    return [
        (message.content.strip(), reply.content.strip() if reply is not None and reply.role == "assistant" else "")
        for message, reply in pairwise([*messages, None])
        if message is not None and message.role == "user"
    ]


def grades(model: LocalModel, prompts: Sequence[str]) -> NDArray[np.float64]:
    """The score (n,) of each prompt. One that is too long for the model loses its middle, the end of what is graded."""
    if not prompts:
        return np.zeros(0)
    digits = digit_tokens(model)
    encodings = model.backend.encode_batch(list(prompts), add_special_tokens=True)
    ids = [_shortened(np.asarray(e.ids, np.int32), model.max_length) for e in encodings]
    read = model.read([Tokens(each, np.zeros(len(each), np.bool_)) for each in ids], CHOICES, digits)
    assert read.choice_logits is not None  # they were wanted
    return expected_grade(read.choice_logits)


def expected_grade(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum over k = 1..6 of k softmax(z)_k for logits (n, 6) of the digits 1 to 6; (n,) in [1, 6]."""
    chances = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return np.asarray(chances @ np.asarray(GRADES) / chances.sum(-1))


def digit_tokens(model: LocalModel) -> list[int]:
    """`digits_of` the tokenizer of a scorer."""
    return digits_of(model.backend, str(model.folder))


def digits_of(tokenizer: Tokenizer, name: str) -> list[int]:
    """The ids of the digits 1 to 6 as they come after a prompt's end, for the tokenizer of the model `name`.

    Raises `InputError` unless each adds one token of its own to the prompt and changes no other.
    """
    ending = COMPLEXITY.format(instruction="x")
    texts = [ending, *(f"{ending}{k}" for k in GRADES)]
    bare, *graded = (e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    if any(ids[:-1] != bare for ids in graded) or len({ids[-1] for ids in graded}) < len(graded):
        raise InputError(
            f"the tokenizer of the scorer {name} does not write each digit after {ending[-14:]!r} as one token "
            "of its own, so no score can be read from its logits; give a model with digits as tokens (Llama, Mistral)"
        )
    return [ids[-1] for ids in graded]


def _shortened(ids: Ids, limit: int) -> Ids:
    return ids if len(ids) <= limit else np.concatenate([ids[: limit - ENDING], ids[-ENDING:]])

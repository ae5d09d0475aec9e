"""What the training benchmark trains: rows of two length profiles, and a random Llama of about 25 M parameters."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.fingerprint import fetch
from synthesis.world import World
from warehouse.records import Message, Messages

CLEAN = {"clean": 1.0}
TINY, LARGER = "winnow-tiny", "random-25m"
HELD_OUT = 200
WORD_TOKENS = 2.0  # tokens of a word of the world's questions, roughly
SHORTEST, LONGEST = 20, 500  # tokens of a mixed row: winnow-tiny has 512 positions


@dataclass(frozen=True, slots=True)
class Case:
    """One race: a model and its rows, and the settings that both sides share.

    rows       rows to train on, each `epochs` times
    settings   changes of `sft_tiny`: the peer is given those that it knows under trl's names
    """

    model: str
    lengths: str
    rows: int
    epochs: float
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.lengths} rows"


CASES = (
    Case(TINY, "short", 480, 2.0, {}),
    Case(TINY, "mixed", 160, 1.0, {"max_length": 512}),
    Case(LARGER, "short", 240, 1.0, {}),
    Case(LARGER, "mixed", 80, 1.0, {"max_length": 512}),
)


def short(seed: int, split: str, n: int) -> Iterator[Messages]:
    """Single questions of the world with right answers: about 35 tokens."""
    world = World(n, split, sources=CLEAN) if split == "pool" else World(n, split)  # type: ignore[arg-type]
    return (row.messages for row in world.examples(seed, 0, n))


def mixed(seed: int, split: str, n: int) -> Iterator[Messages]:
    """Conversations of several such questions, of log-uniformly drawn lengths: 20 to 500 tokens."""
    lengths = np.exp(np.random.default_rng(seed).uniform(np.log(SHORTEST), np.log(LONGEST), n))
    turns = short(seed, split, int(n * LONGEST / SHORTEST))
    for length in lengths.tolist():
        row = next(turns)
        while _tokens(more := row + next(turns)) <= length:
            row = more
        yield row


def _tokens(messages: Sequence[Message]) -> float:
    return WORD_TOKENS * sum(len(message.content.split()) + 2 for message in messages)


LENGTHS: Mapping[str, Callable[[int, str, int], Iterator[Messages]]] = {"short": short, "mixed": mixed}


def write(path: Path, rows: Iterator[Messages]) -> None:
    stored = [[{"role": m.role, "content": m.content} for m in row] for row in rows]
    pq.write_table(pa.table({"messages": stored}), path)


def larger(folder: Path) -> None:
    """A random Llama with winnow-tiny's tokenizer: 10 layers, hidden 384, and a tied head over 16,384 tokens.

    The head holds a quarter of the parameters, as it does in the small models that people tune (Qwen2.5-0.5B: 28 %).
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    copytree(fetch(TINY), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    changes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "vocab_size": 16_384}
    config |= changes | {"num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 64}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)


def prepare(case: Case, folder: Path) -> None:
    """Write what `case` needs under `folder`, where it is not there: rows to train on, held-out rows, the model."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("pool", case.rows), ("test", HELD_OUT)):
        if not (path := rows_of(case, folder, split)).exists():
            write(path, LENGTHS[case.lengths](1, split, n))
    if case.model == LARGER and not (folder / LARGER).exists():
        larger(folder / LARGER)


def rows_of(case: Case, folder: Path, split: str) -> Path:
    return folder / f"{case.lengths}-{case.rows if split == 'pool' else HELD_OUT}-{split}.parquet"


def model_of(case: Case, folder: Path) -> str:
    return str(folder / LARGER) if case.model == LARGER else case.model

"""What evaluators are compared on: a winnow-tiny that learnt some skills, and items of which it gets some right."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.local import LocalModel
from synthesis.skill import Split
from synthesis.world import World
from training.sft import tiny
from warehouse.records import Dataset, Example, Message

MODEL = "winnow-tiny"
SKILLS = ("arithmetic", "comparison", "dates", "formatting", "sorting", "units")
LETTERS = "ABCD"
ROWS = 450
SEED = 7


def asked(split: Split, n: int, seed: int) -> list[Example]:
    """`n` rows of a split, the skills mixed, answers right."""
    sources = {"clean": 1.0} if split == "pool" else None
    return list(World(rows=n, split=split, skills=SKILLS, sources=sources).examples(seed, 0, n))


def chosen(rows: Sequence[Example], seed: int) -> list[Example]:
    """The rows with four replies to choose from: the right one and three of the same skill, in an order of chance."""
    rng = np.random.default_rng(seed)
    replies = {skill: sorted({reply(row) for row in rows if row.meta["skill"] == skill}) for skill in SKILLS}
    found = []
    for row in rows:
        others = [text for text in replies[row.meta["skill"]] if text != reply(row)]
        choices = [reply(row), *rng.choice(others, 3, replace=False).tolist()]
        rng.shuffle(choices)
        found.append(replace(row, meta={**row.meta, "choices": choices, "label": choices.index(reply(row))}))
    return found


def lettered(row: Example) -> Example:
    """A row of `chosen` with its choices written under the question; the reply is a letter."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row.meta["choices"], strict=True)]
    question = "\n".join([row.messages[0].content, *lines])
    turns = (Message("user", question), Message("assistant", LETTERS[row.meta["label"]]))
    return replace(row, messages=turns, meta={**row.meta, "choices": list(LETTERS)})


def longer(rows: Sequence[Example], shots: Sequence[Example]) -> list[Example]:
    """Rows with worked examples in their question, as benchmarks ask them."""
    before = "\n\n".join(f"{shot.messages[0].content}\n{reply(shot)}" for shot in shots)
    return [
        replace(row, messages=(Message("user", f"{before}\n\n{row.messages[0].content}"), row.messages[1]))
        for row in rows
    ]


def reply(row: Example) -> str:
    return row.messages[-1].content


def tuned(folder: Path) -> LocalModel:
    """winnow-tiny after 450 questions and 450 choices between letters, float32; made in `folder` once."""
    out = folder / "tuned"
    if not (out / "config.json").exists():
        rows = asked("pool", ROWS, SEED)
        learnt = [*rows, *map(lettered, chosen(rows, SEED))]
        messages = [[{"role": m.role, "content": m.content} for m in row.messages] for row in learnt]
        pq.write_table(pa.table({"messages": messages}), folder / "rows.parquet")
        tiny()(MODEL, Dataset(folder / "rows.parquet", "rows"), out, SEED)
    return LocalModel.load(str(out), dtype="float32", device="cpu")

"""Rows of a table as rows of instruction data (Dynosaur, step 5), and what to know about a task's rows as a whole."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthesis.dynosaur.card import Row, is_null, is_scalar
from synthesis.dynosaur.labels import Labels
from synthesis.dynosaur.proposal import Task
from synthesis.dynosaur.truncation import name_words
from synthesis.fault import Fault

CHARS = 2000  # of an input and of an output
LEAK = 0.95  # a larger share of rows whose output stands in the input makes the task one of copying
EXTRACTIVE = re.compile(
    r"(?i)\b(?:extract|cop(?:y|ies)|find|identif\w+|select|span|which|choose|pick|locate|highlight|list|what|who|where"
    r"|when|retrieve|detect|name|title|answer)\b"
)


@dataclass(frozen=True, slots=True)
class Instance:
    """One row: `given` is what the instruction is about, "" for a task without inputs."""

    given: str
    output: str


def instance(task: Task, row: Row, labels: Labels) -> Instance | Fault:
    """The row as the task sees it; `no_value` where the output is empty, `no_input` where the input is or cannot be
    written."""
    value = row.get(task.output_field)
    if is_null(value) or not str(value).strip():
        return Fault("no_value", task.output_field)
    given = rendered(task.input_fields, row)
    if not given:
        return Fault("no_input", ", ".join(task.input_fields))
    return Instance(given[:CHARS], labels.output(value)[:CHARS])


def rendered(fields: Sequence[str], row: Row) -> str:
    """Input cells as text: one field as it is; several as `name is 'value'. `; lists as `'a', 'b'. `, with letters
    where the field is named as choices. "" where a cell is null or nested, or all are empty."""
    cells = [row.get(name) for name in fields]
    if len(cells) == 1 and is_scalar(cells[0]):
        return str(cells[0]).strip()
    parts = [_part(name, cell, len(fields) > 1) for name, cell in zip(fields, cells, strict=True)]
    written = any(str(cell).strip() for cell in cells)
    return "".join(parts).strip() if written and all(parts) else ""


def _part(name: str, cell: Any, named: bool) -> str:
    start = f"{name} is " if named else ""
    if is_scalar(cell):
        return f"{start}'{str(cell).strip()}'. "
    if not (isinstance(cell, list | tuple) and cell and all(isinstance(inner, str) for inner in cell)):
        return ""
    if "choice" in name.lower():
        quoted = [f"{chr(65 + place)}. '{inner}'" for place, inner in enumerate(cell[:26])]
    else:
        quoted = [f"'{inner}'" for inner in cell]
    return f"{start}{', '.join(quoted)}. "


def is_leak(task: Task, instances: Sequence[Instance]) -> bool:
    """Whether nearly every output stands in its input, though the instruction does not ask to take it from there."""
    copied = sum(made.output.casefold() in made.given.casefold() for made in instances)
    return bool(instances) and copied / len(instances) > LEAK and not EXTRACTIVE.search(task.instruction)


def other_fields(task: Task, columns: Sequence[str]) -> list[str]:
    """Columns that the instruction speaks of and the task does not use."""
    said = re.findall(r"[a-z0-9]+", task.instruction.lower())
    used = {*task.input_fields, task.output_field}
    return [name for name in columns if name not in used and (words := name_words(name)) and _in_order(words, said)]


def _in_order(words: Sequence[str], said: Sequence[str]) -> bool:
    n = len(words)
    return any(list(said[i : i + n]) == list(words) for i in range(len(said) - n + 1))

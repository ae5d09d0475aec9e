"""Tasks that a model proposes for a table, and which of them can be done with it (Dynosaur, steps 2 and 3)."""

import ast
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import json_repair

from models.telling import telling
from synthesis.attempts import TEMPLATES
from synthesis.dynosaur.card import Card
from synthesis.fault import Fault
from warehouse.records import canonical

Run = Literal["aware", "unaware"]
MOST_TASKS = 3
SYSTEM = "You are a helpful assistant who designs tasks for data sets."
RUNS: tuple[Run, ...] = get_args(Run)
TELLINGS = {run: telling(TEMPLATES, f"dynosaur_{run}.v1") for run in RUNS}
SCHEMA = canonical(
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["tasks"],
        "properties": {
            "tasks": {
                "type": "array",
                "maxItems": MOST_TASKS,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["instruction", "input_fields", "output_field"],
                    "properties": {
                        "instruction": {"type": "string"},
                        "input_fields": {"type": "array", "items": {"type": "string"}},
                        "output_field": {"type": "string"},
                    },
                },
            }
        },
    }
)
FENCE = re.compile(r"```\w*\s*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A task as a reply states it; nothing is checked but its form."""

    instruction: str
    input_fields: tuple[str, ...]
    output_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with each row of a table: `instruction`, from some of its columns to one other."""

    instruction: str
    input_fields: tuple[str, ...]
    output_field: str


def told(run: Run, card: Card, rows: Sequence[Mapping[str, Any]]) -> str:
    """The prompt for one table. It depends on this table alone, so a new table costs its own calls and no other.

    `rows` are those of `truncation.shown`.
    """
    shown: dict[str, Any] = {"name": card.name}
    if run == "aware":
        shown["description"] = card.description.strip()[:1000]
    return TELLINGS[run](
        metadata=json.dumps(shown | {"rows": list(rows)}, ensure_ascii=False, indent=1),
        fields=json.dumps(list(rows[0]), ensure_ascii=False),
        most=MOST_TASKS,
    )


def read_proposals(reply: str) -> list[Proposal | Fault]:
    """The tasks of a reply: JSON, JSON that can be repaired, or a Python literal, in a fence or not.

    `{"tasks": [...]}`, a bare list, a single task and `{"task1": ..., "task2": ...}` are all taken.
    """
    found = _tasks(_value(reply))
    if not found:
        return [Fault("parse_fail", reply[:80])]
    return [_proposal(task) for task in found]


def _value(reply: str) -> Any:
    fenced = FENCE.search(reply)
    text = (fenced[1] if fenced else reply).strip()
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    try:
        return json_repair.loads(text)
    except (ValueError, RecursionError):  # nested too deep
        return None


def _tasks(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping) and "instruction" in value:
        return [value]
    if isinstance(value, Mapping):
        numbered = [task for name, task in value.items() if re.fullmatch(r"task[ _]?\d+", str(name).lower())]
        inner = value.get("tasks", numbered)
        return _tasks(list(inner.values()) if isinstance(inner, Mapping) else inner)
    return [task for task in value if isinstance(task, Mapping)] if isinstance(value, list | tuple) else []


def _proposal(task: Mapping[str, Any]) -> Proposal | Fault:
    instruction = task.get("instruction")
    given, wanted = _names(task.get("input_fields")), _names(task.get("output_field"))
    if not isinstance(instruction, str) or not instruction.strip() or given is None or wanted is None:
        return Fault("malformed_task", json.dumps(task, ensure_ascii=False, default=str)[:200])
    return Proposal(" ".join(instruction.split()), given, wanted)


def _names(value: Any) -> tuple[str, ...] | None:
    """Names of columns; none where there is nothing or an empty text, None where there is something else."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(name for name in value if name)
    return None


def checked(proposals: Sequence[Proposal | Fault], columns: Collection[str]) -> list[Task | Fault]:
    """Which proposals of one reply are tasks for a table with these columns, in their order; for the others the first
    reason that holds: those of `task_of`, then `too_many_tasks`."""
    found, seen = list[Task | Fault](), set[str]()
    for proposal in proposals:
        one = proposal if isinstance(proposal, Fault) else task_of(proposal, columns, seen)
        if isinstance(one, Task) and len(seen) == MOST_TASKS:
            one = Fault("too_many_tasks", f"more than {MOST_TASKS}")
        if isinstance(one, Task):
            seen.add(one.instruction)
        found.append(one)
    return found


def task_of(proposal: Proposal, columns: Collection[str], seen: Collection[str]) -> Task | Fault:
    """The task that a proposal is for a table with these columns, or the first reason that holds.

    no_output, multi_output  there is not exactly one output field
    invalid_field            a field is no column
    overlap                  the output is among the inputs
    duplicate_instruction    its words are among `seen`
    """
    if not proposal.output_fields:
        return Fault("no_output", proposal.instruction)
    if len(proposal.output_fields) > 1:
        return Fault("multi_output", ", ".join(proposal.output_fields))
    if unknown := [name for name in (*proposal.input_fields, *proposal.output_fields) if name not in columns]:
        return Fault("invalid_field", ", ".join(unknown))
    if set(proposal.input_fields) & set(proposal.output_fields):
        return Fault("overlap", proposal.output_fields[0])
    if proposal.instruction in seen:
        return Fault("duplicate_instruction", proposal.instruction)
    return Task(proposal.instruction, proposal.input_fields, proposal.output_fields[0])

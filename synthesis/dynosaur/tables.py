"""Dynosaur (Yin et al. 2023, arXiv 2305.14327): a model designs tasks from a table's metadata, the cells make the rows.

Two calls for a table, however many rows it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, Rejected, each
from models.protocol import Prompt
from synthesis.attempts import LOST
from synthesis.dynosaur.card import Card, Row, cards, read_rows
from synthesis.dynosaur.instances import Instance, instance, is_leak, other_fields
from synthesis.dynosaur.labels import Labels, labels_of
from synthesis.dynosaur.proposal import RUNS, SCHEMA, SYSTEM, TELLINGS, Run, Task, checked, read_proposals, told
from synthesis.dynosaur.truncation import is_media, shown
from synthesis.fault import Fault, ask
from synthesis.protocol import Needs, Seeds
from warehouse.cleaning.parameters import check_count, check_switch, check_texts
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

DESIGNER = "generator"
REFUSED_LICENCES = ("other", "unknown", "*-nd", "*-nd-*", "ofl")
"""Those of the paper: no licence stated in earnest, and Creative Commons ones that forbid to change the work."""


@dataclass(frozen=True, slots=True)
class Dynosaur:
    """Rows from the tables of a recipe (`card.Card`: path, name, description, licence, url, labels).

    The first `rows` of each table are read. The model in role "generator" designs tasks for it in two `runs`, one with
    and one without its description. Tables with a licence like one of `refuse`, or without one (`licence_needed`), are
    left out before anything is asked.
    """

    tables: Sequence[Mapping[str, Any]]
    rows: int = 100
    runs: Sequence[str] = RUNS
    licence_needed: bool = True
    refuse: Sequence[str] = REFUSED_LICENCES
    max_tokens: int = 768

    needs: ClassVar[Needs] = Needs(models=(DESIGNER,))
    reasons: ClassVar[frozenset[str]] = LOST | {
        "licence_missing", "licence_refused", "no_rows", "unreadable_row", "media", "too_few_fields", "no_description",
        "parse_fail", "malformed_task", "no_output", "multi_output", "invalid_field", "overlap",
        "duplicate_instruction", "too_many_tasks", "same_task", "output_not_scalar", "no_values", "one_label",
        "unbalanced", "no_input", "no_value",
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_count("rows", self.rows, 2)
        check_count("max_tokens", self.max_tokens, 1)
        check_texts("runs", self.runs, RUNS)
        check_texts("refuse", self.refuse)
        check_switch("licence_needed", self.licence_needed)
        if not self.runs or isinstance(self.tables, str) or not self.tables:
            raise InputError("dynosaur: give `tables`, a list with the path and the name of each, and at least one run")
        _ = self.cards

    @property
    def cards(self) -> tuple[Card, ...]:
        return cards(self.tables)

    @property
    def told(self) -> str:
        """Changes with the templates and with what the tables hold, which their paths do not say."""
        return digest(canonical([[telling.key for telling in TELLINGS.values()], [card.key for card in self.cards]]))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(self.cards, self._table)

    def _table(self, card: Card) -> Dialogue[None]:
        fault = self.licence_fault(card.known_licence)
        rows, unread = ([], []) if fault else read_rows(card, self.rows)
        visible = shown(rows)
        if fault := fault or unfit(rows, visible):
            yield [Emit(tuple(_rejected(card, one) for one in (*unread, fault)))]
            return
        runs = [run for run in RUNS if run in self.runs and (run == "unaware" or card.description.strip())]
        undescribed = [] if len(runs) == len(set(self.runs)) else [Fault("no_description")]
        found = yield from each(runs, lambda run: self._tasks(card, visible, run))
        left_out = [_rejected(card, one) for one in (*unread, *undescribed)]
        made = self._rows(card, rows, visible, [pair for pairs in found for pair in pairs])
        yield [Emit((*left_out, *made))]

    def licence_fault(self, licence: str) -> Fault | None:
        """Why a table under `licence` is left out; "" is no licence."""
        if not licence:
            return Fault("licence_missing") if self.licence_needed else None
        refused = any(fnmatchcase(licence, pattern.lower()) for pattern in self.refuse)
        return Fault("licence_refused", licence) if refused else None

    def _tasks(self, card: Card, visible: Sequence[Row], run: Run) -> Dialogue[list[tuple[Run, Task | Fault]]]:
        messages = (Message("system", SYSTEM), Message("user", told(run, card, visible)))
        reply = yield from ask(DESIGNER, Prompt(messages, max_tokens=self.max_tokens, schema=SCHEMA))
        if isinstance(reply, Fault):
            return [(run, reply)]
        return [(run, one) for one in checked(read_proposals(reply), visible[0])]

    def _rows(
        self, card: Card, rows: Sequence[Row], visible: Sequence[Row], found: Sequence[tuple[Run, Task | Fault]]
    ) -> list[Accepted | Rejected]:
        made, seen = list[Accepted | Rejected](), set[Task]()
        for run, task in found:
            if isinstance(task, Fault):
                made.append(_rejected(card, task))
            elif task in seen:
                made.append(_rejected(card, Fault("same_task", task.instruction)))
            else:
                seen.add(task)
                made += rows_of_task(card, rows, list(visible[0]), run, task)
        return made


def unfit(rows: Sequence[Row], visible: Sequence[Row]) -> Fault | None:
    """Why no task can be designed for a table, before anything is asked."""
    if not rows:
        return Fault("no_rows")
    if media := [name for name in rows[0] if is_media(name)]:
        return Fault("media", ", ".join(media))
    if len(visible[0]) < 2:
        return Fault("too_few_fields", f"{', '.join(visible[0]) or 'none'} of {', '.join(map(str, rows[0]))}")
    return None


def rows_of_task(
    card: Card, rows: Sequence[Row], columns: Sequence[str], run: Run, task: Task
) -> list[Accepted | Rejected]:
    """What a task makes of each row of its table; one rejection where the task as a whole makes nothing."""
    labels = labels_of([row.get(task.output_field) for row in rows]) if task.input_fields else Fault("no_input")
    if isinstance(labels, Fault):
        return [_rejected(card, Fault(labels.reason, f"{task.instruction} {labels.detail}".strip()))]
    made = [instance(task, row, labels) for row in rows]
    instances = [one for one in made if isinstance(one, Instance)]
    meta = _meta(card, run, task, labels) | {
        "leak": is_leak(task, instances),
        "other_fields": other_fields(task, columns),
    }
    instruction = labels.instruction(task.instruction)
    return [
        _rejected(card, Fault(one.reason, f"row {place}: {one.detail}"))
        if isinstance(one, Fault)
        else Accepted(_example(instruction, one, meta | {"row": place}))
        for place, one in enumerate(made)
    ]


def _example(instruction: str, made: Instance, meta: Mapping[str, Any]) -> Example:
    asked = Message("user", f"{instruction}\n\n{made.given}")
    return Example((asked, Message("assistant", made.output)), "dynosaur", meta)


def _meta(card: Card, run: Run, task: Task, labels: Labels) -> dict[str, Any]:
    return {
        "parents": [],
        "template": [TELLINGS[run].key],
        "dataset": card.name,
        "licence": card.known_licence or None,
        "url": card.url,
        "run": run,
        "instruction": task.instruction,
        "input_fields": list(task.input_fields),
        "output_field": task.output_field,
        "labels": list(labels.listed),
    }


def _rejected(card: Card, fault: Fault) -> Rejected:
    return Rejected(fault.reason, f"{card.name}: {fault.detail}" if fault.detail else card.name)

"""A seed as a task: what is to be done, what it is to be done with, and how it came out."""

from dataclasses import dataclass

from synthesis.exchange import last_exchange
from synthesis.fault import Fault
from synthesis.protocol import Seeds
from warehouse.records import Example, Message, Messages


@dataclass(frozen=True, slots=True)
class Task:
    """`given` is the input, "" for a task without one; `key` is the sample id of its seed."""

    instruction: str
    given: str
    output: str
    key: str
    is_classification: bool | None = None


def task_of(seed: Example) -> Task | Fault:
    """The last exchange of a seed as a task. Its input is what an import noted as `input`, else there is none."""
    exchange = last_exchange(seed)
    if exchange is None:
        return Fault("no_task")
    asked, noted = exchange.instruction.strip(), seed.meta.get("input")
    given = noted.strip() if isinstance(noted, str) and asked.endswith(noted.strip()) else ""
    instruction = asked.removesuffix(given).strip() if given else asked
    if not instruction:
        return Fault("no_task", "there is nothing before its input")
    known = seed.meta.get("is_classification")
    return Task(instruction, given, exchange.reply.strip(), seed.sample_id, known if isinstance(known, bool) else None)


def tasks_of(seeds: Seeds) -> tuple[list[Task], list[tuple[Example, Fault]]]:
    """The tasks of seeds, in the order of their keys, so that the order of the seeds changes nothing; and the others.

    Of seeds with one instruction the first by its key counts.
    """
    tasks, left = list[Task](), list[tuple[Example, Fault]]()
    seen = set[str]()
    for seed in sorted(seeds, key=lambda seed: seed.sample_id):
        found = task_of(seed)
        if not isinstance(found, Fault) and found.instruction in seen:
            found = Fault("duplicate_seed", found.instruction[:80])
        if isinstance(found, Fault):
            left.append((seed, found))
        else:
            seen.add(found.instruction)
            tasks.append(found)
    return tasks, left


def question(instruction: str, given: str) -> Messages:
    """What a user would ask."""
    return (Message("user", f"{instruction}\n\n{given}" if given else instruction),)

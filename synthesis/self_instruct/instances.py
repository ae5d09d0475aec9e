"""Inputs and outputs for an instruction, and which of them are kept (Self-Instruct, §2.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models.telling import telling
from synthesis.attempts import TEMPLATES
from synthesis.fault import Fault

KIND = telling(TEMPLATES, "self_instruct_kind.v1")
INPUT_FIRST = telling(TEMPLATES, "self_instruct_input_first.v1")
OUTPUT_FIRST = telling(TEMPLATES, "self_instruct_output_first.v1")

YES_OR_NO = re.compile(r"[\s\"'*]*(?:classification:)?[\s\"'*]*(yes|no)\b", re.IGNORECASE)
EXAMPLE = re.compile(r"^[ \t*#]*Example[ \t]*\d+[ \t]*[.:]?[ \t*]*", re.MULTILINE | re.IGNORECASE)
INPUT = re.compile(r"^[ \t*]*Input[ \t]*\d*[ \t*]*:[ \t*]*", re.MULTILINE | re.IGNORECASE)
OUTPUT = re.compile(r"^[ \t*]*Output[ \t]*\d*[ \t*]*:[ \t*]*", re.MULTILINE | re.IGNORECASE)
LABEL = re.compile(r"^[ \t*]*Class label[ \t]*\d*[ \t*]*:[ \t*]*", re.MULTILINE | re.IGNORECASE)

OF_INSTANCES = frozenset(
    {
        "kind_unclear", "no_instances", "truncated_instance", "same_as_input", "empty_output", "ends_with_colon",
        "contradictory_outputs", "duplicate_instance",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """`given` is the input, "" where the task has none."""

    given: str
    output: str


def read_kind(reply: str) -> bool | Fault:
    """Whether a reply says that a task is a classification task."""
    said = YES_OR_NO.match(reply)
    return Fault("kind_unclear", reply.strip()[:80]) if said is None else said[1].lower() == "yes"


def read_input_first(reply: str) -> list[Instance]:
    """The examples of a reply; a reply without `Example k` is one example, where it has an `Output:`."""
    parts = [part for part in EXAMPLE.split(reply)[1:] if part.strip()]
    if not parts:
        parts = [reply] if OUTPUT.search(reply) else []
    return [_input_first(part) for part in parts]


def _input_first(part: str) -> Instance:
    label = OUTPUT.search(part)
    if label is None:
        return Instance("", INPUT.sub("", part, count=1).strip())
    given, output = part[: label.start()], part[label.end() :]
    if again := INPUT.search(output):  # another example without a heading
        output = output[: again.start()]
    return Instance(INPUT.sub("", given, count=1).strip(), output.strip())


def read_output_first(reply: str) -> list[Instance]:
    """The labels of a reply, each with the text behind it."""
    parts = [part.strip().partition("\n") for part in LABEL.split(reply)[1:]]
    return [Instance(INPUT.sub("", rest, count=1).strip(), label.strip(" \t*")) for label, _, rest in parts]


def fault_of(instance: Instance) -> Fault | None:
    """Why an instance alone is not kept."""
    if not instance.output:
        return Fault("empty_output")
    if instance.given == instance.output:
        return Fault("same_as_input")
    if instance.given.endswith(":") or instance.output.endswith(":"):
        return Fault("ends_with_colon")
    return None


def sifted(instances: Sequence[Instance], cut: bool) -> list[tuple[Instance, Fault | None]]:
    """Each instance of one task and why it is not kept, if it is not.

    The last one of a reply that was `cut` off may lack its end. Where two that would be kept give different outputs for
    the same input, none is: the task is not clear.
    """
    faults = [fault_of(one) for one in instances]
    if cut and faults:
        faults[-1] = Fault("truncated_instance")
    kept = [one for one, fault in zip(instances, faults, strict=True) if fault is None]
    if (twice := _contradiction(kept)) is not None:
        return [
            (one, fault or Fault("contradictory_outputs", twice[:80]))
            for one, fault in zip(instances, faults, strict=True)
        ]
    seen, found = set[Instance](), list[tuple[Instance, Fault | None]]()
    for one, fault in zip(instances, faults, strict=True):
        found.append((one, fault or (Fault("duplicate_instance") if one in seen else None)))
        if fault is None:
            seen.add(one)
    return found


def _contradiction(instances: Sequence[Instance]) -> str | None:
    """An input that comes with different outputs; None where there is none."""
    outputs = dict[str, str]()
    for one in instances:
        if one.given and outputs.setdefault(one.given, one.output) != one.output:
            return one.given
    return None

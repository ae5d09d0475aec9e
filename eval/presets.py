"""How papers put known benchmarks to a model: shots, format, and how a reply is read, as data.

A setting with a `task` runs it in lm-eval with these changes; one without says what is missing and what comes closest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from warehouse.errors import InputError


@dataclass(frozen=True, slots=True)
class Setting:
    """One benchmark of a preset.

    asked       how the paper asks and reads it
    task        the task of lm-eval that is run, "" where there is none
    shots       worked examples before each question
    generation  generation settings of the task that are changed, in lm-eval's words
    filter      which of the task's ways of reading a reply counts, "" where it has one
    apart       where what runs is not what the paper did, or why nothing runs
    """

    asked: str
    task: str = ""
    shots: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    filter: str = ""
    apart: str = ""


TULU: Mapping[str, Setting] = {
    "MMLU": Setting("0 shots, chat format", "mmlu", 0, apart="the letter's likelihood decides, as in lm-eval"),
    "GSM8K": Setting(
        "8 shots with worked steps, greedy, 512 new tokens, exact match of the last number",
        "gsm8k_cot",
        8,
        {"do_sample": False, "max_gen_toks": 512},
        "flexible-extract",
        "the worked examples and the wording (Q: ... A:) are lm-eval's",
    ),
    "BBH": Setting(
        "3 shots with worked steps",
        "bbh_cot_fewshot",
        3,
        {"do_sample": False},
        "get-answer",
        "a reply ends at lm-eval's stop texts, an upper-case Q among them",
    ),
    "TydiQA": Setting(
        "gold passage, 1 shot, contexts of at most 512 tokens",
        "tydiqa_goldp",
        1,
        {"do_sample": False},
        apart="longer contexts are asked too",
    ),
    "HumanEval": Setting(
        "10 samples at temperature 0.8 and top-p 0.95, pass@10, instructions of HumanEvalPack",
        apart="lm-eval runs the replies in its own process and fetches its scorer from a hub; use the task `code` "
        "with samples 10, k [10], temperature 0.8 and top_p 0.95, which runs them in a jail",
    ),
    "SQuAD": Setting(
        "3 fixed shots",
        apart="lm-eval has squad_completion, which asks something else; use `exact_match` with shots on SQuAD's rows",
    ),
    "AlpacaEval": Setting(
        "win rate against reference replies",
        apart="it needs a judge, which lm-eval has not; use the task `pairwise`",
    ),
}
"""Evaluation of Tülu and of RDS+ (Wang et al. 2023; Ivison et al. 2025)."""

PRESETS: dict[str, Mapping[str, Setting]] = {"tulu": TULU}


def runnable(preset: str) -> tuple[str, ...]:
    """The tasks of lm-eval that a preset runs. Raises `InputError` for an unknown preset."""
    return tuple(setting.task for setting in _known(preset).values() if setting.task)


def setting_of(preset: str, task: str) -> Setting:
    """The setting of a preset for a task of lm-eval. Raises `InputError` where it has none, and says what it lacks."""
    settings = _known(preset)
    for setting in settings.values():
        if setting.task == task:
            return setting
    for name, setting in settings.items():
        if task.casefold() == name.casefold():
            raise InputError(f"preset {preset!r} cannot run {name} with lm-eval: {setting.apart}")
    raise InputError(f"preset {preset!r} says nothing about task {task!r}; its tasks: {', '.join(runnable(preset))}")


def _known(preset: str) -> Mapping[str, Setting]:
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known presets: {', '.join(PRESETS)}")
    return PRESETS[preset]

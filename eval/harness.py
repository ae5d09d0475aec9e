"""lm-eval as a library: its tasks on a model that is loaded already.

Its chat template is always the model's own format, its seeds are left alone, its standard errors are not asked for,
and neither `pip list` nor git is run: `evaluate` is called, not `simple_evaluate`. Loads lm-eval and torch.
"""

import copy
import difflib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import lm_eval.tasks
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from eval.items import ItemRow
from eval.presets import setting_of
from eval.suite import Suite
from eval.suite_names import own_folder
from eval.suite_rows import VALUES, Sample, own_task, rows_of
from models.chat import WRITTEN
from models.local import LocalModel
from warehouse.errors import InputError

FEWSHOT_SEED = 1234  # lm-eval's own, so that its worked examples are those of published runs
REPLY_TOKENS = 256
TASKS = Path(lm_eval.tasks.__file__).parent


@dataclass(frozen=True, slots=True)
class Settings:
    """What is changed in a task: worked examples, generation settings (in lm-eval's words), way of reading a reply."""

    shots: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    filter: str = ""


def settings_of(suite: Suite) -> Settings:
    """The preset's setting where there is one, and over it what the recipe says."""
    chosen = setting_of(suite.preset, suite.task) if suite.preset and suite.task else None
    shots, generation, name = (chosen.shots, dict(chosen.generation), chosen.filter) if chosen else (None, {}, "")
    if suite.max_tokens is not None:
        generation["max_gen_toks"] = suite.max_tokens
    return Settings(shots if suite.shots is None else suite.shots, generation, suite.filter or name)


def examine(suite: Suite, model: LocalModel) -> list[ItemRow]:
    """The item rows of a suite on `model`: every per-item value that has a meaning here."""
    lm = lm_of(model.network, model.tokenizer, model.chat.template, model.max_length, suite.batch_size)
    items = {item.item_id: item for item in suite.items()}
    task = own_task(list(items.values()), suite.max_tokens or REPLY_TOKENS) if items else suite.task
    assert task is not None  # a suite without `ask` names a task
    with drawing(suite.seed):
        samples = ask(lm, load(task, settings_of(suite)), suite.limit)
    rows = [row for name, each in samples.items() for row in rows_of(name, each, items)]
    if not rows:
        raise InputError(f"task {suite.task!r} gives no value per item that is known here: {', '.join(VALUES)}")
    return rows


def lm_of(network: Any, tokenizer: Any, template: str | None, max_length: int, batch_size: int | str) -> Any:
    """lm-eval's wrapper of a transformers model, with `template`, else the tokenizer's own, as chat template.

    Raises `InputError` where there is none: without its template a tuned model is asked in a format that it never saw.
    """
    named = copy.deepcopy(tokenizer)
    named.chat_template = template or tokenizer.chat_template
    if named.chat_template is None or named.chat_template.endswith(WRITTEN["raw"]):
        raise InputError(
            "lm-eval would ask this model without a chat template, in a format that it was not tuned on, and scores "
            "fall to a fraction; give the template it was tuned with (`tulu` or `own`)"
        )
    with hushed():
        return HFLM(pretrained=network, tokenizer=named, max_length=max_length, batch_size=batch_size)


@contextmanager
def hushed() -> Iterator[None]:
    """Without its bars for every step, and its warnings of what is meant here."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(level)


def load(task: str | Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The task (or all tasks of a group) as lm-eval loads it, with `settings` applied.

    Raises `InputError` for an unknown name, data that cannot be fetched, settings that do not fit the task, and tasks
    that run the model's code in this process.
    """
    with hushed():
        loaded = _fetched(task) if isinstance(task, str) else _manager(None).load([dict(task)])
    for name, each in loaded["tasks"].items():
        if getattr(each, "UNSAFE_CODE", False):
            raise InputError(f"task {name!r} runs the model's code in this process; use the task `code`, in a jail")
        _set_shots(name, each, settings.shots)
        _set_filter(name, each, settings.filter)
        if settings.generation and each.OUTPUT_TYPE == "generate_until":
            each.set_config("generation_kwargs", dict(settings.generation), update=True)
    return dict(loaded)


def _fetched(name: str) -> Any:
    manager = _manager(own_folder(name, TASKS))  # reading it alone saves reading them all
    if name not in manager.all_tasks:
        manager = _manager(TASKS)  # reads 14,000 files: 15 seconds
    if name not in manager.all_tasks:
        near = ", ".join(difflib.get_close_matches(name, manager.all_tasks, 5)) or "none"
        raise InputError(f"lm-eval has no task {name!r}; names like it: {near}")
    try:
        return manager.load([name])
    except (OSError, httpx.HTTPError) as error:
        raise InputError(
            f"the data of task {name!r} is not on this machine and its hub cannot be reached ({_first_line(error)}); "
            "run it once where a network is, or put your own rows through it with `ask`"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@cache
def _manager(folder: Path | None) -> Any:
    return lm_eval.tasks.TaskManager(include_path=folder, include_defaults=False)


def _set_shots(name: str, task: Any, shots: int | None) -> None:
    written = task.get_config("num_fewshot")
    if shots and written == 0:
        raise InputError(f"task {name!r} is written for 0 worked examples; found shots {shots}: leave `shots` out")
    task.set_config("num_fewshot", (written or 0) if shots is None else shots)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _set_filter(name: str, task: Any, wanted: str) -> None:
    """Keep one way of reading replies: two values of one item would count it twice."""
    known = [each.name for each in task._filters]
    if (not wanted and len(known) > 1) or (wanted and wanted not in known):
        raise InputError(f"task {name!r} reads replies by {', '.join(known)}; choose one of them with `filter`")
    task._filters = [each for each in task._filters if each.name == (wanted or known[0])]


def ask(lm: Any, loaded: Mapping[str, Any], limit: int | None = None) -> dict[str, list[Sample]]:
    """What lm-eval found for every item, by task. Raises `InputError` where a prompt does not fit the model."""
    asked = copy.copy(lm)
    asked.loglikelihood = lambda requests: lm.loglikelihood(_fitting(lm, requests), disable_tqdm=True)
    asked.generate_until = lambda requests: lm.generate_until(_fitting(lm, requests), disable_tqdm=True)
    with hushed():
        found = evaluate(
            lm=asked,
            task_dict=dict(loaded),
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    samples: dict[str, list[Sample]] = found["samples"]
    return samples


def _fitting(lm: Any, requests: Sequence[Any]) -> Sequence[Any]:
    """`requests`, all of which fit: lm-eval would cut the beginning of a prompt and go on."""
    for request in requests:
        context, last = request.args
        writes = isinstance(last, dict)
        room = last.get("max_gen_toks", lm.max_gen_toks) if writes else 0
        if (tokens := len(lm.tok_encode(context if writes else context + last))) + room > lm.max_length:
            raise InputError(
                f"item {request.doc_id} of {request.task_name} has a prompt of {tokens} tokens and asks for {room} "
                f"more; the model reads {lm.max_length}: use fewer `shots`, fewer `max_tokens` or a longer context"
            )
    return requests


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Torch's random numbers from `seed` on; they, and Python's own, are as they were afterwards."""
    state = random.getstate()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(state)

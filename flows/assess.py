"""The evaluation stage: one checkpoint (or the untouched base model), one task, every item's outcome."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from eval.assess import Assessment
from eval.assess import assess as examine
from eval.context import fitted, reader_of
from eval.protocol import TUNED, Task
from eval.suite import Suite, check_suites, parts
from eval.table import TASKS
from flows import recipes
from flows.entries import make
from flows.exams import Exams
from flows.recipes import Recipe, Train
from flows.run import Counts, Run
from flows.synth.spend import STORE, check_voices
from flows.synth.stage import Kitchen
from flows.tune import WEIGHTS, adapted, trainer
from flows.voices import Local, OnWorkers, Voice, voice_of
from flows.workers import Workers
from models.chat import ChatFormat
from models.endpoint.store import ResponseStore
from models.endpoint.stored import Stored
from models.fingerprint import fetch, fingerprint, read_json
from models.protocol import LanguageModel
from models.tokens import load_tokenizer
from warehouse.errors import InputError
from warehouse.pools import PoolReader
from warehouse.records import Example, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import EVAL_ITEMS, EVALUATION, write_rows

EVALUATE_VERSION = 3
SUITE = "suite"
SPELLED = re.compile(r"[^a-z0-9_-]")  # what a label may not hold


@dataclass(frozen=True, slots=True)
class Exam:
    """One evaluation as it is sent to a worker. `voice` is the examined model, `replies` where what it says is kept.

    `in_format` says that it is asked in the format that this run tunes in, which a base model need not carry.
    """

    evaluation: str
    checkpoint: str
    entry: recipes.Task
    voice: Local
    test: Path | None
    shots: Path | None
    replies: Path
    seed: int
    in_format: bool

    def task(self) -> Task | Suite:
        meant = {"any_template": True} if self.in_format and self.entry.name != SUITE else {}
        return task(self.entry.model_copy(update=meant), _examples(self.test), _examples(self.shots))


def task(entry: recipes.Task, examples: Sequence[Example], shots: Sequence[Example] = ()) -> Task | Suite:
    """The task a recipe names, over `examples`. Raises `InputError` for an unknown name or parameter."""
    filled = {"examples": tuple(examples)} | ({"shots_from": tuple(shots)} if entry.shots_from else {})
    table: dict[str, Callable[..., Task | Suite]] = {**TASKS, SUITE: Suite}
    return make("task", table, entry.name, entry.params, **filled)


def check(recipe: Recipe) -> None:
    """Raise `InputError` for tasks, parameters and models of roles that are not known, not there, or not asked for."""
    suites: list[Suite] = []
    for entry in single(recipe.tasks):
        made = task(entry, ())
        suites += [made] if isinstance(made, Suite) else []
        wanted = set() if isinstance(made, Suite) else set(made.needs) - {TUNED}
        if missing := sorted(wanted - set(entry.models)):
            raise InputError(
                f"task {entry.title!r} asks a model as {', '.join(missing)}: give `models: {{ROLE: NAME}}`"
            )
        if unknown := sorted(set(entry.models) - wanted):
            raise InputError(f"task {entry.title!r} asks no model as {', '.join(unknown)}; take it out of `models`")
        check_voices((voice_of(named, recipe.endpoints) for named in entry.models.values()), recipe.spend)
    check_suites(suites)


def single(entries: Sequence[recipes.Task]) -> list[recipes.Task]:
    """The entries, a suite of several tasks as one entry for each of them, called as the task is."""
    found = []
    for entry in entries:
        if entry.name != SUITE:
            found.append(entry)
            continue
        each = parts(entry.params)
        for params in each:
            own = params.get("task", entry.title)
            label = own if entry.label is None else entry.label if len(each) == 1 else f"{entry.label}_{own}"
            given = {"label": SPELLED.sub("-", label.lower()), "rows": entry.rows} | params
            found.append(recipes.Task.model_validate({"name": SUITE} | given))
    titles = Counter(entry.title for entry in found)
    if twice := [title for title, n in titles.items() if n > 1]:
        raise InputError(f"several tasks are called {', '.join(twice)}: give each a `label`")
    return found


def _examples(folder: Path | None) -> tuple[Example, ...]:
    if folder is None:
        return ()
    pool = PoolReader(folder)
    return tuple(pool.examples(range(pool.n)))


@dataclass(frozen=True, slots=True)
class Examiner:
    """What the evaluations of one run share."""

    run: Run
    recipe: Recipe
    exams: Exams
    kitchen: Kitchen
    workers: Workers

    def __call__(self, name: str, checkpoint: Artifact | None) -> list[Artifact]:
        """One evaluation per task of the recipe; `checkpoint` None is the base model as it is."""
        assert self.recipe.train is not None  # arms are trained
        voice = voice_of_checkpoint(checkpoint, self.recipe.train)
        return self.assess(name, voice, checkpoint.key if checkpoint else "", in_format=True)

    def check(self, voice: Local) -> None:
        """Raise `InputError` for rows that a task cannot score, and for prompts that `voice` cannot read."""
        reader = reader_without_weights(voice)
        for entry in single(self.recipe.tasks):
            test, shots = self.exams.rows(entry), self.exams.shots(entry)
            folders = [each.folder if each else None for each in (test, shots)]
            made = task(entry, *map(_examples, folders))
            items = made.items()
            if not isinstance(made, Suite):
                fitted(items, reader, made.truncate)

    def assess(self, name: str, voice: Local, checkpoint: str = "", in_format: bool = False) -> list[Artifact]:
        """One evaluation of `voice` per task of the recipe; `checkpoint` is its key, "" for a model that is none."""
        entries = single(self.recipe.tasks)
        return [self._assess(f"{name}: {each.title}", each, checkpoint, voice, in_format) for each in entries]

    def _assess(self, title: str, entry: recipes.Task, checkpoint: str, voice: Local, in_format: bool) -> Artifact:
        test, shots = self.exams.rows(entry), self.exams.shots(entry)
        others = self._others(entry)
        inputs: dict[str, Any] = {"checkpoint": checkpoint}
        inputs |= {name: each.key for name, each in (("test", test), ("shots", shots)) if each}
        inputs |= {"models": {role: other.fingerprint for role, other in others.items()}} if others else {}
        params = {"task": entry.name, "title": entry.title, "spec": dict(task(entry, ()).spec.params)}
        work = Work("evaluate", EVALUATE_VERSION, params, inputs, voice.fingerprint, self.recipe.seed)
        exam = Exam(
            evaluation=work.key,
            checkpoint=checkpoint or f"base:{fingerprint(voice.name, revision=voice.revision)}",
            entry=entry,
            voice=voice,
            test=test.folder if test else None,
            shots=shots.folder if shots else None,
            replies=self.run.store.home / STORE,
            seed=self.recipe.seed,
            in_format=in_format,
        )
        if others:  # their budget is one for the whole run, so they are asked from here
            return self.run.stage(title, work, partial(self._among, exam, others))
        return self.run.stage(title, work, partial(_alone, exam), self.workers)

    def _others(self, entry: recipes.Task) -> Mapping[str, Voice]:
        """The models of a task beside the examined one, by role."""
        return {role: voice_of(named, self.kitchen.endpoints) for role, named in entry.models.items()}

    def _among(self, exam: Exam, others: Mapping[str, Voice], draft: Draft) -> Counts:
        with self.kitchen.purse.open(self.run.store.home, self.workers) as till:
            models = {role: till.model(voice) for role, voice in others.items()}
            models[TUNED] = Stored(OnWorkers(exam.voice, self.workers), till.store)
            return _examine(exam, models, draft)


@dataclass(frozen=True, slots=True)
class Reader:
    """What of a model its prompts are counted with (`eval.context.Readable`)."""

    backend: Tokenizer
    chat: ChatFormat
    max_length: int
    tokenizer: None = None


def reader_without_weights(voice: Local) -> Reader:
    """The tokenizer, chat format and context of `voice`, without its weights."""
    folder = fetch(voice.name, voice.revision, voice.trust_remote_code)
    backend, chat = load_tokenizer(folder, voice.template)
    config = read_json(folder / "config.json")
    positions = config.get("text_config", config).get("max_position_embeddings") or voice.max_length
    return Reader(backend, chat, min(voice.max_length, positions))


def voice_of_checkpoint(tuned: Artifact | None, chosen: Train) -> Local:
    """The examined model, in the chat format it was tuned with."""
    given: dict[str, Any] = {"template": trainer(chosen).template, "trust_remote_code": chosen.trust_remote_code}
    return Local(chosen.base, **given) if tuned is None else voice_of_weights(tuned.folder / WEIGHTS, **given)


def voice_of_weights(weights: Path, **given: Any) -> Local:
    """The model that a training run wrote to `weights`: whole, or an adapter of the base that it names.

    In float32: near ties a greedy bf16 reply can depend on its batch, and evaluations must not.
    """
    base = adapted(weights)
    return Local(str(weights), **given) if base is None else Local(base, adapter=str(weights), **given)


def _alone(exam: Exam, draft: Draft) -> Counts:
    model = exam.voice.loaded()
    with ResponseStore(exam.replies) as store:
        return _examine(exam, {TUNED: Stored(model, store)}, draft)


def _examine(exam: Exam, models: Mapping[str, LanguageModel], draft: Draft) -> Counts:
    chosen, rng = exam.task(), np.random.default_rng(exam.seed)
    if isinstance(chosen, Suite):  # lm-eval leads the conversation itself
        local: Any = reader_of(models[TUNED])
        answer = chosen.run(local, exam.checkpoint, rng)
    else:
        answer = examine(chosen, models, exam.checkpoint, rng)
    _write(draft, exam, answer)
    return _counted(exam, chosen, len({row.item_id for row in answer.items}))


def _counted(exam: Exam, chosen: Task | Suite, scored: int) -> Counts:
    """From the rows of the test set to the items that have a value."""
    if exam.test is None:
        return Counts(scored, scored)
    rows = PoolReader(exam.test).n
    asked, items = min(rows, chosen.limit or rows), len({item.item_id for item in chosen.items()})
    dropped = {"beyond the task's limit": rows - asked, "there twice": asked - items, "without a value": items - scored}
    return Counts(rows, scored, {reason: n for reason, n in dropped.items() if n})


def _write(draft: Draft, exam: Exam, answer: Assessment) -> None:
    spec = answer.report.task
    known = {"evaluation": exam.evaluation, "checkpoint": exam.checkpoint, "task": exam.entry.title}
    metrics = [
        {**known, "spec": spec.key, "params": canonical(dict(spec.params)), "metric": metric, "value": estimate.value,
         "low": estimate.low, "high": estimate.high, "n": estimate.n, "seed": exam.seed}
        for metric, estimate in answer.report.metrics.items()
    ]  # fmt: skip
    write_rows(draft.folder / "evaluation.parquet", EVALUATION, metrics)
    items = [known | row for row in answer.table().to_pylist()]
    write_rows(draft.folder / "eval_items.parquet", EVAL_ITEMS, items)

"""The rows that scorers are trained on: seeds evolved and graded by models in their roles, kept as a pool."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from flows.choose import SELECTED_FILE
from flows.recipes import Scorers
from flows.run import Counts, Run
from flows.sources import write_generations
from flows.workers import Workers
from models.converse import Collected, converse
from models.dialogue import Accepted, Rejected
from models.fingerprint import fetch, fingerprint
from models.protocol import LanguageModel
from models.tokens import load_tokenizer
from synthesis.graded import OF_THE_JUDGE, Graded
from warehouse.errors import InputError
from warehouse.pools import examples_of
from warehouse.records import canonical, digest
from warehouse.store import Artifact, Draft, Work

GRADE_VERSION = 1
REJECTS_FILE = "rejects.jsonl"


@dataclass(frozen=True, slots=True)
class Voice:
    """A model in a role: its name, a key that its replies depend on, and what loads it on the worker that asks it."""

    name: str
    key: str
    load: Callable[[], LanguageModel]


Voices = Mapping[str, Voice]


def local_voices(asked: Scorers) -> dict[str, Voice]:
    """Generator and judge as models on this machine. Raises `InputError` for one that is not there or cannot chat."""
    return {role: _local(name, asked) for role, name in (("generator", asked.generator), ("judge", asked.judge))}


def _local(name: str, asked: Scorers) -> Voice:
    load_tokenizer(fetch(name, trust_remote_code=asked.trust_remote_code), asked.template)
    key = digest(canonical({"model": fingerprint(name, asked.template), "max_length": asked.max_length}))
    return Voice(name, key, partial(_loaded, name, asked.template, asked.max_length, asked.trust_remote_code))


def _loaded(name: str, template: str, max_length: int, trust_remote_code: bool) -> LanguageModel:
    from models.local import LocalModel

    return LocalModel.load(name, max_length=max_length, template=template, trust_remote_code=trust_remote_code)


def grade(run: Run, job: Graded, seeds: Artifact, voices: Voices, seed: int, workers: Workers) -> Artifact:
    """The graded rows of the selection `seeds`, as a JSONL file and the table `generations`; rejected ones beside them.

    Raises `InputError` where no row at all could be graded.
    """
    params = {
        "synthesizer": job.source,
        "params": asdict(job),
        "told": job.told,
        "models": {role: voice.key for role, voice in voices.items()},
    }
    work = Work("synthesize", GRADE_VERSION, params, {"seeds": seeds.key}, seed=seed)
    make = partial(_graded, job, seeds.folder / SELECTED_FILE, voices, work, seed)
    try:
        return run.stage(f"grade {job.grade}", work, make, workers)
    except InputError as error:
        raise InputError(str(getattr(error, "cause", error))) from None  # from a Ray worker it comes with a traceback


def _graded(job: Graded, seeds: Path, voices: Voices, work: Work, seed: int, draft: Draft) -> Counts:
    taken = Collected()
    converse([job(tuple(examples_of(seeds)), np.random.default_rng(seed))], _models(voices), emit=taken)
    made = taken.rows()
    accepted = [row for row in made if isinstance(row, Accepted)]
    rejected = [row for row in made if isinstance(row, Rejected)]
    if not accepted:
        raise InputError(_nothing(job, rejected, voices))
    write_generations(draft.folder, work, job.source, asdict(job), seed, accepted)
    with (draft.folder / REJECTS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rejected)
    return Counts(len(made), len(accepted), Counter(row.reason for row in rejected))


def _models(voices: Voices) -> dict[str, LanguageModel]:
    """The model of each role; one that has two roles is loaded once."""
    loaded = {key: voice.load() for key, voice in {voice.key: voice for voice in voices.values()}.items()}
    return {role: loaded[voice.key] for role, voice in voices.items()}


def _nothing(job: Graded, rejected: Sequence[Rejected], voices: Voices) -> str:
    """Why there is no graded row at all, and what to do."""
    # a seed's own text, step 0, is in every prompt to the judge
    judged = [row for row in rejected if row.reason in OF_THE_JUDGE and _meta(row)["step"] == 0]
    if judged:
        return (
            f"{job.grade}: the judge's answers could not be read: {len(judged)} of {len(judged)} ({_counts(judged)}; "
            f"the first: {judged[0].detail or judged[0].reason}); nothing was trained: name a stronger judge than "
            f"{voices['judge'].name!r} (`scorers.judge`)"
        )
    return (
        f"{job.grade}: none of {len(rejected)} texts could be graded ({_counts(rejected)}); nothing was trained: give "
        f"other `scorers.seeds`, or a stronger `scorers.generator` than {voices['generator'].name!r}"
    )


def _counts(rejected: Sequence[Rejected]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in Counter(row.reason for row in rejected).most_common())


def _plain(row: Rejected) -> dict[str, object]:
    assert row.example is not None  # a graded row is rejected with its text
    text = row.example.messages[0].content
    return {**row.example.meta, "reason": row.reason, "detail": row.detail, "text": text}


def _meta(row: Rejected) -> Mapping[str, object]:
    assert row.example is not None  # as above
    return row.example.meta

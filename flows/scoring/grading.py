"""The rows that scorers are trained on: seeds evolved and graded by models in their roles, kept as a synthesis."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow.parquet as pq

from flows.recipes import Named, Recipe, Scorers, Source
from flows.run import Run
from flows.synth.asked import Synthesis
from flows.synth.rows import REJECTS_FILE
from flows.synth.stage import Kitchen, synthesize
from flows.voices import Voice, voice_of
from flows.workers import Workers
from models.endpoint.spec import EndpointSpec
from synthesis.graded import OF_THE_JUDGE, Graded
from warehouse.errors import InputError
from warehouse.store import Artifact

Voices = Mapping[str, Voice]


def voices_of(asked: Scorers, recipe: Recipe) -> dict[str, Voice]:
    """Generator and judge: endpoints of the recipe, or models of this machine."""
    named = {"generator": asked.generator, "judge": asked.judge}
    return {role: voice_of(_entry(name, asked, recipe.endpoints), recipe.endpoints) for role, name in named.items()}


def _entry(name: str, asked: Scorers, endpoints: Mapping[str, EndpointSpec]) -> Named:
    how = {
        "template": asked.template,
        "max_length": asked.max_length,
        "trust_remote_code": asked.trust_remote_code,
    }
    return Named(name=name, **({} if name in endpoints else how))


def grade(run: Run, job: Graded, seeds: Artifact, voices: Voices, kitchen: Kitchen, workers: Workers) -> Artifact:
    """The graded rows of the selection `seeds`; rejected ones beside them.

    Raises `InputError` where no row at all could be graded.
    """
    asked = Synthesis(Source(synthesize=job.source, params=asdict(job)), job, voices, {})
    made = synthesize(run, f"grade {job.grade}", asked, seeds, kitchen, workers)
    if not made.manifest["facts"]["rows_out"]:
        raise InputError(_nothing(job, pq.read_table(made.folder / REJECTS_FILE).to_pylist(), asked.named))
    return made


def _nothing(job: Graded, rejected: Sequence[Mapping[str, Any]], named: Mapping[str, str]) -> str:
    """Why there is no graded row at all, and what to do."""
    # a seed's own text, step 0, is in every prompt to the judge
    judged = [row for row in rejected if row["reason"] in OF_THE_JUDGE and json.loads(row["meta"])["step"] == 0]
    if judged:
        return (
            f"{job.grade}: the judge's answers could not be read: {len(judged)} of {len(judged)} ({_counts(judged)}; "
            f"the first: {judged[0]['detail'] or judged[0]['reason']}); nothing was trained: name a stronger judge "
            f"than {named['judge']!r} (`scorers.judge`)"
        )
    return (
        f"{job.grade}: none of {len(rejected)} texts could be graded ({_counts(rejected)}); nothing was trained: give "
        f"other `scorers.seeds`, or a stronger `scorers.generator` than {named['generator']!r}"
    )


def _counts(rejected: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in Counter(row["reason"] for row in rejected).most_common())

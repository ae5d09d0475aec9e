"""`winnow select`: rows for a target from any files, no recipe, no training, no server; cached like any run."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows import measure, sources
from flows.choose import Choice, Question, check_budget, chosen_rows, exclude, select
from flows.clean import clean
from flows.console import ConsoleListener
from flows.meter import Meter, passes
from flows.outcome import RaceOutcome
from flows.recipes import Clean, Representation, Source
from flows.report import write_report
from flows.run import Run, logged
from flows.settings import Settings
from flows.sieve import Sieve
from flows.sources import Given
from flows.warmup import warm_up
from flows.workers import RayWorkers, Workers
from selection.limits import Limits
from selection.problem import signals_of
from selection.table import build
from warehouse.errors import InputError
from warehouse.export import check_export, export
from warehouse.pools import examples_of
from warehouse.store import Artifact
from warehouse.tables import SELECTED_FILE

DEFAULT_MODEL = "winnow-tiny"
CLEAN = (Clean(name="duplicate_id"),)  # cleaning is a recipe's business; what this verb is given, it chooses from
ADVICE = (
    f"no model named for what is measured, so {DEFAULT_MODEL} does it: a 2 M-parameter model trained on generated "
    "text. For real data name a real one, such as --encoder all-MiniLM-L6-v2 or --model Qwen/Qwen2.5-1.5B"
)


@dataclass(frozen=True, slots=True)
class SelectRequest:
    """What the user typed."""

    pool: tuple[str, ...]
    target: tuple[str, ...]
    method: str
    budget: int
    out: Path
    model: str | None
    encoder: str | None
    params: tuple[str, ...]
    out_format: str
    seed: int


def select_rows(request: SelectRequest, home: Path) -> RaceOutcome:
    """Choose rows and write them to `request.out`. All that can be known to be wrong is said before work starts."""
    meter = _meter(request)
    choice = _choice(request, meter)
    named = _located(request)
    check_export(request.out, request.out_format, inputs=[Path(text) for text in (*request.pool, *request.target)])
    check_folder(request.out)
    text = yaml.safe_dump(_as_typed(request), sort_keys=False, allow_unicode=True)
    with ConsoleListener() as listener:
        if request.model != DEFAULT_MODEL and meter.reads_tiny(choice.method.reads.values()):
            listener.say(ADVICE)
        run = Run.begin(home, listener, recipe="select", command="select", recipe_text=text)
        with logged(run.log):
            settings = Settings()
            with closing(RayWorkers(settings.ray_address, settings.workers)) as workers:
                chosen = _stages(run, request, choice, meter, named, workers)
            run.log.end("done")  # the report says how the run ended
            report = write_report(run.store.home, run.log.run)
            run.log.end("done", report=str(report))
    return _outcome(run, request, choice, chosen, report)


def _meter(request: SelectRequest) -> Meter:
    if request.model and request.encoder:
        raise InputError("give either --model or --encoder, not both")
    model = None if request.encoder else request.model or DEFAULT_MODEL
    meter = Meter(Representation(model=model, encoder=request.encoder))
    meter.spec()  # a model that is not there is said, whether or not the method reads it
    return meter


def _choice(request: SelectRequest, meter: Meter) -> Choice:
    """What is asked, with its models on this machine.

    Raises `InputError` for an unknown method or parameter, a model that is not there, a missing target set.
    """
    params = _parsed(request.params)
    method = build(request.method, params, meter.fill)
    if method.compares and not request.target:
        raise InputError(f"method {request.method!r} compares rows with a target set: give --target")
    return Choice(request.method, params, method, Limits(request.budget), request.seed)


def _located(request: SelectRequest) -> dict[str, list[Given]]:
    """What to read, the target first: it is small, so what is wrong with it is known before the pool is read."""
    wanted = {"target": request.target, "pool": request.pool}
    return {name: [sources.located(Source(path=t), Path()) for t in texts] for name, texts in wanted.items() if texts}


def check_folder(out: Path) -> None:
    """Raise `InputError` where the folder of `out` can be neither written nor made."""
    folder = next(place for place in (out.absolute().parent, *out.absolute().parent.parents) if place.exists())
    if not folder.is_dir():
        raise InputError(f"cannot write {out}: {folder} is a file, not a folder; choose another --out")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {out}: the folder {folder} is read-only; choose another --out")


def _stages(
    run: Run,
    request: SelectRequest,
    choice: Choice,
    meter: Meter,
    named: Mapping[str, Sequence[Given]],
    workers: Workers,
) -> Artifact:
    ready = {name: sources.ingest(run, name, given, workers) for name, given in named.items()}
    target = {name: artifact for name, artifact in ready.items() if name == "target"}
    sieve = Sieve(run, ready["pool"], target, workers)
    question = Question(ready["pool"], ready.get("target"), exclude(sieve, clean(sieve, CLEAN)))
    check_budget(question, [choice.budget])
    rows = {"pool": question.rows()}
    if asked := meter.warmups(choice.method.reads.values()):
        for each in asked:
            warm_up(run, question, meter, each, choice.seed, workers)
        choice = _choice(request, meter)
    reads = signals_of(choice.method)
    for name, specs in (("pool", reads.candidates), ("target", reads.targets)):
        for together in passes(specs.values()):
            measure.measure(run, name, meter, together, sources.read(ready[name]), rows=rows.get(name))
    chosen = select(run, question, choice)
    _export(chosen, request)
    return chosen


def _outcome(run: Run, request: SelectRequest, choice: Choice, chosen: Artifact, report: Path) -> RaceOutcome:
    facts = chosen.manifest["facts"]
    names = ("name", "key", "computed", "seconds", "rows_in", "rows_out")
    return RaceOutcome(
        run=run.log.run,
        home=str(run.store.home),
        report=str(report),
        ui=None,
        stages=[{name: stage[name] for name in names} for stage in run.log.stages()],
        selections=[
            {
                "method": choice.label,
                "budget": choice.budget,
                "seed": choice.seed,
                "key": chosen.key,
                "rows": facts["rows_out"],
            }
        ],
        out=str(request.out),
    )


def _export(chosen: Artifact, request: SelectRequest) -> None:
    """The chosen rows with rank, score, source and reason, best first."""
    columns = chosen_rows(chosen)
    facts: Mapping[str, Sequence[Any]] = {
        name: columns[name].tolist() for name in ("rank", "score", "weight", "reason", "row")
    }
    export(examples_of(chosen.folder / SELECTED_FILE), request.out, request.out_format, columns=facts)


def _as_typed(request: SelectRequest) -> dict[str, Any]:
    """The request as plain lists and texts, for the log."""
    values = {name: getattr(request, name) for name in request.__dataclass_fields__}
    return {
        name: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for name, v in values.items()
    }


def _parsed(params: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for param in params:
        name, mark, text = param.partition("=")
        if not mark:
            raise InputError(f"--param {param!r}: expected key=value, for instance --param policy=consume")
        try:
            parsed[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--param {param!r}: the value is not valid YAML") from error
    return parsed

"""`winnow select`: rows for a target from any files, no recipe, no training, no server; cached like any run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from flows import measure, sources
from flows.choose import Choice, Question, check_budget, chosen_rows, exclude, select
from flows.console import ConsoleListener
from flows.measure import Meter
from flows.outcome import Outcome
from flows.recipes import Representation, Source
from flows.run import Run
from selection.table import build
from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.export import check_export, export
from warehouse.store import Artifact

DEFAULT_MODEL = "winnow-tiny"
ADVICE = (
    f"no --model or --encoder named: {DEFAULT_MODEL} represents rows, a 2 M-parameter model trained on generated "
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


def select_rows(request: SelectRequest, home: Path) -> Outcome:
    """Choose rows and write them to `request.out`. All that can be known to be wrong is said before work starts."""
    params = _parsed(request.params)
    if request.model and request.encoder:
        raise InputError("give either --model or --encoder, not both")
    meter = Meter(
        Representation(model=None if request.encoder else request.model or DEFAULT_MODEL, encoder=request.encoder)
    )
    method = build(request.method, params, **meter.filled())
    if method.compares and not request.target:
        raise InputError(f"method {request.method!r} compares rows with a target set: give --target")
    check_export(request.out, request.out_format, inputs=[Path(text) for text in (*request.pool, *request.target)])
    wanted = {"pool": request.pool, "target": request.target}
    named = {
        name: [sources.located(Source(path=text), Path()) for text in texts] for name, texts in wanted.items() if texts
    }
    with ConsoleListener() as listener:
        if "representation" in method.reads and not (request.model or request.encoder):
            listener.say(ADVICE)
        text = yaml.safe_dump(_as_typed(request), sort_keys=False, allow_unicode=True)
        run = Run.begin(home, listener, recipe="select", command="select", recipe_text=text, version=version("winnow"))
        catalogue.ensure(run.store.home)
        ready = {name: sources.ingest(run, name, rows) for name, rows in named.items()}
        question = Question(ready["pool"], ready.get("target"), exclude(run, ready["pool"], ready.get("target"), None))
        check_budget(question, [request.budget])
        for spec in method.reads.values():
            for name, artifact in ready.items():
                measure.measure(run, f"measure {spec.name} of {name}", meter, spec, sources.read(artifact))
        choice = Choice(request.method, params, request.budget, request.seed)
        chosen = select(run, question, choice, meter)
        _export(chosen, ready["pool"], request)
        run.log.end("done")
    return _outcome(run, request, choice, chosen)


def _outcome(run: Run, request: SelectRequest, choice: Choice, chosen: Artifact) -> Outcome:
    facts = chosen.manifest["facts"]
    names = ("name", "key", "computed", "seconds", "rows_in", "rows_out")
    return Outcome(
        run=run.log.run,
        home=str(run.store.home),
        report=None,
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


def _export(chosen: Artifact, pool: Artifact, request: SelectRequest) -> None:
    """The chosen rows with rank, score, source and reason, best first."""
    columns = chosen_rows(chosen)
    examples = sources.read(pool).examples(columns["row"])
    facts: Mapping[str, Sequence[Any]] = {
        name: columns[name].tolist() for name in ("rank", "score", "weight", "reason", "row")
    }
    export(examples, request.out, request.out_format, columns=facts)


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
        parsed[name] = yaml.safe_load(text)
    return parsed

"""`winnow cache`: what the store holds, what changed between two keys, and what can go."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.console import ConsoleListener
from flows.tables import render
from training.sft import Sft
from warehouse import catalogue, share
from warehouse import lineage as ancestors
from warehouse import prune as pruning
from warehouse.errors import InputError
from warehouse.leases import undisturbed
from warehouse.store import TRAINED_ON, Artifact, Store, load_artifact

MOST_LINES = 40  # of what differs
LISTING = """
SELECT stage, left(key, 12) AS key, created, round(seconds, 1) AS seconds, bytes,
       facts->>'rows_in' AS rows_in, facts->>'rows_out' AS rows_out
FROM artifacts ORDER BY created, stage, key
"""


def listing(home: Path, verify: bool) -> str:
    """All artifacts, oldest first; with `verify` every file is hashed and damage is named."""
    table = render(catalogue.query(home, LISTING))
    if not verify:
        return table
    damaged = [
        f"{artifact.stage} {artifact.key[:12]}: {'; '.join(faults)}"
        for artifact in Store(home).artifacts()
        if (faults := artifact.faults(hash_up_to=float("inf")))
    ]
    verdict = (
        "\n".join(["damaged (the next run that needs them makes them again):", *damaged]) if damaged else "all whole"
    )
    return f"{table}\n{verdict}"


def explain(home: Path, first: str, second: str) -> str:
    """Which parts of the key differ between two artifacts, or which stages differ between two runs and why.

    Raises `InputError` where a text begins no run and no artifact, or several, and for one of each.
    """
    with undisturbed(home):
        runs = [_run(home, text) for text in (first, second)]
        if runs[0] and runs[1]:
            return _explain_runs(home, runs[0], runs[1])
        if any(runs):
            raise InputError(f"{first!r} and {second!r} are a run and an artifact; give two runs or two artifacts")
        return _explain_artifacts(home, _artifact(home, first), _artifact(home, second))


def prune(home: Path, keep: int, days: float, dry_run: bool) -> str:
    """Remove what neither the last `keep` finished runs used nor runs that did not finish in the last `days`.

    Safe beside running flows: what a living process looked for stays, and what is gone is made again by who wants it.
    """
    since = datetime.now(UTC) - timedelta(days=days)
    pruned = pruning.prune(home, keep, since, dry_run=dry_run)
    counts = {"artifacts": pruned.artifacts, "signals": pruned.signals, "leftovers of dead processes": pruned.scratch}
    what = ", ".join(f"{n:,} {name}" for name, n in counts.items() if n or name == "artifacts")
    verb = "would free" if dry_run else "freed"
    return f"{verb} {pruned.bytes / 1e6:,.1f} MB in {what}; what the last {keep} finished runs used is kept"


def push(home: Path, url: str, wanted: Sequence[str]) -> str:
    """Copy what `wanted` names, and what it needs, to `url`; says what was moved."""
    with ConsoleListener() as listener:
        return share.push(home, url, wanted, partial(listener.progress, "megabytes sent")).as_text("pushed")


def pull(home: Path, url: str, wanted: Sequence[str]) -> str:
    """Copy what `wanted` names at `url`, and what it needs, into `home`; says what was moved."""
    with ConsoleListener() as listener:
        moved = share.pull(home, url, wanted, partial(listener.progress, "megabytes received"))
    catalogue.ensure(home)
    return moved.as_text("pulled")


def lineage(home: Path, text: str, as_json: bool) -> str:
    """Everything that the artifact or signal whose key begins with `text` was made from, as a tree or as JSON."""
    with undisturbed(home):
        key = ancestors.find(home, text)
        nodes = ancestors.ancestry(home, [key], alike=True)
        names = ancestors.model_names(home, nodes)
    return (
        ancestors.as_json(key, nodes)
        if as_json
        else ancestors.as_tree(key, nodes, names, {"train": dict(Sft().spec.params)})
    )


def _run(home: Path, text: str) -> str | None:
    names = sorted(file.parent.name for file in (home / "runs").glob("*/run.parquet"))
    found = [name for name in names if text and name.startswith(text) and name != "empty"]
    if len(found) > 1 and text not in found:
        raise InputError(f"{text!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}; give more of it")
    return (text if text in found else found[0]) if found else None


def _artifact(home: Path, text: str) -> Artifact:
    found = [artifact for artifact in Store(home).artifacts() if text and artifact.key.startswith(text)]
    if len(found) != 1:
        what = "no artifact or run begins" if not found else f"{len(found)} artifacts begin"
        raise InputError(
            f"{what} with {text!r}; `winnow cache ls` lists the keys, `winnow sql 'SELECT run FROM runs'` the runs"
        )
    return found[0]


def _explain_artifacts(home: Path, first: Artifact, second: Artifact) -> str:
    causes = list(_causes(home, (first.key, second.key), ancestors.keys(home), set()))
    if not causes:
        return f"{first.key[:12]} and {second.key[:12]} are the same artifact"
    head = f"{first.stage} {first.key[:12]} and {second.stage} {second.key[:12]} differ in:"
    return "\n".join([head, *_few([f"{path}: {line}" if path else line for path, line in causes])])


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_LINES else [*lines[:MOST_LINES], f"and {len(lines) - MOST_LINES:,} more"]


Pair = tuple[str, str]


def _causes(
    home: Path, pair: Pair, stages: Mapping[str, str], seen: set[Pair], path: str = ""
) -> Iterator[tuple[str, str]]:
    """(path of the input, what differs there) for the first things that differ on the way back; each pair once.

    Where an input differs because something it was made from does, that is said and not the keys in between.
    """
    seen.add(pair)
    first, second = (_parts(home, key, stages[key]) for key in pair)
    for name, before, after in _differences(first, second):
        role = name.removeprefix("inputs.")
        if name == f"inputs.{TRAINED_ON}":
            before, after = (_rows_from(home, key, stages[key]) for key in pair)
        if isinstance(before, str) and isinstance(after, str) and before in stages and after in stages:
            if (before, after) not in seen:
                place = f"{path}.{role}" if path else role
                here = f"{place} ({stages[after]} {before[:12]} → {after[:12]})"
                for deeper, line in _causes(home, (before, after), stages, seen, place):
                    yield deeper if deeper != place else here, line
        else:
            yield path, f"{name}: {json.dumps(before)} → {json.dumps(after)}"


def _parts(home: Path, key: str, stage: str) -> dict[str, Any]:
    """What the key is a hash of."""
    if stage == ancestors.SIGNAL:
        spec: dict[str, Any] = json.loads((home / "signals" / key / "spec.json").read_text())
        return spec
    artifact = load_artifact(home / "artifacts" / stage / key)
    names = ("stage", "version", "params", "inputs", "model", "seed")
    return {name: artifact.manifest[name] for name in names} if artifact else {}


def _rows_from(home: Path, key: str, stage: str) -> Any:
    """The key of the artifact whose rows a training run read."""
    artifact = load_artifact(home / "artifacts" / stage / key)
    return ancestors.inputs_of(artifact.manifest).get(TRAINED_ON) if artifact else None


def _differences(first: Any, second: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, before, after) of every leaf that differs."""
    if isinstance(first, list) and isinstance(second, list):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = [*first, *(name for name in second if name not in first)]
        return [
            found
            for name in names
            for found in _differences(first.get(name), second.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if first == second else [(path, first, second)]


def _explain_runs(home: Path, first: str, second: str) -> str:
    """The stages that differ by themselves, and why; then those that differ only because these do."""
    before, after = (_stages(home, run) for run in (first, second))
    kinds = ancestors.keys(home)
    seen = {(before[name], after[name]) for name in before if name in after}
    lines, follow = [], []
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in before or name not in after:
            lines.append(f"{name}: only in {first if name in before else second}")
        elif before[name] not in kinds or after[name] not in kinds:
            lines += (
                [] if before[name] == after[name] else [f"{name}: {before[name][:12]} → {after[name][:12]} (removed)"]
            )
        elif causes := list(_causes(home, (before[name], after[name]), kinds, seen)):
            lines += [f"{name}: {f'{path}: ' if path else ''}{line}" for path, line in causes]
        elif before[name] != after[name]:
            follow.append(name)
    lines = _few(lines)
    lines += [f"these follow from that: {', '.join(follow)}"] if follow else []
    return "\n".join(lines) if lines else f"{first} and {second} asked for the same keys in every stage"


def _stages(home: Path, run: str) -> dict[str, str]:
    files = sorted((home / "runs" / run).glob("stage-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["name"]: row["key"] for row in rows}

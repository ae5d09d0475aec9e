"""`winnow cache`: what the store holds, what changed between two keys, and what can go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.tables import render
from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.store import Artifact, Store

LISTING = """
SELECT stage, left(key, 12) AS key, created, round(seconds, 1) AS seconds, bytes,
       facts->>'rows_in' AS rows_in, facts->>'rows_out' AS rows_out
FROM artifacts ORDER BY created
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
    runs = [_run(home, text) for text in (first, second)]
    if runs[0] and runs[1]:
        return _explain_runs(home, runs[0], runs[1])
    if any(runs):
        raise InputError(f"{first!r} and {second!r} are a run and an artifact; give two runs or two artifacts")
    return _explain_artifacts(_artifact(home, first), _artifact(home, second))


def prune(home: Path, keep: int, dry_run: bool) -> str:
    """Remove artifacts that neither the last `keep` finished runs nor any unfinished one used.

    A run that is going on is unfinished, so its stages are safe; so is whatever it has not asked for yet, because a
    missing artifact is made again.
    """
    store = Store.open(home)
    kept = _kept_keys(home, keep)
    going = [artifact for artifact in store.artifacts() if artifact.key not in kept]
    freed = sum(sum(entry["bytes"] for entry in a.manifest["files"].values()) for a in going)
    if not dry_run:
        for artifact in going:
            store.remove(artifact)
    verb = "would free" if dry_run else "freed"
    return f"{verb} {freed / 1e6:.1f} MB in {len(going)} artifacts; what the last {keep} finished runs used is kept"


def _kept_keys(home: Path, keep: int) -> set[str]:
    runs = catalogue.query(home, "SELECT run, status FROM runs ORDER BY run DESC").to_pylist()
    done = [row["run"] for row in runs if row["status"] == "done"][:keep]
    open_runs = [row["run"] for row in runs if row["status"] == "running or killed"]
    stages = catalogue.query(home, "SELECT run, key FROM stages").to_pylist()
    used = {row["key"] for row in stages if row["run"] in {*done, *open_runs}}
    return used | _inputs_of(home, used)


def _inputs_of(home: Path, keys: set[str]) -> set[str]:
    """Keys that artifacts in `keys` were made from, and what those were made from."""
    made_from = {artifact.key: set(_strings(artifact.manifest["inputs"])) for artifact in Store(home).artifacts()}
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        new = made_from.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else []
    return [text for part in values for text in _strings(part)]


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


def _explain_artifacts(first: Artifact, second: Artifact) -> str:
    changed = _differences(_parts(first), _parts(second))
    if not changed:
        return f"{first.key[:12]} and {second.key[:12]} are the same artifact"
    lines = [f"{name}: {before} → {after}" for name, before, after in changed]
    return "\n".join([f"{first.stage} {first.key[:12]} and {second.stage} {second.key[:12]} differ in:", *lines])


def _parts(artifact: Artifact) -> dict[str, Any]:
    names = ("stage", "version", "params", "inputs", "model", "seed")
    return {name: artifact.manifest[name] for name in names}


def _differences(first: Any, second: Any, path: str = "") -> list[tuple[str, str, str]]:
    """(dotted name, before, after) of every leaf that differs."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = [*first, *(name for name in second if name not in first)]
        return [
            found
            for name in names
            for found in _differences(first.get(name), second.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if first == second else [(path, json.dumps(first), json.dumps(second))]


def _explain_runs(home: Path, first: str, second: str) -> str:
    stages = [_stages(home, run) for run in (first, second)]
    artifacts = {artifact.key: artifact for artifact in Store(home).artifacts()}
    lines = []
    for name in [*stages[0], *(name for name in stages[1] if name not in stages[0])]:
        before, after = stages[0].get(name), stages[1].get(name)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{name}: only in {first if after is None else second}")
        elif before in artifacts and after in artifacts:
            parts = _differences(_parts(artifacts[before]), _parts(artifacts[after]))
            lines += [f"{name}: {part}: {old} → {new}" for part, old, new in parts]
        else:
            lines.append(f"{name}: {before[:12]} → {after[:12]} (the artifact is gone or a signal)")
    return "\n".join(lines) if lines else f"{first} and {second} asked for the same keys in every stage"


def _stages(home: Path, run: str) -> dict[str, str]:
    files = sorted((home / "runs" / run).glob("stage-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return {row["name"]: row["key"] for row in rows}

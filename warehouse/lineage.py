"""Lineage: from a result back to everything that it was made from, read from the manifests alone.

The leaf strings of a manifest's `inputs` are keys of artifacts, of signal specs, or content hashes of source files; the
parameters of a signal's spec may name artifacts too (a checkpoint that measured it). A checkpoint's key knows the rows
that were read alone: the manifest notes whose they were, and every other selection of the same rows stands behind it
too. The view `lineage` says the same.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from warehouse.errors import InputError
from warehouse.store import ROWS_FROM, TRAINED_ON, load_artifact

KEY = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
SHORT = 12
SIGNAL, SOURCE, GONE = "signal", "source", "gone"
READERS = ("ingest", "shard")  # the stages whose inputs may be the content of source files
CHOSEN = ("select", "mixture", "blend", "pairs")  # the stages whose artifacts training runs read
PIECES = ("shard", SOURCE)
MOST_PIECES = 3  # of one node that a tree shows
NO_DATA = f'{{{{"{TRAINED_ON}": null}}}}'  # its braces are doubled: the view is a format string

# shortest paths by breadth: a pair once found is not found again, so that shared ancestors cost nothing twice
VIEW = f"""
WITH RECURSIVE specs AS (
    SELECT regexp_extract(filename, '([^/]+)/spec.json$', 1) AS key, params
    FROM read_json('{{home}}/signals/*/spec.json', columns = {{{{name: 'VARCHAR', params: 'JSON'}}}},
                   filename = true, hive_partitioning = false)
    WHERE name IS NOT NULL
), chosen AS (
    SELECT key, facts->>'{TRAINED_ON}' AS data FROM artifacts WHERE stage IN {CHOSEN}
), made AS (
    SELECT key, stage, CASE
        WHEN (facts->'{ROWS_FROM}') IS NULL THEN inputs
        WHEN (inputs->>'{TRAINED_ON}') IN (SELECT data FROM chosen) THEN json_merge_patch(inputs, '{NO_DATA}'::JSON)
        ELSE json_merge_patch(inputs, json_object('{TRAINED_ON}', facts->'{ROWS_FROM}')) END AS inputs
    FROM artifacts UNION ALL SELECT key, '{SIGNAL}', params FROM specs
), leaves AS (
    SELECT m.key, m.stage, l.atom->>'$' AS ancestor,
           regexp_replace(regexp_replace(l.fullkey, '\\[(\\d+)\\]', '.\\1', 'g'), '^\\$\\.|"', '', 'g') AS role
    FROM made m, json_tree(m.inputs) l WHERE l.type = 'VARCHAR'
    UNION ALL
    SELECT t.key, t.stage, c.key, '{TRAINED_ON}' FROM artifacts t JOIN chosen c ON c.data = (t.inputs->>'{TRAINED_ON}')
    WHERE (t.facts->'{ROWS_FROM}') IS NOT NULL
), edges AS (
    SELECT l.key, l.stage, l.ancestor, l.role, coalesce(a.stage, CASE
               WHEN s.key IS NOT NULL OR starts_with(l.role, 'signals.') THEN '{SIGNAL}'
               WHEN l.stage IN {READERS} THEN '{SOURCE}' ELSE '{GONE}' END) AS ancestor_stage
    FROM leaves l LEFT JOIN made a ON a.key = l.ancestor AND a.stage <> '{SIGNAL}'
    LEFT JOIN specs s ON s.key = l.ancestor
    WHERE regexp_full_match(l.ancestor, '{KEY.pattern.replace("{", "{{").replace("}", "}}")}')
      AND (l.stage <> '{SIGNAL}' OR a.key IS NOT NULL)
), paths(key, stage, ancestor, ancestor_stage, role, depth) USING KEY (key, ancestor) AS (
    SELECT key, stage, ancestor, min(ancestor_stage), min(role), 1 FROM edges GROUP BY ALL
    UNION
    SELECT p.key, p.stage, e.ancestor, min(e.ancestor_stage), min(p.role || '.' || e.role), p.depth + 1
    FROM paths p JOIN edges e ON e.key = p.ancestor
    LEFT JOIN recurring.paths known ON known.key = p.key AND known.ancestor = e.ancestor
    WHERE known.key IS NULL GROUP BY ALL
)
SELECT key, stage, ancestor, ancestor_stage, role, depth FROM paths"""


@dataclass(frozen=True, slots=True)
class Node:
    """An artifact, a signal's spec, or the content of source files; `stage` is "gone" for what was removed by hand.

    `inputs` are (role, key); a role is the path of the input, as in `signals.representation`.
    """

    key: str
    stage: str
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    seed: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    seconds: float = 0.0
    inputs: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the inputs."""
        funnel = {name: self.facts.get(name) for name in ("rows_in", "rows_out", "dropped")}
        names = ("key", "stage", "params", "model", "seed", "created", "seconds")
        return {name: getattr(self, name) for name in names} | funnel


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every string of a JSON tree."""
    if isinstance(tree, str):
        yield path, tree
    elif isinstance(tree, Mapping | list):
        for name, part in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            yield from leaves(part, f"{path}.{name}" if path else str(name))


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What an artifact was made from, role to key; of a training run the artifact whose rows were read."""
    rows_from = manifest["facts"].get(ROWS_FROM)
    return dict(manifest["inputs"]) | ({TRAINED_ON: rows_from} if rows_from else {})


def keys(home: Path) -> dict[str, str]:
    """The stage of every artifact and signal of `home` by its key; nothing is opened."""
    signals = {spec.parent.name: SIGNAL for spec in (home / "signals").glob("*/spec.json")}
    artifacts = {made.parent.name: made.parent.parent.name for made in (home / "artifacts").glob("*/*/manifest.json")}
    return {key: stage for key, stage in (signals | artifacts).items() if KEY.fullmatch(key)}


def find(home: Path, text: str) -> str:
    """The one key that begins with `text`. Raises `InputError` where none or several do."""
    found = {key: stage for key, stage in sorted(keys(home).items()) if text and key.startswith(text)}
    if text in found or len(found) == 1:
        return text if text in found else next(iter(found))
    if not found:
        raise InputError(f"no artifact or signal begins with {text!r}; `winnow cache ls` lists the keys")
    shown = ", ".join(f"{stage} {key}" for key, stage in list(found.items())[:5])
    raise InputError(f"{len(found)} keys begin with {text!r}: {shown}; give more of it")


def ancestry(home: Path, roots: Iterable[str], *, alike: bool = False) -> dict[str, Node]:
    """The nodes of `roots` and of all they were made from, every one after its inputs.

    Several selections may have chosen the rows that a checkpoint was trained on. It was made from all of them with
    `alike`, else from those in `roots`; where there is none of these, from the one that it was trained for, and where
    that is gone from one of the others.
    """
    stages = keys(home)
    found: dict[str, Node] = {}
    roots = list(dict.fromkeys(roots))
    chosen = _Chosen(home, stages, stages if alike else roots)
    waiting = [(root, "", GONE) for root in roots]
    while waiting:
        key, role, parent = waiting.pop()
        if key not in found:
            found[key] = _node(home, key, stages, role, parent, chosen)
            waiting += [(each, name, found[key].stage) for name, each in found[key].inputs]
    order = inputs_first(roots, {key: [each for _, each in node.inputs] for key, node in found.items()})
    return {key: found[key] for key in order}


def inputs_first(roots: Iterable[str], inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """`roots` and all that is reached from them by `inputs`, each once and after its own inputs."""
    order: dict[str, None] = {}
    entered: set[str] = set()
    waiting = [(root, False) for root in reversed(list(roots))]
    while waiting:
        key, done = waiting.pop()
        if done:
            order[key] = None
        elif key not in entered:
            entered.add(key)
            waiting += [(key, True), *((each, False) for each in reversed(inputs[key]))]
    return list(order)


class _Chosen:
    """The artifacts of a home that training runs read, by the key of their rows; read when first asked for."""

    def __init__(self, home: Path, stages: Mapping[str, str], wanted: Iterable[str]) -> None:
        self._home, self._stages, self._wanted = home, stages, frozenset(wanted)

    def of(self, rows: str, noted: str) -> list[str]:
        """Those of `rows` that are wanted, else the one that is `noted`, else, where that is gone, some other."""
        found = self._by_rows.get(rows, [])
        return [key for key in found if key in self._wanted] or ([noted] if noted in found or not found else found[:1])

    @cached_property
    def _by_rows(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key in sorted(key for key, stage in self._stages.items() if stage in CHOSEN):
            artifact = load_artifact(self._home / "artifacts" / self._stages[key] / key)
            if artifact is not None and (rows := artifact.manifest["facts"].get(TRAINED_ON)):
                found.setdefault(rows, []).append(key)
        return found


def _node(home: Path, key: str, stages: Mapping[str, str], role: str, parent: str, chosen: _Chosen) -> Node:
    stage = stages.get(key)
    if stage == SIGNAL:
        return _signal(home / "signals" / key, stages)
    artifact = load_artifact(home / "artifacts" / stage / key) if stage else None
    if artifact is None:
        kind = SIGNAL if role.startswith("signals.") else SOURCE if parent in READERS else GONE
        return Node(key, kind)
    known = ("params", "model", "seed", "facts", "created", "seconds")
    made_from = inputs_of(artifact.manifest)
    inputs = [(name, text) for name, text in leaves(made_from) if KEY.fullmatch(text)]
    if ROWS_FROM in artifact.manifest["facts"]:
        of_rows = chosen.of(artifact.manifest["inputs"][TRAINED_ON], made_from[TRAINED_ON])
        inputs = [*((TRAINED_ON, each) for each in of_rows), *(each for each in inputs if each[0] != TRAINED_ON)]
    return Node(key, artifact.stage, **{name: artifact.manifest[name] for name in known}, inputs=tuple(inputs))


def _signal(folder: Path, stages: Mapping[str, str]) -> Node:
    spec = json.loads((folder / "spec.json").read_text())
    shards = sorted(folder.glob("shard-*.parquet"))
    rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
    costs = [json.loads(shard.with_name(f"{shard.stem}.cost.json").read_text()) for shard in shards]
    inputs = tuple((name, text) for name, text in leaves(spec["params"]) if stages.get(text, SIGNAL) != SIGNAL)
    return Node(
        folder.name,
        SIGNAL,
        {"signal": spec["name"], **spec["params"]},
        facts={"rows_in": rows, "rows_out": rows, "dropped": {}},
        seconds=sum(cost.get("seconds", 0.0) for cost in costs),
        inputs=inputs,
    )


def as_json(key: str, nodes: Mapping[str, Node]) -> str:
    """Nodes and edges as one JSON object on one line; an edge goes from what was made to its input."""
    edges = [{"key": node.key, "input": each, "role": role} for node in nodes.values() for role, each in node.inputs]
    return json.dumps(
        {"key": key, "nodes": [node.as_dict() for node in nodes.values()], "edges": edges}, ensure_ascii=False
    )


def as_tree(
    key: str, nodes: Mapping[str, Node], names: Mapping[str, str], usual: Mapping[str, Mapping[str, Any]]
) -> str:
    """The ancestry of `key` as an indented tree; what was printed once is named only.

    `names` gives models by fingerprint; parameters equal to those of `usual[stage]` are left out.
    """
    told: set[str] = set()

    def lines(role: str, key: str, first: str, rest: str) -> Iterator[str]:
        node = nodes[key]
        named = f"{role}: " if role else ""
        if key in told:
            yield f"{first}{named}{node.stage} {key[:SHORT]}, as above"
            return
        told.add(key)
        yield first + named + _line(node, names, usual.get(node.stage, {}))
        shown, left = _few(node, nodes)
        for place, (name, each) in enumerate(shown, 1):
            last = place == len(shown) and not left
            yield from lines(name, each, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
        if left:
            yield f"{rest}└─ and {left}"

    return "\n".join(lines("", key, "", ""))


def model_names(home: Path, nodes: Mapping[str, Node]) -> dict[str, str]:
    """The base models that checkpoints of `nodes` name, by fingerprint."""
    found: dict[str, str] = {}
    for node in nodes.values():
        table = home / "artifacts" / node.stage / node.key / "checkpoint.parquet"
        if node.stage == "train" and table.exists():
            for row in pq.read_table(table, columns=["base", "base_fingerprint"]).to_pylist():
                found[row["base_fingerprint"]] = row["base"]
    return found


def _few(node: Node, nodes: Mapping[str, Node]) -> tuple[list[tuple[str, str]], str]:
    """The inputs of `node` to show, and what the others are: a pool is made from hundreds of shards."""
    pieces = [(role, key) for role, key in node.inputs if nodes[key].stage in PIECES]
    if len(pieces) <= MOST_PIECES:
        return list(node.inputs), ""
    hidden = pieces[MOST_PIECES:]
    rows = sum(nodes[key].facts.get("rows_out", 0) for _, key in hidden)
    left = f"{len(hidden):,} more of stage {nodes[hidden[0][1]].stage}" + (f", {rows:,} rows" if rows else "")
    return [each for each in node.inputs if each not in set(hidden)], left


def _line(node: Node, names: Mapping[str, str], usual: Mapping[str, Any]) -> str:
    """`select 1b4a7cfa2fac  method=rds_plus budget=24, seed 0, 300 → 24 rows (276 not chosen), 2026-11-21 11:07`"""
    parts = [" ".join(_settings(node.params, names, usual))]
    parts += [f"model {_shown(node.model, names)}"] if node.model else []
    parts += [f"seed {node.seed}"] if node.seed is not None else []
    if "rows_in" in node.facts:
        dropped = ", ".join(f"{n:,} {reason}" for reason, n in sorted(node.facts["dropped"].items()))
        rows = f"{node.facts['rows_in']:,} → {node.facts['rows_out']:,} rows" + (f" ({dropped})" if dropped else "")
        parts.append(rows)
    parts += [node.created[:16].replace("T", " ")] if node.created else []
    return f"{node.stage} {node.key[:SHORT]}  {', '.join(part for part in parts if part)}".rstrip()


def _settings(params: Mapping[str, Any], names: Mapping[str, str], usual: Mapping[str, Any]) -> Iterator[str]:
    """`name=value` of what was set; the parameters of the method, trainer or task stand beside its name."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _settings(value, names, usual)
        elif not _blank(value) and not (name in usual and usual[name] == value):
            yield f"{name}={_shown(value, names)}"


def _blank(value: Any) -> bool:
    """Whether nothing in `value` was set: all of it is null, empty, zero or false."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return not value if parts is None else all(map(_blank, parts))


def _shown(value: Any, names: Mapping[str, str]) -> str:
    if isinstance(value, str):
        short = value[:SHORT] if KEY.fullmatch(value) else value
        return f"{names[value]} ({short})" if value in names else short
    return json.dumps(value, ensure_ascii=False)

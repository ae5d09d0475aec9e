"""A task as a YAML file: what is asked, of which rows, and where they are from, checked before any work starts.

Errors name the file, the line and the key, as those of recipes do.
"""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eval.table import TASKS
from warehouse.errors import InputError

Problem = tuple[Sequence[str | int], str]  # the key that is wrong, and why
LABEL = re.compile(r"[a-z0-9][a-z0-9_-]*")
KINDS: dict[str, type] = {
    "name": str, "task": str, "rows": list, "shots_from": list, "shots": int, "models": dict, "params": dict,
    "description": str, "licence": str,
}  # fmt: skip
NEEDED = ("name", "task")
FILLED = ("examples", "shots_from", "shots")  # parameters that other keys give
SHAPES = {str: "a text", list: "a list", int: "a whole number", dict: "a mapping"}


@dataclass(frozen=True, slots=True)
class TaskFile:
    """What a task file says.

    name         what results call it
    task         the kind: a name of `eval.table.TASKS`
    rows         sources of the test rows, each a mapping with `path`; a path that is there beside the file is absolute
    shots_from   sources of worked examples, likewise
    params       parameters of the task, `shots` among them
    models       the model of each role beside the examined one
    description, licence  for people, and for rows that name no licence
    """

    name: str
    task: str
    rows: tuple[Mapping[str, Any], ...] = ()
    shots_from: tuple[Mapping[str, Any], ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    licence: str = ""

    @property
    def entry(self) -> dict[str, Any]:
        """The same as an entry of a recipe's `tasks`."""
        sources = {"rows": list(self.rows), "shots_from": list(self.shots_from), "models": dict(self.models)}
        return {"name": self.task, "label": self.name, **{k: v for k, v in sources.items() if v}, **self.params}


def load_task(path: Path) -> TaskFile:
    """The task in `path`. Raises `InputError` naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
        node, tree = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such task file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected a mapping with the keys {', '.join(KINDS)}")
    if found := _problems(tree):
        lines = [f"{path}, line {_line(node, key)}, {'.'.join(map(str, key))}: {why}" for key, why in found]
        raise InputError("\n".join(lines))
    return _task(tree, path.parent)


def _task(tree: Mapping[str, Any], folder: Path) -> TaskFile:
    shots = {"shots": tree["shots"]} if "shots" in tree else {}
    licence = tree.get("licence", "")
    return TaskFile(
        name=tree["name"],
        task=tree["task"],
        rows=tuple(_source(each, folder, licence) for each in tree.get("rows", ())),
        shots_from=tuple(_source(each, folder, licence) for each in tree.get("shots_from", ())),
        params=tree.get("params", {}) | shots,
        models=tree.get("models", {}),
        description=" ".join(tree.get("description", "").split()),
        licence=licence,
    )


def _source(given: str | Mapping[str, Any], folder: Path, licence: str) -> Mapping[str, Any]:
    source = {"path": given} if isinstance(given, str) else dict(given)
    beside = folder / source["path"]
    here = {"path": str(beside.resolve())} if beside.exists() else {}
    return ({"licence": licence} if licence else {}) | source | here


def _problems(tree: Mapping[str, Any]) -> list[Problem]:
    """What is wrong, by the key it is wrong at."""
    unknown = [key for key in tree if key not in KINDS]
    found: list[Problem] = [((key,), f"unknown key{_near(key, KINDS)}") for key in map(str, unknown)]
    found += [((key,), "is missing") for key in NEEDED if key not in tree]
    for key, kind in KINDS.items():
        if key in tree and (not isinstance(tree[key], kind) or isinstance(tree[key], bool)):
            found.append(((key,), f"expected {SHAPES[kind]} (found {tree[key]!r})"))
    return found or [*_names(tree), *_sources(tree), *_params(tree)]


def _names(tree: Mapping[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    if not LABEL.fullmatch(tree["name"]):
        why = f"expected lower-case letters, digits, hyphens and underscores (found {tree['name']!r})"
        found.append((("name",), why))
    if tree["task"] not in TASKS:
        found.append((("task",), f"unknown task {tree['task']!r}{_near(tree['task'], TASKS)}"))
    return found


def _sources(tree: Mapping[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    for key in ("rows", "shots_from"):
        for number, each in enumerate(tree.get(key, ())):
            path = each.get("path") if isinstance(each, dict) else each
            if not isinstance(path, str):
                found.append(((key, number), f"expected a path, or a mapping with `path` (found {each!r})"))
    if tree.get("shots") and not tree.get("shots_from"):
        found.append((("shots",), "worked examples need `shots_from`, the rows to take them from"))
    return found


def _params(tree: Mapping[str, Any]) -> list[Problem]:
    if tree["task"] not in TASKS:
        return []
    given, made = tree.get("params", {}), TASKS[tree["task"]]
    known = [name for name in inspect.signature(made).parameters if name not in FILLED]
    if unknown := [key for key in given if key not in known]:
        return [(("params", key), f"unknown parameter{_near(str(key), known)}") for key in unknown]
    try:
        made(examples=(), **given)
    except InputError as error:
        return [(("params",), str(error))]
    return []


def _near(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`, and all of them."""
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(known)})"


def _line(node: yaml.Node | None, key: Sequence[str | int]) -> int:
    """The line of the deepest part of `key` that the file has."""
    line = 1
    for part in key:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line

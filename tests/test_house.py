"""The rooms are where they should be, nothing shadows anything, and what is banned is nowhere."""

import ast
import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("flows", "selection", "synthesis", "training", "eval", "models", "warehouse")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
SHOWN = [str(path.relative_to(ROOT)) for path in MODULES]
SCRIPTS = ("models/tiny/",)  # run by hand, never imported by a run
JAILED = ("models/verify/trial.py", "models/verify/tracer.py")  # run the code of models, in a jail, in no other process
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LONGEST_FILE = 450


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """(name, line) of every call of a bare name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node.lineno


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_this_checkout(room: str) -> None:
    assert Path(str(importlib.import_module(room).__file__)).resolve() == ROOT / room / "__init__.py"


def test_no_module_is_named_like_another() -> None:
    distributions = importlib.metadata.packages_distributions()
    others = {name for name, owners in distributions.items() if set(owners) != {"winnow"}} - set(ROOMS)
    assert set(ROOMS) & (set(sys.stdlib_module_names) | others) == set()
    named = {path.stem for path in MODULES} - {"__init__"}
    assert {name for name in named if name in ROOMS} == set()
    vague = {"utils", "common", "helpers", "manager", "misc"}
    assert named & vague == set()


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("path", MODULES, ids=SHOWN)
def test_what_is_banned_is_nowhere(path: Path) -> None:
    shown = path.relative_to(ROOT).as_posix()
    banned = {"eval", "__import__"} | (set() if shown in JAILED else {"exec", "compile"})
    banned |= set() if shown.startswith(SCRIPTS) else {"print", "input"}
    assert [(name, line) for name, line in calls(path) if name in banned] == []
    names = list(imported(path))
    bare = {alias.name for node in ast.walk(tree(path)) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} & PICKLES == set()
    assert [name for name in names if name.startswith(".")] == []
    assert "eval" not in bare  # always `from eval.x import y`: the bare name hides the builtin
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(tree(path)) or path.name == "__init__.py"


@pytest.mark.parametrize("path", MODULES, ids=SHOWN)
def test_loading_never_unpickles(path: Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is (node.arg == "weights_only")


def test_the_package_list_is_the_rooms() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"^packages = \[(.*?)\]\n\n\[tool\.ruff\]", text, re.MULTILINE | re.DOTALL)
    assert packages
    assert re.findall(r'"(\w+)"', packages.group(1)) == list(ROOMS)


def test_the_project_is_not_published_by_accident() -> None:
    assert "Private :: Do Not Upload" in importlib.metadata.metadata("winnow").get_all("Classifier", [])

"""Tasks as files: what a file says, errors with their lines, and the files that the documentation shows."""

import re
from pathlib import Path

import pytest

from eval.files import load_task
from eval.table import TASKS
from warehouse.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
SHOWN = re.findall(r"^```task\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
WHOLE = """\
name: capitals
task: exact_match
description: >
  The capital
  of a country.
licence: CC0-1.0
rows: [rows.jsonl, {path: org/rows, limit: 5}]
shots_from: [{path: shots.jsonl, licence: MIT}]
shots: 2
models: {judge: local}
params:
  max_tokens: 8
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    found = load_task(written(tmp_path, WHOLE))
    assert (found.name, found.task, found.licence) == ("capitals", "exact_match", "CC0-1.0")
    assert found.description == "The capital of a country."
    here = {"path": str(tmp_path / "rows.jsonl"), "licence": "CC0-1.0"}
    assert found.rows == (here, {"path": "org/rows", "limit": 5, "licence": "CC0-1.0"})
    assert found.shots_from == ({"path": "shots.jsonl", "licence": "MIT"},)
    assert found.params == {"max_tokens": 8, "shots": 2}
    assert found.entry == {
        "name": "exact_match",
        "label": "capitals",
        "rows": list(found.rows),
        "shots_from": list(found.shots_from),
        "models": {"judge": "local"},
        "max_tokens": 8,
        "shots": 2,
    }


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (
            "licence: CC0",
            "license: CC0",
            r"line 6, license: unknown key; did you mean 'licence'\? \(known: name, task, rows",
        ),
        ("name: capitals\n", "", "line 1, name: is missing"),
        (
            "name: capitals",
            "name: The capitals",
            r"line 1, name: expected lower-case letters.* \(found 'The capitals'\)",
        ),
        ("exact_match", "exact_mach", "line 2, task: unknown task 'exact_mach'; did you mean 'exact_match'"),
        ("rows: [rows.jsonl,", "rows: [3,", r"line 7, rows.0: expected a path, or a mapping with `path` \(found 3\)"),
        ("{path: org/rows,", "{file: org/rows,", "line 7, rows.1: expected a path"),
        ("shots: 2", "shots: two", r"line 9, shots: expected a whole number \(found 'two'\)"),
        ("shots_from: [{path: shots.jsonl, licence: MIT}]\n", "", "line 8, shots: worked examples need `shots_from`"),
        ("max_tokens", "max_token", r"line 12, params.max_token: unknown parameter; did you mean 'max_tokens'\?"),
        ("max_tokens: 8", "answer: '('", "line 11, params: answer pattern '.' is not a regular expression"),
        ("max_tokens: 8", "repeats: 2", "line 11, params: task 'exact_match': repeats is 2"),
        ("max_tokens: 8", "examples: []", "params.examples: unknown parameter"),
    ],
)
def test_errors_name_the_line_and_the_key(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert WHOLE.count(old) == 1
    path = written(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}, .*{error}"):
        load_task(path)


def test_every_error_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1, colour: unknown key[\s\S]*name: is missing[\s\S]*task: is missing"):
        load_task(written(tmp_path, "colour: red\n"))


@pytest.mark.parametrize(
    ("text", "error"), [("a: [", "not valid YAML"), ("- a", "expected a mapping"), ("", "expected a")]
)
def test_files_that_are_no_task(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        load_task(written(tmp_path, text))
    with pytest.raises(InputError, match="no such task file"):
        load_task(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", SHOWN)
def test_files_that_the_documentation_shows(tmp_path: Path, text: str) -> None:
    found = load_task(written(tmp_path, text))
    TASKS[found.task]((), **found.params)


def test_the_documentation_shows_one_file_for_each_task_over_rows() -> None:
    kinds = {re.search(r"^task: (\w+)$", text, re.MULTILINE)[1] for text in SHOWN}  # type: ignore[index]
    assert kinds >= set(TASKS) - {"suite"}

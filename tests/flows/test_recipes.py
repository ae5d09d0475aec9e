"""Recipes: what is wrong is said with file, line and key, before any work."""

from pathlib import Path

import pytest

from flows import recipes
from warehouse.errors import InputError

GOOD = """\
name: small
pool:
  - path: rows.jsonl
target:
  - path: target.jsonl
methods:
  - random
  - name: rds_plus
    policy: consume
budgets: [10]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def failure(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        recipes.load(write(folder, text), overrides)
    return str(caught.value)


def test_a_good_recipe(tmp_path: Path) -> None:
    recipe = recipes.load(write(tmp_path, GOOD))
    assert recipe.data == str(tmp_path)
    assert [(m.name, m.params) for m in recipe.methods] == [("random", {}), ("rds_plus", {"policy": "consume"})]
    assert recipe.seeds == [0]


def test_dump_and_parse_are_inverse(tmp_path: Path) -> None:
    recipe = recipes.load(write(tmp_path, GOOD))
    assert recipes.parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("budgets: [10]", "budgets: [ten]"), ["line 10", "budgets.0", "'ten'"]),
        (("budgets: [10]", "budgets: [0]"), ["line 10", "greater than 0"]),
        (("budgets: [10]", "budgets: [10, 10]"), ["names a value twice"]),
        (("budgets: [10]", "budgets: [10]\nmethod: random"), ["line 11", "unknown key", "did you mean 'methods'"]),
        (("  - path: rows.jsonl", "  - paht: rows.jsonl"), ["line 3", "pool.0.paht", "did you mean 'path'"]),
        (("  - path: rows.jsonl", "  - path: a\n    synthesize: world"), ["line 3", "either `path` or `synthesize`"]),
        (("name: small", "name: Small Run"), ["line 1", "name", "Small Run"]),
        (("name: small\n", ""), ["name", "required"]),
        (("budgets: [10]", "budgets: [10"), ["not valid YAML"]),
        ((GOOD, "- a list"), ["expected a mapping"]),
        (("budgets: [10]", "models: [{name: m, templat: own}]"), ["models.0.templat", "did you mean 'template'"]),
    ],
)
def test_mistakes_are_named_with_line_and_key(tmp_path: Path, change: tuple[str, str], expected: list[str]) -> None:
    message = failure(tmp_path, GOOD.replace(*change))
    assert "recipe.yaml" in message
    for part in expected:
        assert part in message


def test_task_files_that_an_override_names(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text("name: sums\ntask: exact_match\nrows: [sums.jsonl]\nparams: {max_tokens: 8}\n")
    (tmp_path / "sums.jsonl").write_text("{}\n")
    path = write(tmp_path, GOOD + "models: [winnow-tiny]\n")
    whole = ["tasks=[{file: sums.yaml}]", "tasks.0.max_tokens=4", "tasks.0.rows.0.limit=3"]
    [task] = recipes.load(path, whole).tasks
    assert (task.name, task.title, task.params, task.rows[0].limit) == ("exact_match", "sums", {"max_tokens": 4}, 3)
    with pytest.raises(InputError, match="give either `name` or `file`"):
        recipes.load(path, ["tasks=[{name: exact_match, file: sums.yaml}]"])


def test_training_without_evaluation_is_refused(tmp_path: Path) -> None:
    assert "`train` needs `test` and `tasks`" in failure(tmp_path, GOOD + "train: {base: winnow-tiny}\n")


def test_a_missing_recipe_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(InputError, match=r"no such recipe; did you mean recipe.yaml"):
        recipes.load(tmp_path / "recipes.yaml")


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load(
        path,
        ["budgets=[5, 7]", "methods.0.name=length", "methods.1.policy=retry", "data=sub", "representation.encoder=e"],
    )
    assert recipe.budgets == [5, 7]
    assert recipe.methods[0].name == "length"
    assert recipe.methods[1].params == {"policy": "retry"}
    assert recipe.data == str(tmp_path / "sub")  # what a user types starts where they are
    assert recipe.representation.encoder == "e"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budgets", "expected key=value"),
        ("methods.7.policy=retry", "not a position in a list of 2"),
        ("name.first=x", "name is a plain value"),
        ("budgets=[", "not valid YAML"),
        ("budgets=[-1]", "override, budgets.0"),
        ("budgets=[3, 3]", "with its overrides, recipe: `budgets` names a value twice"),
    ],
)
def test_overrides_that_are_wrong(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in failure(tmp_path, GOOD, override)

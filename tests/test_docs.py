"""The documentation is complete and true: all that a user can type is in it, and all it tells a user to type works."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command

from eval.table import TASKS
from flows import recipes
from flows.cli import app
from flows.settings import Settings
from selection.table import METHODS, parameters
from synthesis.table import SYNTHESIZERS
from training.table import TRAINERS
from warehouse import page
from warehouse.catalogue import VIEWS
from warehouse.export import FORMATS
from warehouse.rejects import Reason

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (?:\S*/)?(winnow .*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def verbs() -> dict[str, typer.core.TyperCommand]:
    """Every verb and sub-verb of the command line by the words that call it."""
    top = get_command(app)
    found = {}
    for name, command in top.commands.items():  # type: ignore[attr-defined]  # a group, as its help shows
        inner = getattr(command, "commands", None)
        found |= {f"{name} {each}": made for each, made in inner.items()} if inner else {name: command}
    return found


def is_recipe(tree: object) -> bool:
    return isinstance(tree, dict) and {"name", "pool"} <= set(tree)


def yaml_blocks() -> Iterator[tuple[Path, str]]:
    for path in PAGES:
        for language, block in FENCE.findall(path.read_text(encoding="utf-8")):
            if language in ("yaml", "yml"):
                yield path, block


def commands() -> Iterator[tuple[Path, str]]:
    """Lines of the documentation that call `winnow`, comments cut."""
    for path in PAGES:
        whole = path.read_text(encoding="utf-8")
        fenced = [line for _, block in FENCE.findall(whole) for line in block.splitlines()]
        called = [m.group(1) for line in fenced if (m := re.match(r"\s*(?:\$ )?(?:\S*/)?(winnow .*)$", line))]
        for line in [*called, *INDENTED.findall(whole)]:
            yield path, line


@pytest.mark.parametrize(
    ("table", "name"),
    [("methods.md", METHODS), ("evaluation.md", TASKS), ("training.md", TRAINERS), ("synthesis.md", SYNTHESIZERS)],
    ids=["methods", "tasks", "trainers", "synthesizers"],
)
def test_every_entry_of_a_table_is_described(table: str, name: dict[str, object]) -> None:
    missing = [entry for entry in name if f"`{entry}`" not in text(table)]
    assert missing == []


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_of_a_method_is_described(name: str) -> None:
    assert [param for param in parameters(name) if f"`{param}`" not in text("methods.md")] == []


def test_every_verb_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [verb for verb in verbs() if f"`winnow {verb}`" not in readme and f"`{verb}`" not in readme] == []


@pytest.mark.parametrize("verb", verbs())
def test_every_option_is_described_with_a_help_text(verb: str) -> None:
    everything = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    command = verbs()[verb]
    assert command.help
    for param in command.params:
        if param.name == "help":
            continue
        assert getattr(param, "help", None), f"{verb} {param.name}"
        for option in param.opts:
            if option.startswith("--"):
                assert re.search(rf"{option}\b", everything), f"{verb} {option} is in no page"


def test_every_recipe_key_is_described() -> None:
    page_text = text("recipes.md")
    parts = (recipes.Recipe, recipes.Source, recipes.Representation, recipes.Train, recipes.Spend)
    missing = [name for part in parts for name in part.model_fields if f"`{name}`" not in page_text]
    assert missing == []
    assert [name for part in parts for name, field in part.model_fields.items() if not field.description] == []


def test_the_warehouse_page_is_made_from_the_views() -> None:
    assert text("warehouse.md") == page.page(), "run: python -m warehouse.page > docs/warehouse.md"
    for name, view in VIEWS.items():
        assert f"### `{name}`" in page.page()
        assert all(f"| `{column}` |" in page.page() for column in view.columns)


def test_every_setting_is_described() -> None:
    names = [f"WINNOW_{field.name.upper()}" for field in dataclasses.fields(Settings)]
    assert [name for name in names if f"`{name}`" not in text("quickstart.md")] == []
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in ROOT.glob("[a-z]*/**/*.py") if "tests" not in path.parts
    )
    assert set(re.findall(r'environ(?:\.get\(|\[)"(WINNOW_\w+)"', code)) <= set(names)


@pytest.mark.parametrize(
    ("entries", "where"), [(FORMATS, "formats.md"), (Reason, "formats.md")], ids=["out", "rejects"]
)
def test_formats_and_reasons_are_described(entries: object, where: str) -> None:
    assert [str(entry) for entry in entries if f"`{entry}`" not in text(where)] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        aimed = (path.parent / file).resolve() if file else path
        assert aimed.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", aimed.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, link


def test_yaml_of_the_documentation_is_valid(tmp_path: Path) -> None:
    whole = 0
    for path, block in yaml_blocks():
        tree = yaml.safe_load(block)
        if is_recipe(tree):
            whole += 1
            file = tmp_path / f"{path.stem}-{whole}.yaml"
            file.write_text(block)
            recipes.load(file)
        elif isinstance(tree, dict):
            assert set(tree) <= set(recipes.Recipe.model_fields), f"{path}: {sorted(tree)}"
    assert whole >= 1


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_load_and_are_listed(path: Path) -> None:
    recipes.load(path)
    assert f"`recipes/{path.name}`" in text("recipes.md")


def test_a_partial_recipe_may_be_uncommented(tmp_path: Path) -> None:
    first = (ROOT / "recipes" / "first.yaml").read_text()
    head, tail = first.split("# test:")
    file = tmp_path / "recipe.yaml"
    file.write_text(head + "test:" + tail.replace("\n# ", "\n"))
    assert recipes.load(file).train is not None


def test_every_command_of_the_documentation_parses() -> None:
    known, seen = verbs(), set()
    for path, line in commands():
        words = shlex.split(line, comments=True)[1:]
        if not words or words[0].startswith("-"):
            continue
        verb = " ".join(words[:2]) if words[0] in ("cache", "pool", "synth") else words[0]
        assert verb in known, f"{path}: {line}"
        if any(mark in line for mark in ("[", "...")) and "=[" not in line:
            continue  # a synopsis, not a command
        seen.add(verb)
        context = known[verb].make_context(verb, words[len(verb.split()) :], resilient_parsing=False)
        assert context.params is not None
    assert {"select", "init", "doctor", "run", "sql"} <= seen

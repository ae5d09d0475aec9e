"""The cleaning chain: every row dropped once, by the first filter that finds it, counted and listed by all views."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import recipes
from flows.engine import PlainEngine
from flows.outcome import RaceOutcome
from flows.race import check, race
from flows.run import Silent
from flows.workers import HereWorkers
from warehouse import near_duplicates as module
from warehouse import shards
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.store import Store

LONG = (
    "The quick brown fox jumps over the lazy dog near the river bank while seven tall trees sway in the warm wind today"
)
ASKED = "Which of the seven tall trees near the river bank did the quick brown fox pass first on its way home tonight"


def row(asked: str, reply: str, **extra: Any) -> dict[str, Any]:
    return {"instruction": asked, "output": reply, **extra}


ROWS = [
    row("Tell me of the fox.", LONG, id=1, license="MIT"),  # 0
    row("Again the id.", "It is taken.", id=1),  # 1 duplicate_id
    row("Tell me of the fox.", LONG, license="cc-by-nc-4.0"),  # 2 exact_duplicate of 0
    row("Tell me of the fox.", LONG.replace("today", "again")),  # 3 near_duplicate of 0
    row("Help.", "I'm sorry, but I can't help with that request."),  # 4 refusal
    row("Write to me.", "My address is jo.smith@firm.net and that is all."),  # 5 flagged: pii
    row(ASKED, "The oak."),  # 6 contamination
    row("Something else.", "Quite another answer with words of its own."),  # 7
]
CHAIN = """\
clean:
  - duplicate_id
  - exact_duplicate
  - refusal
  - pii
  - {name: near_duplicate, threshold: 0.7}
  - contamination
"""


NEAR = "clean: [duplicate_id, exact_duplicate, {name: near_duplicate, threshold: 0.7}]\n"


def run(folder: Path, *, chain: str = CHAIN, rows: list[dict[str, Any]] | None = None, budget: int = 3) -> RaceOutcome:
    """Select at random from `rows` after cleaning, in a home of `folder`."""
    folder.mkdir(exist_ok=True)
    write(folder / "rows.jsonl", ROWS if rows is None else rows)
    write(folder / "test.jsonl", [row(ASKED, "The elm.")])
    recipe = folder / "r.yaml"
    recipe.write_text(
        f"name: r\npool: [{{path: rows.jsonl}}]\ntest: [{{path: test.jsonl}}]\n{chain}"
        f"methods: [random]\nbudgets: [{budget}]\n"
    )
    loaded = recipes.load(recipe, ())
    return race(loaded, folder / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))


def drops(folder: Path, view: str = "drops") -> dict[int, tuple[str, str, int | None]]:
    found = query(folder / "home", f'SELECT "row", filter, reason, other_row FROM {view}').to_pylist()
    assert len({entry["row"] for entry in found}) == len(found), "a row is dropped once"
    return {entry["row"]: (entry["filter"], entry["reason"], entry["other_row"]) for entry in found}


def test_each_row_goes_with_the_first_filter_that_finds_it(tmp_path: Path) -> None:
    run(tmp_path)
    assert drops(tmp_path) == {
        1: ("duplicate_id", "duplicate_id", 0),
        2: ("exact_duplicate", "same_messages", 0),
        3: ("near_duplicate", "near_duplicate", 0),
        4: ("refusal", "refusal", None),
        6: ("contamination", "exact_in_test", 0),
    }
    assert drops(tmp_path, "flags") == {5: ("pii", "pii_email", None)}
    home = tmp_path / "home"
    funnel = query(home, "SELECT step, filter, rows_in, found, rows_out FROM filters ORDER BY step").to_pylist()
    assert [tuple(entry.values()) for entry in funnel] == [
        (1, "duplicate_id", 8, 1, 7), (2, "exact_duplicate", 7, 1, 6), (3, "refusal", 6, 1, 5), (4, "pii", 5, 1, 5),
        (5, "near_duplicate", 5, 1, 4), (6, "contamination", 4, 1, 3), (7, "overlap", 3, 0, 3),
    ]  # fmt: skip
    chosen = query(home, 'SELECT DISTINCT "row" FROM selected ORDER BY 1').to_pylist()
    assert [entry["row"] for entry in chosen] == [0, 5, 7]
    near = query(home, "SELECT value, other_pool = pool AS same FROM drops WHERE filter = 'near_duplicate'").to_pylist()
    assert near[0]["same"]
    assert 0.7 <= near[0]["value"] < 1


def test_the_order_and_the_action_are_the_recipes(tmp_path: Path) -> None:
    chain = (
        "clean:\n  - {name: near_duplicate, threshold: 0.7, action: flag}\n  - {name: exact_duplicate, action: 'off'}\n"
    )
    run(tmp_path, chain=chain)
    assert drops(tmp_path) == {6: ("overlap", "same_prompt_as_test", 0)}
    assert {entry: found[0] for entry, found in drops(tmp_path, "flags").items()} == {
        2: "near_duplicate",
        3: "near_duplicate",
    }


def test_denied_licences_go_first_and_are_counted(tmp_path: Path) -> None:
    run(tmp_path, chain='deny_licences: ["cc-by-nc*"]\n' + CHAIN)
    assert drops(tmp_path)[2] == ("licence", "licence_denied", None)
    first = query(tmp_path / "home", "SELECT filter, found FROM filters WHERE step = 1").to_pylist()
    assert {entry["filter"] for entry in first} >= {"licence"}


def test_a_second_run_computes_nothing_and_a_grown_source_only_its_new_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PIECE_BYTES", 100)
    run(tmp_path)
    assert not [stage["name"] for stage in run(tmp_path).stages if stage["computed"]]
    before = made(tmp_path)
    run(tmp_path, rows=[*ROWS, row("One more.", "A row that is new.")])
    new = [key for key in made(tmp_path) if key not in before]
    assert sorted(stage for stage, _ in new if stage in ("shard", "sift", "fingerprint", "match", "tokens")) == [
        "fingerprint", "match", "shard", "sift", "tokens",
    ]  # fmt: skip


def test_near_duplicates_of_a_grown_source_go_on_from_those_before_and_are_those_of_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PIECE_BYTES", 100)
    more = [row("Of foxes.", LONG.replace("warm", "cold")), row("Tell of foxes.", LONG.replace("today", "again"))]
    run(tmp_path / "grown", chain=NEAR)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_sharing", lambda *_: pytest.fail("all rows were looked at again"))
        run(tmp_path / "grown", chain=NEAR, rows=[*ROWS, *more])
    run(tmp_path / "fresh", chain=NEAR, rows=[*ROWS, *more])
    assert len(drops(tmp_path / "fresh")) > len(more)
    for stage in ("clean", "overlap", "select"):
        fresh = outputs(tmp_path / "fresh", stage)
        assert fresh
        assert fresh.items() <= outputs(tmp_path / "grown", stage).items()


def outputs(folder: Path, stage: str) -> dict[str, Any]:
    """The files, with sizes and hashes, of every artifact of a stage by its key."""
    found = Store.open(folder / "home").artifacts()
    return {artifact.key: artifact.manifest["files"] for artifact in found if artifact.stage == stage}


def check_file(path: Path) -> None:
    check(recipes.load(path, ()))


def made(folder: Path) -> list[tuple[str, str]]:
    found = query(folder / "home", "SELECT stage, key FROM artifacts").to_pylist()
    return [(entry["stage"], entry["key"]) for entry in found]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("clean: [nothing]\n", "unknown filter 'nothing'; known: duplicate_id"),
        ("clean: [{name: length, longest: 3}]\n", "no parameter longest; known"),
        ("clean: [{name: near_duplicate, threshold: 2}]\n", "threshold"),
        ("clean: [{name: exact_duplicate, by: row}]\n", "`by` is 'row'; give messages or prompt"),
        ("clean: [{name: pii, action: keep}]\n", "action"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(tmp_path: Path, chain: str, message: str) -> None:
    write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "r.yaml").write_text(f"name: r\npool: [{{path: rows.jsonl}}]\n{chain}methods: [random]\nbudgets: [1]\n")
    with pytest.raises(InputError, match=message):
        check_file(tmp_path / "r.yaml")
    assert not (tmp_path / "home").exists()


def test_contamination_needs_something_to_compare_with(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "r.yaml").write_text(
        "name: r\npool: [{path: rows.jsonl}]\nclean: [contamination]\nmethods: [random]\nbudgets: [1]\n"
    )
    with pytest.raises(InputError, match="give `target` or `test`"):
        check_file(tmp_path / "r.yaml")


def test_a_budget_larger_than_what_is_left_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the pool has 8, of which 5 were dropped in cleaning; give at most 3"):
        run(tmp_path, budget=4)


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "rows.jsonl", [row(f"{folder} {i}", "yes", id=i) for i in range(3)])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "rows.jsonl").write_bytes((tmp_path / "a" / "rows.jsonl").read_bytes())
    recipe = tmp_path / "r.yaml"
    pools = ", ".join(f"{{path: {folder}/rows.jsonl}}" for folder in "abc")
    recipe.write_text(f"name: r\npool: [{pools}]\nmethods: [random]\nbudgets: [9]\n")
    race(
        recipes.load(recipe, ()),
        tmp_path / "home",
        "run",
        engine=PlainEngine(),
        workers=HereWorkers(),
        listener=Silent(),
    )
    found = query(tmp_path / "home", "SELECT location FROM samples ORDER BY 1").to_pylist()
    assert [entry["location"] for entry in found] == [f"{folder}/rows.jsonl:{i}" for folder in "abc" for i in (1, 2, 3)]
    assert drops(tmp_path) == {}


def test_a_home_whose_path_looks_like_a_partition_is_read_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "source=web" / "run=3"
    folder.mkdir(parents=True)
    run(folder)
    assert {entry["source"] for entry in query(folder / "home", "SELECT source FROM samples").to_pylist()} == {
        "rows",
        "test",
    }
    assert query(folder / "home", "SELECT count(*) AS n FROM runs WHERE run = '3'").to_pylist() == [{"n": 0}]

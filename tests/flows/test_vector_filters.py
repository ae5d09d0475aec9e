"""The filters that compare vectors: what they find in a run, what they measure for it, and when they run again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import write_rows
from numpy.typing import NDArray

from flows import recipes
from flows.clean import asked
from flows.engine import PlainEngine
from flows.measure import Meter
from flows.outcome import RaceOutcome
from flows.race import check, race
from flows.recipes import Clean
from flows.run import Silent
from flows.select import CLEAN
from flows.workers import HereWorkers
from selection.cosine import cosines, unit_rows
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.ids import as_ids
from warehouse.signals import SignalStore

WORDS = ("river", "stone", "lantern", "harbour", "violin", "glacier", "pepper", "meadow", "engine", "saddle")
RECIPE = """\
name: near
pool: [{path: pool.jsonl}]
target: [{path: target.jsonl}]
test: [{path: test.jsonl}]
methods: [random]
budgets: [4]
"""


def row(question: str, answer: str) -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 questions of 10 kinds, each with a slightly other wording, the first five of them again at the end."""
    folder = tmp_path_factory.mktemp("near")
    rows = [row(f"Reverse the {word} {i}{'.' * (i % 3)}", word[::-1]) for i in range(5) for word in WORDS]
    write_rows(folder / "pool.jsonl", [*rows, *rows[:5]])
    write_rows(folder / "target.jsonl", [row(f"Reverse the {word} 0 now", word[::-1]) for word in WORDS[:3]])
    write_rows(folder / "test.jsonl", [row(f"Reverse a {word} 1 now", word[::-1]) for word in WORDS[2:6]])
    (folder / "near.yaml").write_text(RECIPE)
    return folder / "near.yaml"


def run(path: Path, home: Path, *overrides: str) -> RaceOutcome:
    given = recipes.load(path, overrides)
    check(given)
    return race(given, home, "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


def ask(home: Path, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query(home, sql).to_pylist()
    return rows


def vectors(recipe: Path, home: Path, name: str, rows: Sequence[int] | None = None) -> NDArray[Any]:
    """The representation of a pool's rows, on the grid."""
    ids = ask(
        home, f"SELECT s.sample_id FROM samples s JOIN pools p USING (pool) WHERE p.name = 'near {name}' ORDER BY row"
    )
    wanted = range(len(ids)) if rows is None else rows
    spec = Meter(recipes.load(recipe).representation).spec()
    values = SignalStore(home).read(spec, as_ids([ids[place]["sample_id"] for place in wanted]))
    return np.asarray(unit_rows(np.asarray(values)).values)


def measured(outcome: RaceOutcome) -> dict[str, int]:
    """Rows of each measurement that the run logged."""
    return {str(s["name"]): int(str(s["rows_in"])) for s in outcome.stages if str(s["name"]).startswith("measure")}


@pytest.fixture(scope="module")
def duplicates(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RaceOutcome:
    home = tmp_path_factory.mktemp("duplicates") / "home"
    return run(recipe, home, "clean=[exact_duplicate, {name: semantic_duplicate, threshold: 0.97}]")


def test_semantic_duplicates_are_dropped_for_an_earlier_row_that_stays(recipe: Path, duplicates: RaceOutcome) -> None:
    home = Path(duplicates.home)
    grid = vectors(recipe, home, "pool", range(50))
    similar = cosines(grid, grid)
    kept: list[int] = []
    expected = []
    for i in range(50):
        near = [j for j in kept if similar[i, j] >= 0.97]
        if near:
            expected.append({"row": i, "other_row": near[0], "value": min(similar[i, near[0]], 1.0)})
        else:
            kept.append(i)
    mine = "FROM drops WHERE filter = 'semantic_duplicate'"
    assert 0 < len(expected) < 50
    assert ask(home, f'SELECT "row", other_row, value {mine} ORDER BY "row"') == expected
    assert ask(home, f"SELECT DISTINCT reason, other_pool = pool AS own {mine}") == [
        {"reason": "semantic_duplicate", "own": True}
    ]
    overlap = next(stage for stage in duplicates.stages if stage["name"] == "overlap")
    assert overlap["rows_in"] == len(kept)


def test_only_rows_that_are_there_are_measured(duplicates: RaceOutcome) -> None:
    assert measured(duplicates) == {"measure representation of pool for semantic_duplicate": 50}
    assert ask(Path(duplicates.home), "SELECT count(*) AS n FROM signals") == [{"n": 50}]


def test_comparing_hidden_states_is_said(recipe: Path, tmp_path: Path) -> None:
    class Heard(Silent):
        said = ""

        def say(self, text: str) -> None:
            self.said += text

    heard = Heard()
    given = recipes.load(recipe, ["clean=[{name: semantic_duplicate, threshold: 0.97}]"])
    race(given, tmp_path / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=heard)
    assert "semantic_duplicate: the representation is hidden states" in heard.said
    assert "`representation: {encoder: ...}`" in heard.said


def test_a_second_run_computes_nothing(recipe: Path, duplicates: RaceOutcome) -> None:
    again = run(recipe, Path(duplicates.home), "clean=[exact_duplicate, {name: semantic_duplicate, threshold: 0.97}]")
    assert [stage["name"] for stage in again.stages if stage["computed"]] == []
    assert again.selections == duplicates.selections


def test_another_representation_runs_the_filter_again_and_no_other(recipe: Path, duplicates: RaceOutcome) -> None:
    again = run(
        recipe,
        Path(duplicates.home),
        "clean=[exact_duplicate, {name: semantic_duplicate, threshold: 0.97}]",
        "representation={model: winnow-tiny, max_length: 8}",
    )
    computed = {stage["name"] for stage in again.stages if stage["computed"]}
    assert "clean semantic_duplicate" in computed
    assert not computed & {"clean exact_duplicate", "near pool"}


def test_the_signal_is_an_input_of_the_filter(duplicates: RaceOutcome) -> None:
    home = Path(duplicates.home)
    key = next(stage["key"] for stage in duplicates.stages if stage["name"] == "clean semantic_duplicate")
    manifest = json.loads((home / "artifacts" / "clean" / str(key) / "manifest.json").read_text())
    spec = manifest["inputs"]["signals"]["representation"]
    assert (home / "signals" / spec / "spec.json").exists()
    plain = next(stage["key"] for stage in duplicates.stages if stage["name"] == "clean exact_duplicate")
    inputs = json.loads((home / "artifacts" / "clean" / str(plain) / "manifest.json").read_text())["inputs"]
    assert "signals" not in inputs


def test_recipes_without_such_filters_measure_nothing(recipe: Path, tmp_path: Path) -> None:
    outcome = run(recipe, tmp_path / "home", "clean=[exact_duplicate, contamination]")
    assert measured(outcome) == {}
    assert ask(tmp_path / "home", "SELECT count(*) AS n FROM signals") == [{"n": 0}]


def expected_flags(recipe: Path, home: Path, threshold: float) -> list[dict[str, Any]]:
    """The rows near a reference set by the full matrix, the test set first."""
    pool = vectors(recipe, home, "pool")
    similar = {name: cosines(pool, vectors(recipe, home, name)) for name in ("test", "target")}
    flags = []
    for i in range(len(pool)):
        near = [name for name in similar if similar[name][i].max() >= threshold]
        if near:
            best = similar[near[0]][i]
            flags.append({"row": i, "reason": f"near_{near[0]}", "other_row": int(best.argmax()), "value": best.max()})
    return flags


@pytest.fixture(scope="module")
def contaminated(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RaceOutcome:
    home = tmp_path_factory.mktemp("contaminated") / "home"
    return run(recipe, home, "clean=[{name: semantic_contamination, threshold: 0.9, listed: 3}]")


def test_rows_near_a_target_or_test_row_are_flagged_and_stay(recipe: Path, contaminated: RaceOutcome) -> None:
    home = Path(contaminated.home)
    expected = expected_flags(recipe, home, 0.9)
    assert {flag["reason"] for flag in expected} == {"near_test", "near_target"}
    assert len(expected) < 55
    assert ask(home, 'SELECT "row", reason, other_row, value FROM flags ORDER BY "row"') == expected
    assert ask(home, "SELECT filter, source, rows_in, found, rows_out FROM filters WHERE found > 0") == [
        {"filter": "semantic_contamination", "source": "pool", "rows_in": 55, "found": len(expected), "rows_out": 55}
    ]
    sets = ask(home, "SELECT DISTINCT f.reason, p.name FROM flags f JOIN pools p ON p.pool = f.other_pool ORDER BY ALL")
    assert sets == [{"reason": "near_target", "name": "near target"}, {"reason": "near_test", "name": "near test"}]
    assert measured(contaminated) == {
        f"measure representation of {name} for semantic_contamination": n
        for name, n in (("pool", 55), ("target", 3), ("test", 4))
    }


def test_the_nearest_are_listed_for_a_person(recipe: Path, contaminated: RaceOutcome) -> None:
    home = Path(contaminated.home)
    listed = ask(home, 'SELECT set, rank, "row", other_row, value FROM neighbours ORDER BY set, rank')
    expected = []
    for name in ("target", "test"):
        similar = cosines(vectors(recipe, home, name), vectors(recipe, home, "pool"))
        nearest = sorted((-line.max(), other, int(line.argmax())) for other, line in enumerate(similar))
        expected += [
            {"set": name, "rank": rank, "row": row, "other_row": other, "value": min(-value, 1.0)}
            for rank, (value, other, row) in enumerate(nearest[:3], 1)
        ]
    assert listed == expected
    joined = "SELECT count(*) AS n FROM neighbours n JOIN samples s USING (pool, row, sample_id)"
    assert ask(home, joined) == [{"n": 6}]


def test_contaminated_rows_can_be_dropped(recipe: Path, contaminated: RaceOutcome) -> None:
    home = Path(contaminated.home)
    run(recipe, home, "clean=[{name: semantic_contamination, threshold: 0.9, action: drop}]")
    dropped = ask(home, "SELECT \"row\" FROM drops WHERE filter = 'semantic_contamination' ORDER BY ALL")
    assert [drop["row"] for drop in dropped] == [flag["row"] for flag in expected_flags(recipe, home, 0.9)]


def test_nothing_left_to_compare_is_no_error_of_the_filters(recipe: Path, tmp_path: Path) -> None:
    everything = "clean=[{name: length, max_chars: 1}, semantic_duplicate, semantic_contamination]"
    with pytest.raises(InputError, match="give at most 0"):
        run(recipe, tmp_path / "home", everything)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"name": "semantic_duplicate", "threshold": 0}, "semantic_duplicate: the threshold is 0"),
        ({"name": "semantic_duplicate", "threshold": 1}, "give a cosine between 0 and 1"),
        ({"name": "semantic_contamination", "threshold": -0.5}, "semantic_contamination: the threshold is -0.5"),
        ({"name": "semantic_contamination", "listed": -1}, "`listed` is -1"),
    ],
)
def test_parameters_without_a_meaning_are_refused(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        asked([Clean(**entry)])


def test_a_reference_set_is_needed_to_compare_with(recipe: Path) -> None:
    with pytest.raises(InputError, match="'semantic_contamination' compares rows with target and test sets"):
        check(recipes.load(recipe, ["target=[]", "test=[]", "clean=[semantic_contamination]"]))


def test_the_select_verb_has_no_filters_that_measure() -> None:
    assert not {entry.name for entry in CLEAN} & {"semantic_duplicate", "semantic_contamination"}

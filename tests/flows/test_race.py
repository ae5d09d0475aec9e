"""The race from end to end, in one process: what comes out, what a second run does, what a changed recipe does."""

import json
from pathlib import Path

import pytest

from flows import recipes
from flows.engine import PlainEngine
from flows.outcome import RaceOutcome
from flows.race import check, race
from flows.run import Silent
from flows.workers import HereWorkers
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.lineage import ancestry


def run(path: Path, home: Path, *overrides: str) -> RaceOutcome:
    recipe = recipes.load(path, overrides)
    check(recipe)
    return race(recipe, home, "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("race") / "home"


@pytest.fixture(scope="module")
def first(small_recipe: Path, home: Path) -> RaceOutcome:
    return run(small_recipe, home)


def test_every_arm_is_there(first: RaceOutcome) -> None:
    arms = {(s["method"], s["budget"], s["seed"]) for s in first.selections}
    assert arms == {(m, 24, seed) for m in ("random", "balanced_random", "rds_plus") for seed in (0, 1)}
    assert all(stage["computed"] for stage in first.stages)
    assert {s["rows"] for s in first.selections} == {24}


def test_results_have_intervals_and_differences(first: RaceOutcome) -> None:
    results = [r for r in first.results if r["metric"] == "exact_match"]
    assert {r["method"] for r in results} == {"base model", "random", "balanced_random", "rds_plus"}
    for result in results:
        assert result["low"] <= result["value"] <= result["high"]
        assert result["n"] == 12
        versus = result["versus_control"]
        assert versus["low"] <= versus["difference"] <= versus["high"]
    own = next(r for r in results if r["method"] == "balanced_random")["versus_control"]
    assert own == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_the_outcome_is_one_json_line(first: RaceOutcome) -> None:
    line = first.as_json()
    assert "\n" not in line
    assert set(json.loads(line)) >= {"run", "report", "ui", "stages", "selections", "results"}
    assert set(json.loads(line)["stages"][0]) == {"name", "key", "computed", "seconds", "rows_in", "rows_out"}


def test_text_names_report_and_query(first: RaceOutcome) -> None:
    text = first.as_text()
    assert str(first.report) in text
    assert "winnow sql" in text
    assert "rds_plus" in text


def test_a_second_run_computes_nothing_and_answers_the_same(first: RaceOutcome, small_recipe: Path, home: Path) -> None:
    second = run(small_recipe, home)
    assert [stage["name"] for stage in second.stages if stage["computed"]] == []
    assert second.selections == first.selections
    assert second.results == first.results


def test_another_home_gives_the_same_rows_and_weights(first: RaceOutcome, small_recipe: Path, tmp_path: Path) -> None:
    again = run(small_recipe, tmp_path / "home", "methods=[rds_plus]", "seeds=[0]")
    mine = {s["method"]: s["key"] for s in first.selections if s["seed"] == 0}
    assert again.selections[0]["key"] == mine["rds_plus"]
    same = "SELECT evaluation, item_id, metric, value, reply FROM eval_items ORDER BY ALL"
    here = {tuple(row.values()) for row in query(tmp_path / "home", same).to_pylist()}
    there = {tuple(row.values()) for row in query(Path(first.home), same).to_pylist()}
    assert here <= there


def test_only_what_a_change_touches_is_computed_again(first: RaceOutcome, small_recipe: Path, home: Path) -> None:
    changed = run(small_recipe, home, "budgets=[20]", "methods=[balanced_random]", "seeds=[0]")
    computed = {stage["name"].split()[0] for stage in changed.stages if stage["computed"]}
    assert computed == {"select", "train", "assess", "compare"}


def test_a_task_more_trains_nothing_again(first: RaceOutcome, small_recipe: Path, home: Path, tmp_path: Path) -> None:
    """Its rows may not be chosen, so every selection is another; what they chose is the same, and so is its model."""
    asked = "".join(json.dumps({"prompt": f"Be rude to {name}."}) + "\n" for name in ("Ann", "Bob", "Cid"))
    (tmp_path / "rude.jsonl").write_text(asked)  # no replies: what may be chosen and what is given away needs none
    own = f"{{name: refusal, label: rude, max_tokens: 4, rows: [{{path: {tmp_path}/rude.jsonl}}]}}"
    fewer = ("methods=[balanced_random]", "seeds=[0]")
    more = run(small_recipe, home, *fewer, f"tasks=[{{name: exact_match, max_tokens: 12}}, {own}]")
    computed = [stage["name"] for stage in more.stages if stage["computed"]]
    assert [name for name in computed if name.startswith(("train", "assess"))] == [
        "assess base model: rude",
        "assess balanced_random 24 seed 0: rude",
    ]
    [old] = [each["key"] for each in first.selections if (each["method"], each["seed"]) == ("balanced_random", 0)]
    [new] = [each["key"] for each in more.selections]
    assert new != old
    evaluations = "SELECT key FROM stages WHERE name LIKE 'assess balanced_random 24 seed 0%' AND run = "
    for key in {
        row["key"] for run_ in (first.run, more.run) for row in query(home, f"{evaluations}'{run_}'").to_pylist()
    }:
        behind = query(
            home, f"SELECT ancestor FROM lineage WHERE key = '{key}' AND role = 'checkpoint.data'"
        ).to_pylist()
        assert {row["ancestor"] for row in behind} == {old, new} <= set(ancestry(home, [key], alike=True))
    chosen = "SELECT checkpoint FROM checkpoints c JOIN selections s USING (data, seed) WHERE s.selection = "
    assert query(home, f"{chosen}'{new}'").to_pylist() == query(home, f"{chosen}'{old}'").to_pylist()
    said = query(home, "SELECT selections, task FROM results ORDER BY comparison, task").to_pylist()
    assert {row["selections"] for row in said if row["task"] == "rude"} == {"[]", json.dumps([new])}


def test_the_warehouse_joins_it_all(first: RaceOutcome, home: Path) -> None:
    rows = query(
        home,
        "SELECT method, seed, count(*) AS n, min(rank) AS best FROM selected WHERE budget = 24 "
        "GROUP BY selection, method, seed",
    )
    assert {(r["method"], r["seed"]): (r["n"], r["best"]) for r in rows.to_pylist()} == {
        (m, seed): (24, 1) for m in ("random", "balanced_random", "rds_plus") for seed in (0, 1)
    }
    leaks = query(
        home,
        "SELECT count(*) AS n FROM selected s JOIN samples t USING (sample_id) "
        "JOIN pools p ON p.pool = t.pool WHERE p.name = 'small test'",
    )
    assert leaks.to_pylist() == [{"n": 0}]
    status = query(home, f"SELECT status, report FROM runs WHERE run = '{first.run}'").to_pylist()[0]
    assert status == {"status": "done", "report": first.report}
    losses = query(home, "SELECT count(*) AS n FROM losses").to_pylist()
    assert losses[0]["n"] > 0


def test_rds_plus_finds_the_skill(first: RaceOutcome, home: Path) -> None:
    share = (
        "SELECT avg((meta->>'skill' = 'reverse')::INT) AS share FROM selected WHERE method = 'rds_plus' AND seed = 0"
    )
    assert query(home, share).to_pylist()[0]["share"] >= 0.8


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budgets=[301]", "give at most"),
        ("methods=[rds_minus]", "known methods: random"),
        ("methods.2.polcy=retry", "polcy"),
        ("train.trainer=sftt", "known trainers"),
        ("train.params.epoch=3", "no parameter epoch"),
        ("train.base=/no/such/model", "/no/such/model"),
        ("tasks=[exact]", "known: exact_match"),
        ("pool.0.params.skills=[flying]", "flying"),
        ("pool.0.synthesize=worlds", "unknown synthesizer"),
        ("target=[]", "target"),
    ],
)
def test_what_is_wrong_is_said_before_work(small_recipe: Path, tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected.replace("/", "/")):
        run(small_recipe, tmp_path / "home", override)
    assert not list((tmp_path / "home").glob("artifacts/select/[!e]*"))


def test_a_target_that_is_the_test_is_refused(small_recipe: Path, tmp_path: Path) -> None:
    same = "[{synthesize: world, params: {rows: 8, split: target, skills: [reverse]}}]"
    with pytest.raises(InputError, match="8 of 8 target rows are also in the test set"):
        run(small_recipe, tmp_path / "home", f"test={same}")


def test_a_failed_run_says_so_in_the_log(small_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run(small_recipe, tmp_path / "home", "budgets=[301]")
    row = query(tmp_path / "home", "SELECT status, error FROM runs").to_pylist()[0]
    assert row["status"] == "failed"
    assert "give at most" in row["error"]

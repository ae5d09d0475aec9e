"""The comparison stage: means over tasks, corrected p, values without contaminated items, one control for all."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from eval.items import ItemRow
from eval.statistics import holm
from flows.compare import COMPARE_VERSION, RESULTS_FILE, Arm, compare, rows_of
from flows.contaminated import Leaks
from flows.run import Run, Silent
from warehouse.catalogue import connect
from warehouse.store import Artifact, Work
from warehouse.tables import EVAL_ITEMS, write_rows

N = 60
ENOUGH = "SELECT * FROM efficiency WHERE comparison = ? AND task = 'my exact_match'"
GROWN = """SELECT * FROM growth WHERE comparison = ? AND method = 'good' AND metric = 'exact_match' AND ability = 'add'
           ORDER BY budget"""
CONTROL = "balanced_random"
GIVEN_AWAY = frozenset(f"doc {i}" for i in range(20))


def items(metric: str, right: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for i, value in enumerate(right):
        given = ItemRow(
            f"item {i:02}", "g", "q", "r", "r", "g", metric, float(value), 3, None, "p", f"doc {i}", "t", ability="add"
        )
        rows.append({name: getattr(given, name) for name in EVAL_ITEMS.names if hasattr(given, name)})
        rows.append(rows[-1] | {"metric": "nll", "value": 2.0 - float(value)})
    return rows


def query(home: Path, sql: str, values: list[str]) -> list[dict[str, Any]]:
    with connect(home) as connection:
        found: list[dict[str, Any]] = connection.sql(sql, params=values).to_arrow_table().to_pylist()
        return found


class Raced:
    """A home with evaluations of three methods and the base model, two tasks and three seeds."""

    def __init__(self, home: Path) -> None:
        self.run = Run.begin(home, Silent(), recipe="r", command="run", recipe_text="")
        rates = {CONTROL: 0.3, "good": 0.8, "same": 0.3}
        self.arms = [
            Arm(method, 24, seed, None, None, self.evaluations(method, seed, rate))
            for method, rate in rates.items()
            for seed in (0, 1, 2)
        ]
        self.arms.append(Arm("base model", 0, 0, None, None, self.evaluations("base", 0, 0.05)))

    def evaluations(self, method: str, seed: int, rate: float) -> tuple[Artifact, ...]:
        draws = np.random.default_rng([seed, len(method)]).random((2, N)) < rate
        draws[:, :20] |= method == "good"  # what is given away, it has by heart
        return self.evaluation(method, seed, "exact_match", draws[0]), self.evaluation(
            method, seed, "numeric_match", draws[1]
        )

    def evaluation(self, method: str, seed: int, task: str, right: np.ndarray) -> Artifact:
        work = Work(
            "evaluate", 1, {"task": task, "title": f"my {task}"}, {"checkpoint": method, "test": "t"}, seed=seed
        )
        with self.run.store.write(work) as draft:
            rows = [row | {"evaluation": work.key, "task": f"my {task}"} for row in items(task, right)]
            write_rows(draft.folder / "eval_items.parquet", EVAL_ITEMS, rows)
        found = self.run.store.find(work)
        assert found is not None
        return found

    def rows(self, leaks: Leaks | None = None, arms: Sequence[Arm] = ()) -> list[dict[str, Any]]:
        made = compare(self.run, arms or self.arms, CONTROL, {}, 0, leaks)
        table: list[dict[str, Any]] = pq.read_table(made.folder / RESULTS_FILE).to_pylist()
        return table


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Raced:
    return Raced(tmp_path_factory.mktemp("compared") / "home")


@pytest.fixture(scope="module")
def rows(raced: Raced) -> list[dict[str, Any]]:
    return raced.rows(Leaks("k", {"t": Path("nowhere")}, {"t": GIVEN_AWAY}))


def of(rows: Sequence[dict[str, Any]], method: str, task: str, metric: str) -> dict[str, Any]:
    (row,) = [r for r in rows if (r["method"], r["task"], r["metric"]) == (method, task, metric)]
    return row


def test_every_task_and_mean_has_its_rows(rows: list[dict[str, Any]]) -> None:
    assert {(r["task"], r["metric"]) for r in rows} == {
        ("my exact_match", "exact_match"),
        ("my exact_match", "nll"),
        ("my exact_match", "nll_item_mean"),
        ("my numeric_match", "numeric_match"),
        ("my numeric_match", "nll"),
        ("my numeric_match", "nll_item_mean"),
        ("overall", "score"),
        ("overall", "nll"),
    }
    assert len(rows) == 8 * 4
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows)


def test_the_overall_score_is_the_mean_of_the_tasks(rows: list[dict[str, Any]]) -> None:
    for method in ("good", CONTROL, "base model"):
        tasks = [of(rows, method, f"my {name}", name) for name in ("exact_match", "numeric_match")]
        overall = of(rows, method, "overall", "score")
        assert overall["value"] == pytest.approx(np.mean([t["value"] for t in tasks]))
        assert overall["difference"] == pytest.approx(np.mean([t["difference"] for t in tasks]))
        assert overall["n"] == 2 * N
        seeds = np.mean([json.loads(t["seed_differences"]) for t in tasks], axis=0)
        assert json.loads(overall["seed_differences"]) == pytest.approx(seeds)
    assert of(rows, "good", "overall", "score")["verdict"] == "better"
    assert of(rows, "good", "overall", "nll")["verdict"] == "better"
    assert len(json.loads(of(rows, "good", "overall", "score")["evaluations"])) == 6


def test_p_is_corrected_over_methods_and_tasks_of_one_kind(rows: list[dict[str, Any]]) -> None:
    kind = [r for r in rows if r["metric"] in ("exact_match", "numeric_match") and r["method"] != CONTROL]
    assert len(kind) == 6
    assert [r["p_holm"] for r in kind] == pytest.approx(holm([r["p"] for r in kind]))
    assert all(r["p_holm"] is None for r in rows if r["method"] == CONTROL)
    assert {r["p_from"] for r in kind} == {"bootstrap"}
    assert (
        of(rows, "good", "my exact_match", "exact_match")["p_holm"]
        < 0.05
        < of(rows, "same", "my exact_match", "exact_match")["p_holm"]
    )


def test_effects_that_could_be_found_are_said(rows: list[dict[str, Any]]) -> None:
    row = of(rows, "same", "my exact_match", "exact_match")
    assert row["mde"] > 0.03
    assert row["items_needed"] > N
    assert f"MDE {row['mde']:.3g}" in row["verdict"]
    assert of(rows, "same", "my exact_match", "nll")["items_needed"] is None
    assert row["se"] == pytest.approx((row["high"] - row["low"]) / 4, rel=0.5)
    assert row["chance"] is None


def test_values_without_contaminated_items(rows: list[dict[str, Any]]) -> None:
    row = of(rows, "good", "my exact_match", "exact_match")
    assert (row["n"], row["n_clean"], row["contaminated"]) == (N, N - 20, 20)
    assert row["value_clean"] < row["value"]
    assert row["value"] == pytest.approx((20 + 40 * row["value_clean"]) / 60)
    assert row["low_clean"] <= row["value_clean"] <= row["high_clean"]
    assert row["difference_low_clean"] <= row["difference_clean"] <= row["difference_high_clean"]
    assert of(rows, "good", "overall", "score")["value_clean"] is None


def test_where_every_item_is_given_away_no_value_is_left(raced: Raced) -> None:
    everything = frozenset(f"doc {i}" for i in range(N))
    found = raced.rows(Leaks("all", {"t": Path("nowhere")}, {"t": everything}))
    row = of(found, "good", "my exact_match", "exact_match")
    assert (row["n_clean"], row["value_clean"], row["contaminated"]) == (0, None, N)


def test_where_nobody_looked_nothing_is_said(raced: Raced) -> None:
    assert {r["contaminated"] for r in raced.rows()} == {None}
    assert {r["contaminated"] for r in raced.rows(Leaks("other", {}, {}))} == {None}


def test_one_run_against_one_has_an_exact_p(raced: Raced) -> None:
    first = [arm for arm in raced.arms if arm.seed == 0]
    row = of(raced.rows(arms=first), "good", "my exact_match", "exact_match")
    assert row["p_from"] == "mcnemar"


def test_several_budgets_say_how_few_rows_are_enough(raced: Raced) -> None:
    rates = {CONTROL: (0.2, 0.5), "good": (0.85, 0.95), "weak": (0.1, 0.15)}
    arms = [
        Arm(method, budget, seed, None, None, raced.evaluations(f"{method} {budget}", seed, rate))
        for method, each in rates.items()
        for budget, rate in zip((24, 96), each, strict=True)
        for seed in (0, 1)
    ]
    made = compare(raced.run, arms, CONTROL, {}, 0)
    found = {row["method"]: row for row in query(raced.run.store.home, ENOUGH, [made.key])}
    assert found["good"]["budget"] == found["good"]["high"] == 24
    assert found[CONTROL]["budget"] == found[CONTROL]["reference_budget"] == 96
    assert (found["weak"]["budget"], found["weak"]["reached"]) == (None, 0.0)
    grown = query(raced.run.store.home, GROWN, [made.key])
    assert [(row["budget"], row["seeds"], row["n"]) for row in grown] == [(24, 2, N), (96, 2, N)]
    assert grown[0]["value"] < grown[1]["value"]


def test_one_budget_says_nothing_of_it(raced: Raced) -> None:
    made = compare(raced.run, raced.arms, CONTROL, {}, 0)
    assert query(raced.run.store.home, ENOUGH, [made.key]) == []


def test_the_base_model_stands_against_every_seed_of_the_control(rows: list[dict[str, Any]]) -> None:
    row = of(rows, "base model", "my exact_match", "exact_match")
    assert len(json.loads(row["seed_differences"])) == 3
    assert json.loads(row["seeds"]) == [0]
    assert row["difference_high"] < 0


def test_plain_values_for_programs(raced: Raced) -> None:
    made = compare(raced.run, raced.arms, CONTROL, {}, 0)
    assert made.manifest["version"] == COMPARE_VERSION
    found = rows_of(made)
    good = next(r for r in found if (r["method"], r["metric"]) == ("good", "score"))
    assert good["verdict"] == "better"
    assert good["versus_control"]["low"] > 0
    json.dumps(found)

"""The views over item rows: parts of a test, and repeats."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from warehouse import catalogue
from warehouse.catalogue import query
from warehouse.store import Store, Work
from warehouse.tables import EVAL_ITEMS, write_rows


def item(number: int, value: float, **more: Any) -> dict[str, Any]:
    return {
        "evaluation": "e", "checkpoint": "c", "task": "t", "item_id": f"item {number}", "metric": "exact_match",
        "value": value, "n_tokens": 3, "prompt_tokens": number, "choices": 0, "repeat": 0, "source": "made",
        "ability": "add" if number < 12 else "copy",
    } | more  # fmt: skip


def home(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    store = Store.open(tmp_path / "home")
    with store.write(Work("evaluate", 1, {"n": len(rows)})) as draft:
        write_rows(draft.folder / "eval_items.parquet", EVAL_ITEMS, rows)
    return store.home


def test_every_item_is_in_one_slice_of_each_way(tmp_path: Path) -> None:
    place = home(tmp_path, [item(i, float(i % 3 == 0)) for i in range(40)])
    found = query(
        place, 'SELECT "by", sum(n) AS n, count(*) AS slices FROM slices GROUP BY ALL ORDER BY ALL'
    ).to_pylist()
    assert [(row["by"], int(row["n"]), row["slices"]) for row in found] == [
        ("ability", 40, 2), ("gold length", 40, 1), ("prompt length", 40, 4), ("source", 40, 1),
    ]  # fmt: skip
    quarters = query(place, "SELECT slice, n FROM slices WHERE \"by\" = 'prompt length' ORDER BY slice").to_pylist()
    assert quarters == [{"slice": f"quarter {q}", "n": 10} for q in (1, 2, 3, 4)]


def test_shares_have_wilsons_interval(tmp_path: Path) -> None:
    from scipy.stats import binomtest

    place = home(tmp_path, [item(i, float(i < 3)) for i in range(12)])
    (row,) = query(place, "SELECT * FROM slices WHERE \"by\" = 'ability'").to_pylist()
    expected = binomtest(3, 12).proportion_ci(method="wilson")
    assert (row["value"], row["n"], row["chance"]) == (0.25, 12, None)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_other_values_have_standard_errors(tmp_path: Path) -> None:
    values = np.arange(12) / 7
    place = home(tmp_path, [item(i, float(v), metric="nll", choices=4) for i, v in enumerate(values)])
    (row,) = query(place, "SELECT * FROM slices WHERE \"by\" = 'ability'").to_pylist()
    half = 1.96 * values.std(ddof=1) / math.sqrt(12)
    assert (row["low"], row["high"]) == pytest.approx((values.mean() - half, values.mean() + half))
    assert row["chance"] == 0.25


def test_repeats_say_how_far_outcomes_agree(tmp_path: Path) -> None:
    outcomes = {0: (1, 1, 1), 1: (1, 0, 1), 2: (0, 0, 0), 3: (0, 1, 1)}
    rows = [item(i, float(v), repeat=r) for i, values in outcomes.items() for r, v in enumerate(values)]
    place = home(tmp_path, [*rows, item(0, 2.0, metric="nll")])
    (row,) = query(place, "SELECT * FROM repeats").to_pylist()
    table = np.array(list(outcomes.values()), np.float64)
    assert (row["n"], row["repeats"], row["changed"]) == (4, 3, 0.5)
    assert row["spread"] == pytest.approx(table.std(axis=1, ddof=1).mean())
    assert row["deviation"] == pytest.approx(table.mean(axis=0).std(ddof=1))
    (part,) = query(
        place, "SELECT n, value FROM slices WHERE metric = 'exact_match' AND \"by\" = 'ability'"
    ).to_pylist()
    assert part == {"n": 4, "value": pytest.approx(table.mean())}


def test_a_home_of_an_older_version_gets_the_columns_of_today(tmp_path: Path) -> None:
    place = home(tmp_path, [item(i, 1.0) for i in range(3)])
    catalogue.ensure(place)
    empty = place / "artifacts" / "evaluate" / "empty" / "eval_items.parquet"
    pq.write_table(pq.read_table(empty).drop_columns(["ability", "repeat"]), empty)
    artifact = next((place / "artifacts" / "evaluate").glob("[!e]*/eval_items.parquet"))
    pq.write_table(pq.read_table(artifact).drop_columns(["ability", "repeat"]), artifact)
    (place / "winnow.duckdb").unlink()
    assert query(place, "SELECT count(*) AS n, count(ability) AS known FROM eval_items").to_pylist() == [
        {"n": 3, "known": 0}
    ]

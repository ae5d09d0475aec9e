"""What the report folds away, and its sections on growth by ability and on calibration."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_home
from report_home import Plan, race

from eval.calibration import reliability
from eval.metrics import METRICS
from flows.report import write_report
from flows.report.facts import Facts, collect
from warehouse import catalogue
from warehouse.eval_views import RIGHT
from warehouse.tables import write_rows

answer = report_home.answer
PLAN = Plan(values={"rds_plus": 0.7, "length": 0.3, "balanced_random": 0.4}, budgets=(20, 50), n=120)


def able(evaluation: str, checkpoint: str, item: int, right: bool) -> dict[str, Any]:
    """60 items of four choices: four need <i>lookup</i>, the others sort or add."""
    ability = "<i>lookup</i>" if item < 4 else ("sort", "add")[item % 2]
    return answer(evaluation, checkpoint, item, right) | {"ability": ability, "choices": 4}


def fuller(path: Path, schema: Any, rows: Any) -> None:
    """Every item has a confidence too; the task has five more metrics, and is there a second time as "sort"."""
    rows = list(rows)
    if path.name == "eval_items.parquet":
        rows += [row | {"metric": "confidence", "value": 0.9 if row["value"] else 0.35} for row in rows]
    if path.name == "results.parquet":
        exact = [row | {"contaminated": 12} for row in rows if row["metric"] == "exact_match"]
        others = ("ece", "nll_item_mean", "p_correct", "brier", "accuracy")
        rows = [*(row | {"contaminated": 12} for row in rows), *(row | {"metric": o} for row in exact for o in others)]
        rows += [row | {"task": "sort", "contaminated": 0} for row in rows]
    write_rows(path, schema, rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("diagnostics") / "home"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report_home, "answer", able)
        patched.setattr(report_home, "write_rows", fuller)
        race(place, PLAN)
    return place


@pytest.fixture(scope="module")
def facts(home: Path) -> Facts:
    return collect(home, None)


@pytest.fixture(scope="module")
def page(home: Path) -> str:
    return write_report(home).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def unfolded(text: str) -> str:
    """What is seen before anything is opened."""
    return re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)


def test_the_main_metric_and_the_loss_are_seen_and_the_others_are_folded(facts: Facts, page: str) -> None:
    assert [(g.task, [b.metric for b in g.leading]) for g in facts.groups] == [
        ("reverse", ["exact_match", "nll"]),
        ("sort", ["exact_match", "nll"]),
    ]
    whole, seen = section(page, "results"), unfolded(section(page, "results"))
    headings = re.compile(r'<h4 class="metric">(\w+)')
    assert headings.findall(seen) == ["exact_match", "nll"] * 2
    assert Counter(headings.findall(whole)) == Counter([b.metric for b in facts.boards])
    assert whole.count("5 more metrics: accuracy, brier, ece, nll_item_mean, p_correct") == 2
    assert "Results, exact_match (sort)" in seen
    assert "Results, p_correct" not in seen
    assert "<script" not in whole


def test_contamination_is_said_once_a_task(page: str) -> None:
    results = section(page, "results")
    assert results.count("given away by a row that may be chosen") == 2
    assert "12 test items of this task are given away" in results
    assert "No test item is given away" in results
    assert unfolded(results).count("without contaminated items</caption>") == 2


def test_what_was_shown_is_of_the_main_metrics(page: str) -> None:
    head = page[: page.index("<nav")]
    seen = unfolded(head)
    assert len(re.findall(r"<li class=", seen)) == 8  # two tasks, two metrics, two budgets
    assert "exact_match (sort) with 50 rows" in seen
    assert "p_correct" not in seen
    assert "20 findings by other metrics" in head


def test_where_only_baselines_were_raced_it_says_so(tmp_path: Path) -> None:
    race(tmp_path, Plan(values={"random": 0.5, "balanced_random": 0.4}, seeds=(0,), n=60, items=10))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Nothing but baselines was raced" in page
    assert not re.search('id="(growth|calibration|advice)"', page)  # its items name no ability and have no confidence


def test_the_base_model_is_a_point_that_costs_nothing(page: str) -> None:
    cost = section(page, "cost")
    assert cost.count("<table") == 1
    assert len(re.findall(r"<figure>", unfolded(cost))) == 4
    first = cost[: cost.index("</figure>")]
    assert "base model: FLOPs 0, exact_match 0.050" in first
    assert '<text class="tick" x="11%" y="299" text-anchor="middle">0</text>' in first
    assert '<circle class="dot hb" cx="11.0%"' in first
    assert "On the line, cheapest first: base model, balanced_random · 20, rds_plus · 20." in first


def test_growth_is_that_of_the_view_with_intervals(home: Path, facts: Facts) -> None:
    assert [(g.board.task, g.board.metric) for g in facts.growing] == [
        ("reverse", "exact_match"),
        ("sort", "exact_match"),
    ]
    grown = facts.growing[0]
    assert grown.methods == ("rds_plus", "length", "balanced_random")
    assert [(a.name, a.n, a.is_small) for a in grown.abilities] == [
        ("<i>lookup</i>", 4, True), ("add", 28, False), ("sort", 28, False),
    ]  # fmt: skip
    view = catalogue.query(home, "SELECT * FROM growth WHERE metric = 'exact_match' AND task = 'reverse'").to_pylist()
    values = {(row["ability"], row["method"], row["budget"]): row["value"] for row in view}
    for ability in grown.abilities:
        assert ability.chance == 0.25
        for curve in ability.curves:
            assert [budget for budget, _ in curve.points] == [0, 20, 50]
            for budget, estimate in curve.points:
                method = curve.method if budget else "base model"
                assert estimate.value == pytest.approx(values[ability.name, method, budget])
                assert estimate.low <= estimate.value <= estimate.high


def test_growth_is_drawn_by_ability_with_the_line_of_guessing(page: str) -> None:
    growth = section(page, "growth")
    assert len(re.findall(r"<figure", growth)) == 6
    assert growth.count("<figure class=few>") == 2
    assert "n = 4, few · guessing 0.250" in growth
    assert growth.count('<line class="cut"') == 6
    assert ">base</text>" in growth
    assert growth.count("<polyline") == 18  # two tasks of three abilities and three methods
    assert "<i>lookup" not in growth
    assert "as charts" not in growth


def test_many_abilities_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def many(evaluation: str, checkpoint: str, item: int, right: bool) -> dict[str, Any]:
        return answer(evaluation, checkpoint, item, right) | {"ability": f"skill {item % 13}"}

    monkeypatch.setattr(report_home, "answer", many)
    race(tmp_path, Plan(values={"rds_plus": 0.7, "balanced_random": 0.4}, seeds=(0,), n=60))
    growth = section(write_report(tmp_path).read_text(encoding="utf-8"), "growth")
    assert "13 abilities as charts" in growth
    assert "<polyline" not in unfolded(growth)
    assert '<line class="cut"' not in growth  # replies are free


def test_calibration_is_that_of_the_items(home: Path, facts: Facts, page: str) -> None:
    calibrated = facts.calibrated[0]
    assert calibrated.right == "exact_match"
    assert [d.result.arm for d in calibrated.diagrams] == [
        "length · 50",
        "rds_plus · 50",
        "base model",
        "balanced_random · 50",
    ]
    for diagram in calibrated.diagrams:
        seeds = len(diagram.result.seeds)
        assert diagram.n == 60 * seeds
        assert {place for place, b in enumerate(diagram.bins) if b.n} <= {3, 8}  # 0.35 where wrong, 0.9 where right
        assert diagram.bins[3].accuracy is not None
        assert diagram.bins[3].accuracy.value == 0
    drawn = section(page, "calibration")
    assert len(re.findall(r"<figure", drawn)) == 8
    assert "right or wrong by exact_match" in drawn
    assert re.search(r"error <b>0\.\d{3}</b> <span class=\"ci\">\[", drawn)


def test_the_view_gives_the_bins_that_the_function_does(home: Path) -> None:
    view = catalogue.query(home, "SELECT * FROM reliability ORDER BY evaluation, bin").to_pylist()
    items = catalogue.query(home, "SELECT evaluation, item_id, metric, value FROM eval_items").to_pylist()
    outcomes: dict[str, dict[str, dict[str, float]]] = {}
    for row in items:
        outcomes.setdefault(row["evaluation"], {}).setdefault(row["item_id"], {})[row["metric"]] = row["value"]
    assert {row["evaluation"] for row in view} == set(outcomes)
    for evaluation, found in outcomes.items():
        right, confidence = (
            np.array([each[name] for each in found.values()]) for name in ("exact_match", "confidence")
        )
        bins = [each for each in reliability(right, confidence) if each.n]
        rows = [row for row in view if row["evaluation"] == evaluation]
        assert [row["n"] for row in rows] == [each.n for each in bins]
        for row, each in zip(rows, bins, strict=True):
            assert each.accuracy is not None
            assert (row["above"], row["at_most"]) == (each.low, each.high)
            assert row["right_by"] == "exact_match"
            assert row["confidence"] == pytest.approx(each.confidence)
            wanted = (each.accuracy.value, each.accuracy.low, each.accuracy.high)
            assert (row["value"], row["low"], row["high"]) == pytest.approx(wanted, abs=1e-6)


def test_the_view_knows_what_says_right_or_wrong() -> None:
    assert tuple(m.column for m in METRICS.values() if m.share and m.higher_is_better) == RIGHT

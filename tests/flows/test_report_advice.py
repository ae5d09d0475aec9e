"""The report of `winnow advise`: what is advised, how sure it is, what is refused, and the runs behind it."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_home
from test_report import queries_of, read

from flows.report import write_report
from flows.report.advice_given import mixed
from flows.report.facts import Facts, collect
from warehouse import catalogue
from warehouse.store import Work
from warehouse.tables import ADVICE, MIXTURE, write_rows

ODD = "<b>web</b>"
SOURCES = ("clean", "verbose", ODD)
MIXTURES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.25, 0.25))


def estimate(value: float, width: float = 0.1, n: int = 15) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width, "n": n}


def pilots() -> list[dict[str, Any]]:
    """Four mixtures of two sizes and two seeds; the last run failed."""
    runs = [
        {**estimate(2.0 + shares[2] - rows / 1000 + seed / 100, n=40), "kind": "pilot", "name": "run", "detail": None,
         "mixture": "m", "rows": rows, "seed": seed, "shares": dict(zip(SOURCES, shares, strict=True))}
        for rows in (150, 600) for shares in MIXTURES for seed in (0, 1)
    ]  # fmt: skip
    runs[-1] |= {"value": None, "low": None, "high": None, "n": None, "detail": "RuntimeError: the <loss> diverged"}
    return runs


def said(**changed: Any) -> dict[str, Any]:
    return {
        "says": f"For 1200 rows: clean 90%, {ODD} 10%.",
        "shares": {name: estimate(v, 0.0) for name, v in zip(SOURCES, (0.9, 0.0, 0.1), strict=True)},
        "forecasts": {"even": estimate(1.6), "advised": estimate(1.1), "gain over even": estimate(0.5)},
        "manifests": [],
        "refusals": [],
        "warnings": [{"reason": "one_seed", "detail": "all runs have seed 0"}],
        "diagnostics": {"surface": "line"},
        "available": {"clean": 5000, "verbose": 400, ODD: 100},
        "pilots": pilots(),
    } | changed


def advised(home: Path, answer: dict[str, Any], budget: int | None = 1200) -> Path:
    """A run of `winnow advise` that said `answer`, and drew its rows where it has shares."""
    maker = report_home.start(home)
    maker.log.start(recipe="mixing", command="advise", recipe_text="name: mixing", version="0.1.0")
    work = Work("advice", 1, {"advisor": "projektor", "budget": budget})
    with maker.store.write(work) as draft:
        known = {"advice": work.key, "pool": "p", "advisor": "projektor", "params": "{}", "budget": budget}
        rows = [known | {"kind": "share", "name": name, **each} for name, each in answer["shares"].items()]
        rows += [known | {k: each[k] for k in ("kind", "name", "value", "mixture")} for each in answer["pilots"]]
        write_rows(draft.folder / "advice.parquet", ADVICE, rows or [known])
        (draft.folder / "advice.json").write_text(json.dumps(answer), encoding="utf-8")
    maker.note("advise projektor", work, (16, 15), {"failed": 1}, 2.0, True)
    if answer["shares"]:
        mixture = Work("mixture", 1, {"purpose": "advised"})
        drawn = [{"mixture": mixture.key, "pool": "p", "source": name, "share": 0.5, "rows": n, "repeats": again,
                  "available": 1, "seed": 0, "purpose": "advised"}
                 for name, n, again in (("clean", 1080, 0), (ODD, 120, 20))]  # fmt: skip
        maker.stage("mix advised", mixture, {"mixture": (MIXTURE, drawn)}, (1200, 1200))
    maker.log.end("done", report="report.html")
    return write_report(home)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("advised") / "home"


@pytest.fixture(scope="module")
def report(home: Path) -> Path:
    return advised(home, said())


@pytest.fixture(scope="module")
def facts(home: Path, report: Path) -> Facts:
    return collect(home, None)


def test_an_advice_has_a_page_of_its_own(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)"', page) == ["advice", "funnel", "timings", "again"]
    assert f"projektor: {said()['says']}" in read(report)
    assert "Nothing was trained" not in page
    assert "<dt>Methods</dt>" not in page
    assert "winnow advise mixing.yaml" in page


def test_shares_and_forecasts_have_their_intervals(report: Path) -> None:
    text = read(report)
    assert "clean 90.0 % [90.0 %, 90.0 %] 5,000 1,080 0" in text
    assert f"{ODD} 10.0 % [10.0 %, 10.0 %] 100 120 20" in text
    assert "verbose 0.0 % [0.0 %, 0.0 %] 400 0 0" in text
    assert "advised 1.100 [1.000, 1.200] 15" in text
    assert "gain over even +0.500 [+0.400, +0.600] 15" in text
    assert "The largest pilot run that ended had 600 rows: the budget is 2 times that." in text
    assert "Warning (one seed): all runs have seed 0." in text


def test_pilot_runs_are_drawn_and_the_failed_one_says_why(facts: Facts, report: Path) -> None:
    (given,) = facts.advice
    assert (len(given.pilots), len(given.failed), len(given.ended), given.left_out) == (16, 1, 15, 0)
    text, page = read(report), report.read_text(encoding="utf-8")
    assert "Pilot runs 16 runs, 1 failed" in text
    assert (
        f"Failed: clean 50.0 %, verbose 25.0 %, {ODD} 25.0 %, 600 rows, seed 1: RuntimeError: the <loss> diverged"
        in text
    )
    chart = page[page.index('id="advice-1-pilots-t"') :]
    chart = chart[: chart.index("</figure>")]
    assert "clean: 150 rows 1.855, 600 rows 1.405" in chart  # means over two seeds
    assert "forecast advised 1.100" in chart
    assert chart.count("<circle") == 2 * 4 + 2
    assert ">1,200</text>" in chart


def test_names_of_sources_are_text(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert ODD not in page
    assert "<loss>" not in page


def test_the_queries_of_the_page_answer(home: Path, report: Path) -> None:
    queries = [html.unescape(query) for query in queries_of(report)]
    assert len(queries) == 3
    for query in queries:
        assert catalogue.query(home, query).num_rows > 0


def test_a_refusal_is_said_at_the_top(tmp_path: Path) -> None:
    refusal = {"reason": "extrapolation", "detail": "100000 rows are 167 times the largest run, 600"}
    nothing: dict[str, Any] = {"shares": {}, "forecasts": {}, "pilots": [], "warnings": []}
    text = read(advised(tmp_path, said(says="No forecast for 100000 rows.", refusals=[refusal], **nothing)))
    line = "projektor: No forecast for 100000 rows. Refused: 100000 rows are 167 times the largest run, 600."
    assert line in text.split("Contents")[0]
    assert "Refused (extrapolation): 100000 rows are 167 times the largest run, 600." in text
    assert "Pilot runs" not in text


def test_stages_to_train_on_in_order(tmp_path: Path) -> None:
    stages = [{"name": "special", "rows": 29, "per_source": {"clean": 29}}]
    nothing: dict[str, Any] = {"shares": {}, "forecasts": {}, "pilots": [], "warnings": []}
    text = read(advised(tmp_path, said(manifests=stages, **nothing), budget=None))
    assert "projektor no budget was asked for" in text
    assert "special 29 clean 29" in text


def test_distances_are_no_losses(tmp_path: Path) -> None:
    text = read(advised(tmp_path, said(pilots=[])))
    assert "Forecasts distance of the mixture to the target; lower is nearer" in text
    assert "n counts the targets." in text


def test_a_mixture_in_words() -> None:
    assert mixed({"a": 1.0, "b": 0.0}) == "a"
    assert mixed({"a": 0.5, "b": 0.0, "c": 0.5}) == "a 50.0 %, c 50.0 %"

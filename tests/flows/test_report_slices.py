"""What the report says of parts of the test, of repeats, and of test items that the pool gives away."""

from pathlib import Path
from typing import Any

import pytest
import report_home
from report_home import race
from test_report import SECTIONS, read

from flows.report import write_report
from flows.report.facts import Facts, collect
from warehouse.tables import write_rows

answer, result = report_home.answer, report_home.result


def sliced(evaluation: str, checkpoint: str, item: int, right: bool) -> dict[str, Any]:
    """60 items: five need lookup, the others are short or long."""
    ability = "lookup" if item < 5 else "<b>reverse</b>"
    return answer(evaluation, checkpoint, item, right) | {"ability": ability, "prompt_tokens": item, "choices": 4}


def leaking(*args: Any) -> dict[str, Any]:
    row = result(*args)
    clean = {"value_clean": row["value"] - 0.1, "low_clean": row["low"] - 0.1, "high_clean": row["high"] - 0.1}
    return row | clean | {"n_clean": 48, "contaminated": 12, "contaminated_chosen": 2.5, "p_holm": 0.0304}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sliced") / "home"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(report_home, "answer", sliced)
        patched.setattr(report_home, "result", leaking)
        race(place)
    return place


@pytest.fixture(scope="module")
def facts(home: Path) -> Facts:
    return collect(home, None)


@pytest.fixture(scope="module")
def text(home: Path) -> str:
    return read(write_report(home))


def test_slices_are_of_the_best_method_against_the_control(facts: Facts) -> None:
    assert facts.sliced is not None
    assert facts.sliced.best.method == "rds_plus"
    found = {(s.by, s.name): s for s in facts.sliced.slices}
    assert found["ability", "<b>reverse</b>"].n == 55
    gain = found["ability", "<b>reverse</b>"].gain
    assert gain is not None
    assert gain.difference.value > 0.1
    assert found["ability", "<b>reverse</b>"].verdict == gain.verdict
    assert found["ability", "lookup"].value.value == 0
    assert found["ability", "lookup"].verdict == ""
    assert {name for by, name in found if by == "prompt length"} == {
        "0 to 14 tokens", "15 to 29 tokens", "30 to 44 tokens", "45 to 59 tokens",
    }  # fmt: skip
    assert all(s.chance == 0.25 for s in facts.sliced.slices)


def test_the_page_has_them_as_a_section_of_its_own(home: Path, text: str) -> None:
    page = write_report(home).read_text(encoding="utf-8")
    assert f'<section id="{SECTIONS[0]}"' in page
    assert page.index('<section id="results"') < page.index('<section id="slices"') < page.index('<section id="cost"')
    assert "<b>reverse</b>" not in page
    assert "rds_plus on exact_match (reverse) (higher is better), all seeds." in text
    assert "Slices of fewer than 10 items have no verdict." in text


def test_contaminated_items_are_said_and_left_out_beside(text: str) -> None:
    assert "12 test items of this task are given away by a row that may be chosen" in text
    assert "0.610 [0.570, 0.650]" in text
    assert "2.5" in text


def test_the_corrected_p_is_shown_beside_the_verdict(text: str) -> None:
    assert "Over the items, corrected for all comparisons, p is 0.030" in text
    assert "p, corrected" in text


def test_without_facts_of_items_there_are_no_slices(tmp_path: Path) -> None:
    race(tmp_path)
    assert collect(tmp_path, None).sliced is None
    path = write_report(tmp_path)
    assert 'id="slices"' not in path.read_text(encoding="utf-8")
    assert "given away by a row" not in read(path)


def test_repeats_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(path: Path, schema: Any, rows: Any) -> None:
        if path.name == "eval_items.parquet":
            again = [row | {"repeat": 1, "value": 1.0 if row["item_id"] < "item-015" else row["value"]} for row in rows]
            rows = [*(row | {"repeat": 0} for row in rows), *again]
        write_rows(path, schema, rows)

    monkeypatch.setattr(report_home, "write_rows", twice)
    race(tmp_path)
    found = collect(tmp_path, None).sliced
    assert found is not None
    assert found.slices == ()
    assert found.repeated is not None
    assert (found.repeated.n, found.repeated.repeats) == (60, 2)
    assert 5 / 60 <= found.repeated.changed <= 15 / 60
    assert "60 items were asked 2 times each" in read(write_report(tmp_path))

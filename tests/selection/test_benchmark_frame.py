"""Rows of benchmarks know whether their goal is met, and the script's exit status says so."""

import json

import pytest

from benchmarks.frame import COLUMNS, Row, race, run


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row("a", ours=2, unit="s", goal=10, peer=20), 10, True),
        (Row("a", ours=2, unit="s", goal=10, peer=19), 9.5, False),
        (Row("a", ours=300, unit="rows/s", goal=2, peer=100, more_is_better=True), 3, True),
        (Row("a", ours=2, unit="s", goal=2), None, True),
        (Row("a", ours=2.1, unit="s", goal=2), None, False),
        (Row("a", ours=2.1, unit="rows/s", goal=2, more_is_better=True), None, True),
    ],
)
def test_a_row_knows_its_ratio_and_whether_its_goal_is_met(row, ratio, met):
    assert (row.ratio, row.met) == (ratio, met)


@pytest.mark.parametrize(("seconds", "status"), [(1.0, 0), (3.0, 1)])
def test_the_exit_status_and_the_objects_say_what_was_missed(monkeypatch, capsys, seconds, status):
    monkeypatch.setattr("sys.argv", ["bench", "--json"])
    assert run(lambda: [Row("good", 1.0, "s", 2.0, 4.0), Row("bad", seconds, "s", 2.0)]) == status
    good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert tuple(good) == COLUMNS
    assert good == {"work": "good", "ours": 1, "peer": 4, "unit": "s", "ratio": 4, "goal": 2, "met": True}
    assert bad["met"] is (status == 0)


def test_the_table_has_a_line_per_row(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench"])
    run(lambda: [Row("slow", 3.0, "s", 2.0)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["slow", "3", "-", "s", "-", "2", "NO"]


def test_a_race_runs_both_in_turns():
    order: list[str] = []
    ours, mine, theirs, peers = race(2, lambda: order.append("ours"), lambda: order.append("peer"))
    assert order == ["ours", "peer", "ours", "peer"]
    assert min(ours, theirs) >= 0
    assert mine is peers is None

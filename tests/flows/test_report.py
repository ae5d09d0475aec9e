"""What the report says of a run, against the tables it is made from."""

import html
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import report_home
from report_home import Plan, race

from flows.report import write_report
from flows.report.facts import Facts, collect
from flows.report.figures import hues_of
from flows.report.results import Board
from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.store import Store

SECTIONS = ["results", "cost", "scores", "mixture", "overlap", "why", "funnel", "timings", "training", "again"]


class Reader(HTMLParser):
    """The words of a page as they are read, without its script and style sheet."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)


def read(path: Path) -> str:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return " ".join(" ".join(reader.words).split())


@pytest.fixture(scope="session")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one finished race; read it, never write to it."""
    home = tmp_path_factory.mktemp("raced") / "home"
    race(home)
    return home


@pytest.fixture(scope="session")
def report(raced: Path) -> Path:
    return write_report(raced)


@pytest.fixture(scope="session")
def facts(raced: Path) -> Facts:
    return collect(raced, None)


def boards_of(home: Path) -> dict[str, Board]:
    return {board.metric: board for board in collect(home, None).boards}


def test_the_page_is_where_it_is_promised_and_has_every_section(raced: Path, report: Path) -> None:
    assert report == raced / "runs" / "20260301T030000-aaaaaaaa" / "report.html"
    page = report.read_text(encoding="utf-8")
    assert re.findall(r'<section id="(\w+)"', page) == SECTIONS
    assert re.findall(r'<li><a href="#(\w+)">', page) == SECTIONS
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r' href="#([^"]+)"', page)) <= set(ids)
    for described in re.findall(r'aria-labelledby="([^"]+)"', page):
        assert set(described.split()) <= set(ids)
    assert not list(report.parent.glob(".*"))


def test_the_same_run_gives_the_same_page(raced: Path, report: Path) -> None:
    before = report.read_bytes()
    assert write_report(raced).read_bytes() == before


def test_nothing_of_the_page_lies_elsewhere(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:href|src)="([^#"][^"]*)"', page)) == {"data:,"}
    assert not re.search(r"@import|url\(|https?:", page)
    assert "default-src 'none'" in html.unescape(page)


def test_results_are_sorted_in_the_metrics_direction(facts: Facts) -> None:
    boards = {board.metric: board for board in facts.boards}
    methods = {name: [r.method for r in board.results] for name, board in boards.items()}
    expected = ["rds_plus", "top_k", "random", "balanced_random", "length", "base model"]
    assert methods == {"exact_match": expected, "nll": expected}
    assert boards["exact_match"].higher_is_better
    assert not boards["nll"].higher_is_better


def test_every_metric_has_its_interval_n_and_seeds(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    table = page[page.index('<section id="results"') : page.index('<section id="cost"')]
    rows = re.findall(r"<tr[^>]*><th scope=\"row\".*?</tr>", table, re.DOTALL)
    assert len(rows) == 12
    for row in rows:
        cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
        assert re.search(r"<b>\d\.\d{3}</b> <span class=\"ci\">\[\d\.\d{3}, \d\.\d{3}\]", cells[1])
        assert ">60</td>" in cells[-2]
        assert re.search(r">[12]</td>", cells[-1])


def test_a_winner_is_named_with_its_paired_difference(report: Path) -> None:
    assert (
        "exact_match (reverse) with 40 rows (higher is better): rds_plus beats balanced random, 0.710 [0.670, 0.750] "
        "against 0.410 [0.370, 0.450]; the paired difference is +0.300 [+0.260, +0.340]. Also better than balanced "
        "random: top_k. 2 seeds, 60 test items."
    ) in read(report)


def test_where_nothing_wins_it_says_so(tmp_path: Path) -> None:
    values = {"rds_plus": 0.42, "length": 0.2, "balanced_random": 0.41, "random": 0.6}
    race(tmp_path, Plan(values=values, seeds=(3,)))
    text = read(write_report(tmp_path))
    assert "no method beats balanced random. The best of them, rds_plus, has 0.420 [0.380, 0.460]" in text
    assert "no difference shown (MDE 0.051). One seed, 60 test items" in text
    assert "beats balanced random, " not in text


def test_where_there_is_no_control_nothing_is_claimed(tmp_path: Path) -> None:
    race(tmp_path, Plan(values={"rds_plus": 0.42, "length": 0.2}))
    text = read(write_report(tmp_path))
    assert "There is no arm of balanced random to compare it with, so nothing is shown." in text
    assert "better than" not in text.split("Contents")[0]


def test_budgets_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    race(tmp_path, Plan(values={"rds_plus": 0.7, "balanced_random": 0.4}, budgets=(20, 50)))
    found = collect(tmp_path, None)
    assert {pick.arm for pick in found.picks.picks} >= {"rds_plus · 20", "rds_plus · 50"}
    assert [overlap.budget for overlap in found.overlaps] == [20, 50]
    assert len(boards_of(tmp_path)["nll"].verdicts) == 2
    assert found.failures is not None
    assert found.failures.best.budget == 50


def test_shares_add_up_and_agree_with_the_warehouse(raced: Path, facts: Facts) -> None:
    for what in ("source", "skill", "noise"):
        mixture = facts.mixtures[what]
        assert mixture is not None
        assert [column.name for column in mixture.columns][:2] == ["pool", "rds_plus"]
        assert mixture.columns[0].total == 300
        assert all(column.total == 80 for column in mixture.columns[1:])
    rows = catalogue.query(
        raced, "SELECT source, count(*) AS n FROM selected WHERE method = 'rds_plus' GROUP BY ALL"
    ).to_pylist()
    source = facts.mixtures["source"]
    assert source is not None
    assert source.columns[1].counts == {row["source"]: row["n"] for row in rows}


def test_rare_kinds_are_counted_together(tmp_path: Path) -> None:
    extra = tuple(report_home.example(f"q {i}", "r", f"source-{i:04}") for i in range(900))
    race(tmp_path, Plan(extra=extra, n=10, trains=False, budgets=(50,)))
    mixture = collect(tmp_path, None).mixtures["source"]
    assert mixture is not None
    assert all(column.total in (910, 100) for column in mixture.columns)
    assert len(mixture.kinds) == 30
    assert mixture.kinds_left_out > 400
    assert "more kinds left out here" in read(write_report(tmp_path))


def test_without_labels_of_skill_it_says_so(tmp_path: Path) -> None:
    extra = tuple(report_home.example(f"q {i}", "r", "plain") for i in range(60))
    race(tmp_path, Plan(extra=extra, n=0, trains=False))
    text = read(write_report(tmp_path))
    assert "No row of the pool says its skill (a field skill beside its messages)." in text
    assert "No row of the pool says its noise" in text


def test_overlap_agrees_with_sets(raced: Path, facts: Facts) -> None:
    chosen = {
        (row["method"], row["seed"]): set(row["rows"])
        for row in catalogue.query(
            raced, 'SELECT method, seed, list("row") AS rows FROM selected GROUP BY ALL'
        ).to_pylist()
    }
    (overlap,) = facts.overlaps
    for i, a in enumerate(overlap.methods):
        for j, b in enumerate(overlap.methods):
            cell = overlap.cells[i][j]
            expected = [len(chosen[a, s] & chosen[b, s]) / len(chosen[a, s] | chosen[b, s]) for s in (0, 1)]
            assert cell is not None
            assert list(cell.by_seed) == pytest.approx(expected)
            assert cell.jaccard == pytest.approx(sum(expected) / 2)
    assert overlap.candidates == 297
    assert overlap.expected == pytest.approx(40 / 297 / (2 - 40 / 297))


def test_histograms_hold_every_row(facts: Facts) -> None:
    by_method = {scores.pick.method: scores for scores in facts.scores.scores}
    assert by_method.keys() == {"rds_plus", "top_k", "length"}
    assert all(sum(scores.chosen) == 40 for scores in by_method.values())
    assert sum(by_method["rds_plus"].pool or ()) == 300
    assert by_method["top_k"].pool is None  # that method noted no pool scores
    assert facts.scores.without == ("balanced_random", "random")


def test_the_cut_off_is_the_worst_chosen_score(raced: Path, facts: Facts) -> None:
    for scores in facts.scores.scores:
        table = pq.read_table(raced / "artifacts" / "select" / scores.pick.key / "selected.parquet")
        assert scores.cut == min(table["score"].to_pylist())


def test_cards_carry_the_target_they_name(facts: Facts, report: Path) -> None:
    assert len(facts.cards) == 20
    assert {card.pick.method for card in facts.cards} == {"rds_plus", "top_k", "length", "balanced_random", "random"}
    for card in facts.cards:
        if card.pick.method in ("rds_plus", "top_k"):
            assert card.target is not None
            assert f"number {card.target_row}:" in card.target.turns[0].text.head
        else:
            assert card.target is None
    assert "In round 1, target 1 of task reverse took this row" in read(report)


def test_the_funnel_counts_every_row(facts: Facts, report: Path) -> None:
    steps = {step.title: step for step in facts.funnel.steps}
    assert steps["ingest nightly pool"].dropped == {"empty_reply": 3, "no_assistant_turn": 1}
    assert steps["select rds_plus 40"].stages == 2
    for step in steps.values():
        assert step.rows_in == step.rows_out + sum(step.dropped.values())
    assert (facts.funnel.rejects, facts.funnel.exclusions) == (4, 3)
    assert len(facts.funnel.excluded) == 3
    assert "Please do the task" in facts.funnel.excluded[0].text.head
    assert "3 empty reply, 1 no assistant turn" in read(report)


def test_timings_add_up(raced: Path, facts: Facts) -> None:
    logged = catalogue.query(raced, "SELECT sum(seconds) AS s, count(*) AS n FROM stages").to_pylist()[0]
    assert facts.timings.seconds == pytest.approx(logged["s"])
    assert facts.timings.stages == logged["n"] == sum(step.stages for step in facts.timings.steps)
    assert facts.timings.computed == logged["n"] - 5  # one seed's trainings came from the cache
    assert facts.timings.wall == pytest.approx(facts.timings.seconds, abs=1e-3)


def test_curves_are_thinned_and_end_where_training_ended(raced: Path, facts: Facts) -> None:
    assert [training.arm for training in facts.training.trainings] == list(report_home.RACED)
    for training in facts.training.trainings:
        assert len(training.curves) == 2
        assert all(len(curve.points) <= 121 and curve.points[-1][0] == 72 for curve in training.curves)


def test_a_run_that_was_stopped_says_where_it_went_on(report: Path) -> None:
    assert "rds_plus: goes on from step 24 (seed 1)." in read(report)


def test_failures_are_what_they_say(raced: Path, facts: Facts) -> None:
    section = facts.failures
    assert section is not None
    outcomes: dict[str, dict[str, list[float]]] = {}
    control = next(r for r in section.board.results if r.is_control)
    side = dict.fromkeys(section.best.evaluations, "best") | dict.fromkeys(control.evaluations, "control")
    for row in catalogue.query(raced, "SELECT evaluation, item_id, value FROM eval_items").to_pylist():
        outcomes.setdefault(row["item_id"], {}).setdefault(side.get(row["evaluation"], "other"), []).append(
            row["value"]
        )
    for item in section.gained:
        assert (min(outcomes[item.item_id]["best"]), max(outcomes[item.item_id]["control"])) == (1, 0)
        assert item.control_reply is not None
    assert section.never_count >= 5
    gained = [item for item, sides in outcomes.items() if min(sides["best"]) == 1 and max(sides["control"]) == 0]
    assert section.gained_count == len(gained)


@pytest.fixture
def chosen_only(tmp_path: Path) -> Path:
    race(tmp_path, Plan(trains=False, values={"rds_plus": 0.7}, seeds=(0,)))
    return tmp_path


def test_a_run_without_training_says_so_in_every_section(chosen_only: Path) -> None:
    path = write_report(chosen_only)
    text = read(path)
    assert re.findall(r'<section id="(\w+)"', path.read_text(encoding="utf-8")) == SECTIONS
    for line in (
        "Nothing was trained or evaluated in this run",
        "No results: this run trained and evaluated nothing",
        "nothing to set against the cost",
        "One method only",
        "Nothing was trained in this run.",
        "Nothing was evaluated in this run.",
    ):
        assert line in text


def test_what_was_pruned_is_said(chosen_only: Path) -> None:
    store = Store.open(chosen_only)
    for artifact in list(store.artifacts()):
        if artifact.stage == "select":
            shutil.rmtree(artifact.folder)
    text = read(write_report(chosen_only))
    assert "1 artifact of this run is in the store no more; what depends on it is missing below." in text
    assert text.count("No selection of this run is in the store.") >= 3


def test_a_pruned_target_set_leaves_the_cards(chosen_only: Path) -> None:
    store = Store.open(chosen_only)
    for artifact in list(store.artifacts()):
        if "target" in str(artifact.manifest["params"].get("name")):
            shutil.rmtree(artifact.folder)
    found = collect(chosen_only, None)
    assert len(found.cards) == 20
    assert all(card.target is None and card.target_row is not None for card in found.cards)
    assert re.search(r"Target \d+ is not in the store", read(write_report(chosen_only)))


def test_a_run_that_has_not_ended_or_has_no_stages(tmp_path: Path) -> None:
    race(tmp_path, Plan(trains=False), ended=False)
    assert "Took so far" in read(write_report(tmp_path, "20260301"))
    report_home.start(tmp_path, "20260302T030000-bbbbbbbb").log.end("failed", error="OSError: no space left")
    text = read(write_report(tmp_path, "20260302"))
    assert "The run ended with an error: OSError: no space left" in text
    assert "The log has no stage of this run." in text


def test_a_run_is_named_by_its_beginning(raced: Path, tmp_path: Path) -> None:
    runs = ["20260301T030000-aaaaaaaa", "20260302T030000-bbbbbbbb", "20260302T040000-cccccccc"]
    for run in runs:
        report_home.start(tmp_path, run).log.end("failed" if run == runs[2] else "done")
    assert write_report(tmp_path).parent.name == runs[1]  # the last that ended well
    assert write_report(tmp_path, "20260302T04").parent.name == runs[2]
    assert write_report(tmp_path, runs[0]).parent.name == runs[0]
    with pytest.raises(InputError, match=r"2 runs in .* begin with '20260302': .*; give more of the id"):
        write_report(tmp_path, "20260302")
    with pytest.raises(
        InputError, match=r"begins with 'x'; the last runs are 20260302T040000-cccccccc \(nightly, failed\)"
    ):
        write_report(tmp_path, "x")
    with pytest.raises(InputError, match="begins with ''"):
        write_report(tmp_path, "")


def test_where_there_is_no_run_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no runs; give the home of a run"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    Store.open(tmp_path)
    with pytest.raises(InputError, match=r"no run in .* has ended well.*there are no runs yet"):
        write_report(tmp_path)


def queries_of(report: Path) -> Iterator[str]:
    yield from re.findall(r'<pre class="code">(SELECT.*?)</pre>', report.read_text(encoding="utf-8"), re.DOTALL)


def test_every_query_of_the_page_answers(raced: Path, report: Path) -> None:
    queries = [html.unescape(query) for query in queries_of(report)]
    assert len(queries) == 5
    for query in queries:
        assert catalogue.query(raced, query).num_rows > 0


def test_how_to_do_it_again(raced: Path, chosen_only: Path, report: Path) -> None:
    assert f"winnow run nightly.yaml --home {raced}" in read(report)
    assert "synthesize: world" in read(report)
    log = report_home.start(chosen_only, "20260303T030000-dddddddd").log
    log.start(recipe="select", command="select", recipe_text="pool: [a.jsonl]", version="0.1.0")
    text = read(write_report(chosen_only, log.run))
    assert "This run is a winnow select with the arguments listed at the end of this page." in text
    assert "Arguments pool: [a.jsonl]" in text
    log = report_home.start(chosen_only, "20260304T030000-eeeeeeee").log
    log.start(recipe="exam", command="evaluate", recipe_text="tasks: []", version="0.1.0")
    assert f"winnow evaluate exam.yaml --home {chosen_only}" in read(write_report(chosen_only, log.run))


def test_methods_have_hues_of_their_own(facts: Facts) -> None:
    hues = hues_of(facts)
    assert hues["balanced_random"] == "hc"
    coloured = {hues[method] for method in ("rds_plus", "top_k", "length")}
    assert coloured == {"h1", "h2", "h3"}


def test_a_large_run_stays_small(tmp_path: Path) -> None:
    giant = "<b>" + "x & y " * 8_000
    methods = {f"length(unit={i})": 0.3 for i in range(15)}
    extra = tuple(report_home.example(giant + str(i), giant, "s" * 5000, skill="k" * 5000) for i in range(25))
    plan = Plan(extra=extra, n=5, values={**methods, "balanced_random": 0.4}, budgets=(25,), seeds=(0,), items=20)
    race(tmp_path, plan)
    path = write_report(tmp_path)
    assert path.stat().st_size < 2_000_000
    assert "left out here" in read(path)

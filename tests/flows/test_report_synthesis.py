"""What the report says of synthesized rows, against the tables it is made from."""

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import synthesis_home as made
from report_home import Plan, race, start
from test_report_escaping import ATTACKS, EVERYTHING, Shape, opened
from test_report_escaping import browser as chromium  # noqa: F401

from flows.recipes import Source, Spend
from flows.report import write_report
from flows.report.facts import collect
from flows.report.made import Synthesis
from flows.report.synthesis_rows import MOST
from flows.report.text import visible
from flows.run import Run, Silent
from flows.synth.asked import Synthesis as Asked
from flows.synth.spend import Purse
from flows.synth.stage import Kitchen, synthesize
from flows.voices import Here
from flows.workers import HereWorkers
from models.canned import CannedModel
from models.dialogue import Accepted, Rejected
from models.protocol import Prompt
from synthesis.r_tuning import RTuning
from warehouse.ask import ask
from warehouse.records import Example, Message
from warehouse.runs import StageRecord
from warehouse.store import Work
from warehouse.tables import DROPS


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with synthesized rows; read it, never write to it."""
    folder = tmp_path_factory.mktemp("synthesized") / "home"
    made.synthesized(folder)
    return folder


@pytest.fixture(scope="module")
def report(home: Path) -> Path:
    return write_report(home)


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, Synthesis]:
    return {each.title: each for each in collect(home, None).made.syntheses}


def section(page: str) -> str:
    return page[page.index('<section id="synthesis"') : page.index("</section>", page.index('<section id="synthesis"'))]


def test_every_step_of_the_funnel_accounts_for_its_rows(found: dict[str, Synthesis]) -> None:
    dart = found["dart"]
    assert (dart.seeds, dart.made, dart.accepted, dart.refused) == (40, 203, 103, 100)
    assert {r.reason: r.rows for r in dart.refusals} == {"wrong": 97, "filtered": 1, "no_question": 1, "unreachable": 1}
    assert sum(refusal.share for refusal in dart.refusals) == pytest.approx(100 / 203)
    for one in found.values():
        assert one.accepted + one.refused == one.made
        assert one.pooled is not None
        assert one.pooled.rows == one.accepted
        assert one.kept + sum(one.pooled.dropped.values()) == one.pooled.rows
    assert dart.pooled is not None
    assert dart.pooled.dropped == {"exact_duplicate": 3, "length": 1}
    assert found["s3ft"].kept == 40


def test_the_bill_is_the_sum_of_all_tries(home: Path, found: dict[str, Synthesis]) -> None:
    bill = found["dart"].bill
    assert bill is not None
    (tries,) = ask(home, f"SELECT count(*), sum(cost_usd) FROM attempts WHERE generation = '{found['dart'].key}'").rows
    assert bill.all.tries == tries[0]
    assert bill.all.usd == pytest.approx(tries[1])
    assert bill.all.requests == made.QUESTIONS * made.TRIES * 2 + 2
    assert bill.replies == bill.all.requests - 1  # one endpoint was gone
    assert bill.all.failed == sum(each.tries for each in bill.ended if each.outcome in ("throttle", "transient"))
    assert {sums.model for sums in bill.by_model} == {made.SAMPLER, made.JUDGE}


def test_a_model_without_prices_has_no_dollars(report: Path, found: dict[str, Synthesis]) -> None:
    bill = found["s3ft"].bill
    assert bill is not None
    assert bill.all.usd is None
    assert bill.by_model[0].model == "on this machine"
    assert "No try has a price." in section(report.read_text())


def test_a_synthesis_without_a_model_shows_its_funnel_alone(report: Path, found: dict[str, Synthesis]) -> None:
    tint = found["tint"]
    assert (tint.bill, tint.novelty, tint.groups, tint.table) == (None, None, (), None)
    part = section(report.read_text()).split('<h3 id="synthesis-3">')[1]
    assert "of the 30 accepted or refused" in part
    assert "<h4" not in part


def test_where_no_model_was_asked_there_is_no_section(tmp_path: Path) -> None:
    race(tmp_path / "raced", Plan(n=20, seeds=(0,), budgets=(5,), values={"length": 0.5}, trains=False))
    maker = start(tmp_path / "tint", "20260301T030000-cccccccc")
    made.without_model(maker)
    for folder in ("raced", "tint"):
        page = write_report(tmp_path / folder, "20260301T030000").read_text()
        assert 'id="synthesis"' not in page
        assert "generations" not in page


def test_the_section_leads_where_nothing_was_evaluated_and_ids_are_unique(report: Path) -> None:
    page = report.read_text()
    assert re.findall(r'<section id="(\w+)"', page) == ["synthesis", "funnel", "timings", "again"]
    assert "Rows were made in this run; nothing was chosen, trained or evaluated." in page
    assert '<pre class="code">winnow synth run apples.yaml --home' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for described in re.findall(r'aria-labelledby="([^"]+)"', page):
        assert set(described.split()) <= set(ids)


def test_prompt_reply_and_row_stand_side_by_side_for_every_reason(report: Path, found: dict[str, Synthesis]) -> None:
    groups = {group.reason: group for group in found["dart"].groups}
    assert set(groups) == {"", "wrong", "filtered", "no_question", "unreachable"}
    assert {reason: len(group.rows) for reason, group in groups.items()} == {
        "": MOST, "wrong": MOST, "filtered": 1, "no_question": 1, "unreachable": 1,
    }  # fmt: skip
    for shown in (*groups[""].rows, *groups["wrong"].rows):
        sampled, judged = shown.heard
        assert (sampled.model, judged.model) == (made.SAMPLER, made.JUDGE)
        assert sampled.prompt is not None
        assert shown.row is not None
        assert sampled.prompt.turns[-1].text == shown.row.turns[0].text
        assert sampled.reply == shown.row.turns[-1].text
    (gone,) = groups["unreachable"].rows
    assert (gone.heard[0].note, gone.heard[0].prompt) == ("no reply", None)
    assert gone.heard[0].reply.head.startswith("server or network fault: HTTP 429")
    assert groups["no_question"].rows[0].heard == ()
    assert "No reply of a model is noted for it." in section(report.read_text())


def test_the_run_draws_the_rows(tmp_path: Path) -> None:
    first = made.synthesized(tmp_path)
    stages = start(tmp_path, first).log.stages()
    log = start(tmp_path, "20260301T030000-dddddddd").log
    for stage in stages:
        values = {name: value for name, value in stage.items() if name != "run"}
        log.stage(StageRecord(**values | {"dropped": json.loads(stage["dropped"]), "computed": False}))
    one, again, other = (collect(tmp_path, run).made.syntheses[0] for run in (first, first, log.run))
    assert one == again
    assert [group.of for group in other.groups] == [group.of for group in one.groups]
    assert other.groups[0].rows != one.groups[0].rows
    assert "Found in the cache" in write_report(tmp_path, log.run).read_text()


def test_a_row_that_others_have_too_is_counted_once(tmp_path: Path) -> None:
    maker = start(tmp_path, made.RUN)
    twin = Example((Message("user", "What is 2 + 3?"), Message("assistant", "5")), "twins", {"parents": []})
    models = {"generator": made.SAMPLER}
    one = made.synthesis(maker, "one", [(Accepted(twin), ()), (Accepted(twin), ())], models=models)
    elsewhere = Example(twin.messages, "a file")
    whole = made.pool(maker, "p", [elsewhere, *made.accepted(one), *made.accepted(one)], [one.key])
    made.cleaned(maker, whole, {"exact_duplicate": [1, 2, 3, 4]})
    (found,) = collect(tmp_path, made.RUN).made.syntheses
    assert found.pooled is not None
    assert (found.pooled.rows, found.pooled.dropped, found.kept) == (2, {"exact_duplicate": 2}, 0)


def test_the_first_filter_that_finds_a_row_has_dropped_it(tmp_path: Path) -> None:
    maker = start(tmp_path, made.RUN)
    rows = [Example((Message("user", f"{i}?"), Message("assistant", "5")), "s", {}) for i in range(4)]
    one = made.synthesis(maker, "one", [(Accepted(row), ()) for row in rows], models={"generator": "m"})
    whole = made.pool(maker, "p", made.accepted(one), [one.key])
    made.cleaned(maker, whole, {"length": [0, 1]})
    work = Work("overlap", 1, {}, {"pool": whole.key})
    drops = [
        {"cleaning": work.key, "pool": whole.key, "row": row, "sample_id": "x", "filter": "overlap", "reason": "r"}
        for row in (1, 2, 2)
    ]
    maker.stage("overlap", work, {"drops": (DROPS, drops)}, (2, 1))
    (found,) = collect(tmp_path, made.RUN).made.syntheses
    assert found.pooled is not None
    assert (found.pooled.dropped, found.kept) == ({"length": 2, "overlap": 1}, 1)


def test_seeds_that_were_pruned_leave_a_word(tmp_path: Path) -> None:
    made.synthesized(tmp_path)
    before = {each.title: each for each in collect(tmp_path, None).made.syntheses}
    for artifact in (tmp_path / "artifacts" / "ingest").iterdir():
        if before["dart"].pooled is None or artifact.name != before["dart"].pooled.pool:
            shutil.rmtree(artifact)
    after = {each.title: each for each in collect(tmp_path, None).made.syntheses}
    assert (after["dart"].novelty, after["dart"].bill) == (None, before["dart"].bill)
    assert "Its seeds are in the store no more." in section(write_report(tmp_path).read_text())


def test_prompts_of_the_seeds_own_are_told_from_new_ones(tmp_path: Path, found: dict[str, Synthesis]) -> None:
    novelty = found["dart"].novelty
    assert novelty is not None
    assert (novelty.rows, novelty.of, novelty.same, novelty.close) == (103, 103, 103, 103)
    assert (novelty.seeds, novelty.of_seeds) == (40, 40)
    assert novelty.median == pytest.approx(1.0)
    maker = start(tmp_path, made.RUN)
    seeds = made.pool(maker, "seeds", [Example((Message("user", "What is 2 + 3?"), Message("assistant", "5")), "s")])
    texts = ["What is 2 + 3?", "What is 2 + 4?", "Name the capital of Peru."]
    rows = [Example((Message("user", text), Message("assistant", "5")), "new", {}) for text in texts]
    made.synthesis(maker, "new", [(Accepted(row), ()) for row in rows], models={"generator": "m"}, seeds=seeds)
    new = collect(tmp_path, made.RUN).made.syntheses[0].novelty
    assert new is not None
    assert (new.rows, new.same, new.close, sum(new.counts)) == (3, 1, 2, 3)
    assert "66.7 % (2 of 3) are above 0.7, 33.3 % (1) have a seed" in section(
        write_report(tmp_path, made.RUN).read_text()
    )


def test_the_queries_of_the_page_answer(home: Path, report: Path) -> None:
    page = report.read_text()
    queries = [html.unescape(sql) for sql in re.findall(r'<pre class="code">(SELECT.*?)</pre>', page, re.DOTALL)]
    about = [sql for sql in queries if "generations" in sql or "rejects" in sql]
    assert len(about) == 3
    cost, why, beside = (list(ask(home, sql).rows) for sql in about)
    assert {row[0]: row[1] for row in cost} == {"dart": 103, "s3ft": 40, "tint": 30}
    assert Counter({row[1]: row[2] for row in why})["wrong"] == 97
    assert len(beside) == 20
    assert all(row[2] for row in beside)


def test_a_real_synthesis_is_told_as_it_went(tmp_path: Path) -> None:
    """Seeds 0 to 9, of which the model knows the even ones; 3 samples besides the greedy answer."""
    maker = start(tmp_path, made.RUN)
    questions = [
        Example((*made.asked(f"What is {i} + 1?").messages, Message("assistant", f"{i + 1}")), "q") for i in range(10)
    ]
    seeds = made.pool(maker, "p seeds", questions)

    def reply(prompt: Prompt) -> str:
        number = int(prompt.messages[-1].content.split()[2])
        return f"{number + 1 + number % 2}"

    job, voices = RTuning(samples=3), {"learner": Here("a canned model", CannedModel(reply))}
    asked = Asked(Source.model_construct(synthesize="r_tuning", params={"samples": 3}), job, voices, {})
    kitchen = Kitchen({}, Purse.of(Spend()), 0)
    synthesize(Run(maker.store, maker.log, Silent()), "synthesize p", asked, seeds, kitchen, HereWorkers())
    (found,) = collect(tmp_path, made.RUN).made.syntheses
    assert (found.seeds, found.accepted, found.models) == (10, 10, {"learner": "a canned model"})
    assert found.bill is not None
    assert (found.bill.all.requests, found.bill.all.tries, found.bill.replies) == (40, 40, 40)
    assert found.table is not None
    assert found.table.rows == (("sure", "5", "50.0 %", "0"), ("unsure", "5", "50.0 %", "0"))
    shown = found.groups[0].rows[0]
    assert (len(shown.heard), shown.more) == (3, 1)
    assert shown.heard[0].prompt is not None
    assert shown.heard[0].prompt.turns[-1].text.head.startswith("What is")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a synthesis in which every text from outside is an attack."""
    folder = tmp_path_factory.mktemp("hostile") / "home"
    maker, notebook, rows = start(folder, made.RUN), made.Notebook(), list[made.Made]()
    for number, attack in enumerate(ATTACKS):
        text = f"{attack}\n{EVERYTHING}"
        key = notebook.ask(f"k{number}", attack, text, text, ("throttle", "ok"))
        gone = notebook.ask(f"g{number}", attack, text, None, (attack,))
        row = Example((Message("user", text), Message("assistant", text)), attack, {"recipe": attack, "odd": text})
        rows += [(Accepted(row), (key, gone)), (Rejected(attack, text, row), (gone,))]
    seeds = made.pool(maker, ATTACKS[0], [Example((Message("user", a), Message("assistant", a)), a) for a in ATTACKS])
    one = made.synthesis(maker, ATTACKS[3], rows, notebook, {ATTACKS[0]: ATTACKS[1]}, seeds, {"x": ATTACKS[2]})
    whole = made.pool(maker, ATTACKS[1], made.accepted(one), [one.key])
    made.cleaned(maker, whole, {ATTACKS[0]: [0]})
    return write_report(folder, made.RUN)


def test_hostile_texts_add_no_element_and_no_attribute(hostile: Path, report: Path) -> None:
    theirs, ours = Shape.of(hostile), Shape.of(report)
    assert theirs.tags <= ours.tags
    assert theirs.attributes <= ours.attributes
    assert {link for link in theirs.links if not link.startswith("#")} == {"data:,"}
    assert theirs.scripts == 1
    page = hostile.read_text(encoding="utf-8")
    assert visible(page) == page
    text = "".join(theirs.text)
    for attack in ATTACKS[:-2]:
        assert visible(attack) in text


def test_the_page_stays_small(tmp_path: Path) -> None:
    maker, notebook, rows = start(tmp_path, made.RUN), made.Notebook(), list[made.Made]()
    long = "word " * 4_000
    for number in range(80):
        keys = tuple(notebook.ask(f"{number}-{part}", "m", long, long) for part in range(6))
        row = Example((Message("user", f"{number} {long}"), Message("assistant", long)) * 5, "s", {"notes": long})
        rows.append((Accepted(row) if number % 2 else Rejected(f"reason_{number % 40}", long, row), keys))
    made.synthesis(maker, "long", rows, notebook, {"generator": "m"})
    path = write_report(tmp_path, made.RUN)
    assert path.stat().st_size < 2_000_000
    (one,) = collect(tmp_path, made.RUN).made.syntheses
    assert len(one.groups) == 1 + 20
    assert "left out here; the warehouse has the whole text" in path.read_text()


@pytest.mark.engine
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("page", ["report", "hostile"])
def test_in_a_browser_nothing_leaves_its_place(request: pytest.FixtureRequest, page: str, width: int) -> None:
    browser = request.getfixturevalue("chromium")
    opened(browser, request.getfixturevalue(page), width)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.execute_script("return window.pwned === undefined")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    outside = browser.execute_script(
        """return [...document.querySelectorAll("#synthesis svg.chart text")].filter((text) => {
             const box = text.getBoundingClientRect(), chart = text.closest("svg.chart").getBoundingClientRect();
             return box.left < chart.left - 1 || box.right > chart.right + 1
                 || box.top < chart.top - 3 || box.bottom > chart.bottom + 3;
           }).map((text) => text.textContent)"""
    )
    assert outside == []

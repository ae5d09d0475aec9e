"""Rows are written by strangers: whatever they hold, the page keeps its own shape and runs nothing of theirs."""

import json
import os
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_home
from report_home import Plan, race

from flows.report import write_report
from flows.report.text import visible

BINARY, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

ATTACKS = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "</style><script>window.pwned = 3</script>",
    "</title></svg></textarea><img src=x onerror='window.pwned = 4'>",
    "\" onmouseover=\"window.pwned = 5\" x=\"",
    "' autofocus onfocus='window.pwned = 6",
    "<svg onload=window.pwned=7><animate onbegin=window.pwned=8>",
    "<iframe srcdoc='<script>parent.pwned = 9</script>'></iframe>",
    "[click](javascript:window.pwned=10) ![x](http://127.0.0.1:9/pixel.png)",
    "<a href=\"javascript:window.pwned=11\">x</a><base href='http://127.0.0.1:9/'>",
    "<!-- --><script>window.pwned = 12</script><!--",
    "{{ 7 * 7 }}{% raw %}${window.pwned=13}",
    "]]><style>@import 'http://127.0.0.1:9/x.css'; * { display: none }</style>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css><meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "&lt;script&gt; stays &amp; as it is",
    "annex\u202egnp.exe \x00\x1b[31m \u200b\u2066 \ufeff \U000e0041",
    "e" + "\u0301" * 300,
    "W" * 2_000,
]  # fmt: skip
EVERYTHING = "\n".join(ATTACKS[:-2])


class Shape(HTMLParser):
    """Elements and attributes of a page, and all its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.text: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @classmethod
    def of(cls, path: Path) -> "Shape":
        shape = cls()
        shape.feed(path.read_text(encoding="utf-8"))
        return shape


def hostile_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A race in which every text that comes from outside is an attack; the path of its report."""
    rows = [
        report_home.example(f"{attack} {i}", f"{attack}\n{EVERYTHING}", attack, skill=attack, noise=attack)
        for i, attack in enumerate(ATTACKS * 3)
    ]
    monkeypatch.setattr(report_home, "TASK", ATTACKS[0])
    monkeypatch.setattr(report_home, "TARGET", EVERYTHING)
    monkeypatch.setattr(report_home, "QUESTION", EVERYTHING)
    monkeypatch.setattr(report_home, "VERDICT", EVERYTHING)
    monkeypatch.setattr(report_home, "RECIPE", EVERYTHING)
    monkeypatch.setattr(
        report_home, "reason", lambda method, rank: f"target={rank % 12} task={ATTACKS[rank % len(ATTACKS)]}"
    )
    methods = {f"length(x={attack})": 0.5 for attack in ATTACKS[:3]}
    plan = Plan(extra=tuple(rows), n=0, budgets=(20,), seeds=(0,), values={**methods, "balanced_random": 0.4}, items=20)
    run = race(home, plan, ended=False)
    log = report_home.start(home, run, recipe=ATTACKS[2], text=EVERYTHING).log
    log.end("failed", error=EVERYTHING)
    return write_report(home, run)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return hostile_home(tmp_path_factory.mktemp("hostile") / "home", monkeypatch)


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tame") / "home"
    race(home, Plan(n=120, budgets=(20,), seeds=(0,), items=20))
    return write_report(home)


def test_hostile_rows_add_no_element_and_no_attribute(hostile: Path, tame: Path) -> None:
    theirs, ours = Shape.of(hostile), Shape.of(tame)
    assert theirs.tags <= ours.tags
    assert theirs.attributes <= ours.attributes
    assert not {name for name in theirs.attributes if name.startswith("on") or name in ("style", "src", "srcdoc")}
    assert theirs.links == ours.links
    assert theirs.scripts == 1


def test_hostile_rows_are_shown_as_they_are(hostile: Path) -> None:
    text = "".join(Shape.of(hostile).text)
    for attack in ATTACKS[:-2]:
        assert visible(attack) in text


def test_nothing_hidden_is_left_in_the_page(hostile: Path) -> None:
    page = hostile.read_text(encoding="utf-8")
    assert visible(page) == page
    assert "annex⟨U+202E⟩gnp.exe ⟨U+0000⟩⟨U+001B⟩[31m" in page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if BINARY is None or DRIVER is None:
        message = "no chromium and chromedriver on this machine: the report was not opened in a browser"
        if os.environ.get("WINNOW_TESTS_STRICT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BINARY
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, path: Path, width: int, *, scripts: bool = True) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())


def requests_of(browser: Any) -> list[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.mark.engine
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_runs_nothing_of_theirs(browser: Any, hostile: Path, width: int) -> None:
    opened(browser, hostile, width)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.execute_script("return window.pwned === undefined")
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith(("data:", hostile.as_uri()))] == []


@pytest.mark.engine
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("page", ["tame", "hostile"])
def test_no_text_of_a_chart_leaves_it(browser: Any, request: pytest.FixtureRequest, page: str, width: int) -> None:
    opened(browser, request.getfixturevalue(page), width)
    outside = browser.execute_script(
        """return [...document.querySelectorAll("svg.chart text")].filter((text) => {
             const box = text.getBoundingClientRect(), chart = text.closest("svg.chart").getBoundingClientRect();
             return box.left < chart.left - 1 || box.right > chart.right + 1
                 || box.top < chart.top - 3 || box.bottom > chart.bottom + 3;
           }).map((text) => text.textContent)"""
    )
    assert outside == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.engine
def test_tables_are_sorted_and_cards_filtered_by_a_click(browser: Any, tame: Path) -> None:
    opened(browser, tame, 1200)
    table = "document.querySelector('#results table')"
    first = f"return {table}.tBodies[0].rows[0].cells[0].textContent.trim()"
    assert browser.execute_script(first) == "rds_plus"
    for expected in ("rds_plus", "base model"):  # descending, then ascending, by the value
        browser.execute_script(f"{table}.tHead.rows[0].cells[2].querySelector('button').click()")
        assert browser.execute_script(first) == expected
    assert browser.execute_script(f"return {table}.tHead.rows[0].cells[2].ariaSort") == "ascending"
    shown = browser.execute_script(
        """const select = document.querySelector('#card-filter select');
           select.value = 'top_k';
           select.dispatchEvent(new Event('change'));
           return [...document.querySelectorAll('.card')].filter((c) => c.offsetParent).map((c) => c.dataset.method)"""
    )
    assert set(shown) == {"top_k"}


@pytest.mark.engine
def test_everything_is_there_without_scripts(browser: Any, tame: Path) -> None:
    from selenium.webdriver.common.by import By

    opened(browser, tame, 1200, scripts=False)
    assert browser.find_elements(By.CSS_SELECTOR, "thead button") == []
    assert len([card for card in browser.find_elements(By.CSS_SELECTOR, ".card") if card.is_displayed()]) == 20
    assert not browser.find_element(By.ID, "card-filter").is_displayed()

"""Texts, reasons and numbers as the report writes them, and its charts' arithmetic."""

import html
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report import charts, figures
from flows.report.cards import CARDS, ranks, shares
from flows.report.charts import Frame, Point, Scale
from flows.report.chosen import expected_jaccard
from flows.report.pages import FOLDER, environment
from flows.report.reasons import in_words, parsed, target_row
from flows.report.text import excerpt, flops, label, number, seconds, short, signed, visible

HIDDEN = "\x00\x1b\x7f\x85\u200b\u202e\u2066\u2028\ufeff\U000e0041"


@given(st.text())
def test_any_text_is_escaped_and_nothing_of_it_is_lost(text: str) -> None:
    page = environment().from_string('<p title="{{ text }}">{{ text }}</p>').render(text=text)
    found = re.fullmatch(r'<p title="([^"<>]*)">([^<>]*)</p>', page, re.DOTALL)
    assert found
    assert html.unescape(found[1]) == html.unescape(found[2]) == visible(text)


@given(st.text(alphabet=st.sampled_from(HIDDEN + "ab\n\t")))
def test_no_hidden_character_is_left(text: str) -> None:
    assert not set(visible(text)) & set(HIDDEN)
    assert visible(text).count("⟨U+") == sum(text.count(c) for c in HIDDEN)


def test_hidden_characters_are_spelled_out_and_joiners_stay() -> None:
    assert visible("a\u202eb\r\nc\rd") == "a⟨U+202E⟩b\nc⟨U+000D⟩d"
    assert visible("e" + "\u0301" * 9 + "x") == "e" + "\u0301" * 4 + "⟨5 more accents⟩x"
    family = "👩\u200d👩\u200d👧"
    assert visible(family) == family


@given(st.text(max_size=3000), st.integers(0, 300), st.integers(0, 900))
def test_an_excerpt_accounts_for_every_character(text: str, head: int, rest: int) -> None:
    part = excerpt(text, head, rest)
    assert text.startswith(part.head + part.rest)
    assert len(part.head) + len(part.rest) + part.left_out == len(text)


def test_an_excerpt_ends_at_a_word_and_not_inside_a_character() -> None:
    assert excerpt("river " * 100, 50, 0).head.endswith("river ")
    assert excerpt("x" * 49 + "e\u0301" + "y" * 100, 50, 0).head == "x" * 49 + "e\u0301"


def test_numbers() -> None:
    assert [number(x) for x in (0.7, -0.05, 0.0, -1e-17, 1234567.0, 2e-5, None, float("nan"))] == [
        "0.700", "−0.050", "0.000", "0.000", "1,234,567", "2e-05", "–", "–",
    ]  # fmt: skip
    assert [signed(x) for x in (0.3, -0.3, 1e-17)] == ["+0.300", "−0.300", "0.000"]
    assert [seconds(x) for x in (0.0, 0.213, 9.96, 14.2, 200.0, 7500.0)] == [
        "0 s", "0.21 s", "10 s", "14 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip
    assert [flops(x) for x in (0.0, 1.32e13, 999.0, None)] == ["0", "13.2 T", "999", "–"]
    assert short("rds_plus(policy=consume) · 1,000", 22) == "rds_plus(poli… · 1,000"
    assert short("rds_plus", 22) == "rds_plus"
    assert label("a\n b" + "c" * 200) == "a b" + "c" * 76 + "…"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("target=17 task=gsm8k round=3", "In round 3, target 17 of task gsm8k took this row: the nearest one left."),
        ("target=17 task=gsm8k", "The target nearest to it is number 17, of task gsm8k."),
        ("length=12120 unit=tokens", "It is 12,120 tokens long; this method takes the longest rows."),
        ("round=2 source=my rows", "In round 2 it was the turn of source my rows, which gave a row drawn at random."),
        ("draw=5", "Draw 5 of a random order; its content played no part."),
        ("cluster=9 gain=0.25", "The method also notes: cluster is 9, gain is 0.25."),
        ("distance=0.4", "It was the farthest from all rows taken before: its nearest was 0.4 away."),
        ("words=3 filled=short", "It has 3 words. It only fills the budget: it is too short to be judged."),
        ("filled=no_direction", "It only fills the budget: its vector has length 0."),
        ("because", "because"),
        ("", "The method gives no reason."),
    ],
)  # fmt: skip
def test_reasons_in_words(reason: str, words: str) -> None:
    assert in_words(reason) == words


def test_every_reason_the_methods_give_has_its_own_sentence() -> None:
    source = "".join(path.read_text() for path in (FOLDER.parents[2] / "selection").glob("*.py"))
    shapes = re.findall(r'f"((?:\w+=\{[^}]+\} ?)+)"', source)
    assert len(shapes) >= 4
    for shape in shapes:
        assert "The method also notes" not in in_words(re.sub(r"\{[^}]+\}", "1", shape)), shape


def test_every_reason_to_fill_the_budget_has_words() -> None:
    source = "".join(path.read_text() for path in (FOLDER.parents[2] / "selection").glob("*.py"))
    for why in set(re.findall(r"""["' ]filled=(\w+)["']""", source)):
        assert f"fills the budget: {why.replace('_', ' ')}" not in in_words(f"filled={why}").replace("_", " "), why


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9.]{1,8}", fullmatch=True)))
def test_a_reason_is_read_back(pairs: dict[str, str]) -> None:
    assert parsed(" ".join(f"{name}={value}" for name, value in pairs.items())) == pairs


def test_a_target_is_a_plain_number() -> None:
    assert target_row("target=17 task=x") == 17
    assert [target_row(text) for text in ("target=-1", "target=x", "draw=3", "target=" + "9" * 30)] == [None] * 4


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_cards_are_shared_out_over_all_scored_arms(scored: list[bool]) -> None:
    given_ = shares(scored)
    assert sum(given_) == CARDS
    mine = [n for n, has in zip(given_, scored, strict=True) if has]
    assert not mine or max(mine) - min(mine) <= 1
    if any(scored):
        assert all(n <= 1 for n, has in zip(given_, scored, strict=True) if not has)


@given(st.integers(1, 500), st.integers(0, 20))
def test_ranks_are_spread_from_the_first_to_the_last(rows: int, wanted: int) -> None:
    spread = ranks(rows, wanted)
    assert len(spread) == min(rows, wanted)
    assert all(1 <= rank <= rows for rank in spread)
    if len(spread) > 1:
        assert (spread[0], spread[-1]) == (1, rows)
    assert ranks(0, 3) == []


def test_expected_overlap_of_random_draws() -> None:
    assert expected_jaccard(10, 10) == 1
    assert expected_jaccard(50, 100) == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    draws = [[set(rng.permutation(400)[:80].tolist()) for _ in range(2)] for _ in range(400)]
    mean = np.mean([len(a & b) / len(a | b) for a, b in draws])
    assert expected_jaccard(80, 400) == pytest.approx(mean, abs=0.005)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_inside(low: float, width: float, about: int) -> None:
    scale = charts.span([low, low + width])
    ticks = scale.ticks(about)
    assert 1 <= len(ticks) <= 2.6 * about + 1
    slack = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    assert ticks == sorted(ticks)


@given(st.floats(1e-3, 1e20), st.floats(10, 1e9))
def test_log_ticks_are_inside(low: float, factor: float) -> None:
    scale = charts.span([low, low * factor], log=True)
    ticks = scale.ticks()
    assert ticks
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert charts.LEFT <= scale.at(low) < scale.at(low * factor) <= charts.RIGHT


POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(POINTS, st.booleans())
def test_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]], higher: bool) -> None:
    points = [Point("", "", float(x), float(v), float(v), float(v)) for x, v in pairs]
    sign = 1 if higher else -1
    front = {(p.x, p.value) for p in figures.pareto(points, higher)}
    beaten = {(x, v) for x, v in pairs if any(a <= x and sign * b >= sign * v and (a, b) != (x, v) for a, b in pairs)}
    assert front == set(pairs) - beaten


def numbers(pattern: str, svg: str) -> list[float]:
    return [float(x) for x in re.findall(pattern, svg)]


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=9), st.booleans())
@settings(max_examples=30)
def test_whiskers_stay_inside_and_hold_their_dots(values: list[float], zero: bool) -> None:
    rows = [charts.Interval("m", "t", "h1", v - 1, v, v + 2) for v in values]
    svg = charts.whiskers(Frame("x", "title", "about"), rows, zero=zero)
    lines = re.findall(r'class="whisker h1" x1="([\d.]+)%" x2="([\d.]+)%"', svg)
    dots = numbers(r'cx="([\d.]+)%"', svg)
    assert len(lines) == len(dots) == len(values)
    for (low, high), dot in zip(lines, dots, strict=True):
        assert 0 <= float(low) < dot < float(high) <= 100
    assert ('class="zero"' in svg) == zero


def test_bars_of_a_histogram_are_as_high_as_their_counts() -> None:
    svg = charts.histogram(Frame("x", "t", "a"), [0, 1, 2, 3], [0, 1, 4], [8, 2, 4], 1.5, "h1")
    assert numbers(r'class="bin pool"[^/]*height="([\d.]+)"', svg) == [72, 18, 36]
    assert numbers(r'class="bin h1"[^/]*height="([\d.]+)"', svg) == [9, 36, 18, 72]


def test_names_of_a_scatter_chart_do_not_meet() -> None:
    points = [Point(f"method {i}", "h1", 10.0, 0.4, 0.5 + i / 1000, 0.6) for i in range(5)]
    scale = Scale(0, 20), Scale(0.4, 0.6, 300, 20)
    heights = sorted(part.y for part in charts.beside(points, *scale))
    assert all(b - a >= 14 for a, b in pairwise(heights))


def colours(css: str) -> dict[str, tuple[int, ...]]:
    return {name: rgb(value) for name, value in re.findall(r"--([\w]+): (#[0-9a-f]{3,6});", css)}


def rgb(value: str) -> tuple[int, ...]:
    digits = value[1:] if len(value) == 7 else "".join(2 * c for c in value[1:])
    return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))


def contrast(a: Sequence[int], b: Sequence[int]) -> float:
    """The ratio of WCAG 2.2, 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: Sequence[int]) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_from_their_ground(theme: str) -> None:
    light, dark = (FOLDER / "style.css").read_text().split("@media (prefers-color-scheme: dark)")
    palette = colours(light) if theme == "light" else colours(light) | colours(dark.split("\n}")[0])
    for name in ("ink", "soft", "link", "good", "bad", "open"):
        assert contrast(palette[name], palette["ground"]) >= 4.5, name
        assert contrast(palette[name], palette["panel"]) >= 4.5, name
    heat = [round(0.54 * a + 0.46 * b) for a, b in zip(palette["heat"], palette["panel"], strict=True)]
    assert contrast(palette["ink"], heat) >= 4.5
    for name in [f"h{i}" for i in range(1, 9)] + ["hc", "hr", "hb"]:
        assert contrast(palette[name], palette["ground"]) >= 3, name


def test_the_docs_name_every_section() -> None:
    titles = re.findall(r'^  \("\w+", "([^"]+)"', (FOLDER / "page.html.j2").read_text(), re.MULTILINE)
    docs = (Path(FOLDER).parents[2] / "docs" / "report.md").read_text()
    assert len(titles) == 15
    assert not [title for title in titles if f"**{title}**" not in docs]

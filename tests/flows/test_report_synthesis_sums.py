"""The arithmetic behind what the report says of synthesized rows: sums, quantiles, similarities, words."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, get_args

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report.book import Book
from flows.report.synthesis_bill import Bill, bill_of
from flows.report.synthesis_methods import fact_table, recipes_of
from flows.report.synthesis_novelty import nearest
from flows.report.synthesis_reasons import OUTCOMES, ended_as, refused_because
from models.endpoint.outcomes import Kind
from models.protocol import Failure
from models.verify.checked import ALL_REASONS
from synthesis.attempts import LOST, UNUSABLE
from synthesis.table import SYNTHESIZERS
from warehouse.tables import ATTEMPTS, GENERATIONS, REPLIES, SYNTHESIS_REJECTS


def test_every_reason_and_every_outcome_has_words() -> None:
    of_synthesizers = {reason for made_ in SYNTHESIZERS.values() for reason in getattr(made_, "reasons", ())}
    known = of_synthesizers | ALL_REASONS | LOST | UNUSABLE | set(get_args(Failure)) - {""}
    assert {reason for reason in known if refused_because(reason) == reason.replace("_", " ")} == set()
    assert OUTCOMES.keys() == {*get_args(Kind), ""}
    assert max(map(len, OUTCOMES.values())) <= 34  # what a bar has room for
    assert (refused_because("not_known"), ended_as("odd_end")) == ("not known", "another end")
    assert refused_because("judge_empty") == "asking the judge: the reply was empty"


def book_of(**tables: tuple[Any, Sequence[dict[str, Any]]]) -> Book:
    """Tables in memory in the place of the catalogue's views."""
    connection = duckdb.connect()
    for name, (schema, rows) in tables.items():
        connection.register(name, pa.Table.from_pylist(list(rows), schema=schema))
    return Book(Path(), "run", connection, ())


TRIES = st.lists(
    st.fixed_dictionaries(
        {
            "reply": st.sampled_from("abcd"),
            "model": st.sampled_from(["m", "n", None]),
            "outcome": st.sampled_from([*get_args(Kind), ""]),
            "seconds": st.none() | st.floats(0, 600),
            "prompt_tokens": st.integers(0, 9) | st.none(),
            "completion_tokens": st.integers(0, 9),
            "cost_usd": st.none() | st.floats(0, 1),
        }
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(TRIES)
def test_sums_by_model_and_by_outcome_add_up(tries: list[dict[str, Any]]) -> None:
    other = {"generation": "other", "reply": "z", "model": "m", "outcome": "ok", "seconds": 9.0, "cost_usd": 5.0}
    rows = [one | {"generation": "g"} for one in tries]
    bill = bill_of(book_of(attempts=(ATTEMPTS, [*rows, other]), replies=(REPLIES, [])), "g")
    if not tries:
        assert bill is None
        return
    assert bill is not None
    whole = bill.all
    assert whole.tries == len(tries) == sum(m.tries for m in bill.by_model) == sum(e.tries for e in bill.ended)
    assert whole.tokens == sum((one["prompt_tokens"] or 0) + one["completion_tokens"] for one in tries)
    costs = [one["cost_usd"] for one in tries if one["cost_usd"] is not None]
    assert whole.usd == (pytest.approx(sum(costs)) if costs else None)
    timed = [one["seconds"] for one in tries if one["seconds"] is not None]
    assert whole.timed == len(timed)
    assert_latency(bill, timed)


def assert_latency(bill: Bill, timed: Sequence[float]) -> None:
    """The histogram holds every try, and its quantiles are NumPy's."""
    if not timed:
        assert bill.latency is None
        return
    latency = bill.latency
    assert latency is not None
    assert sum(latency.counts) == latency.n == len(timed)
    assert [latency.p50, latency.p95] == pytest.approx(np.quantile(timed, [0.5, 0.95]).tolist())
    assert len(latency.edges) == len(latency.counts) + 1
    assert all(a < b for a, b in pairwise(latency.edges))


def grams(text: str) -> set[str]:
    padded = f" {' '.join(text.casefold().split())} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}


def test_similarity_is_that_of_sets_of_trigrams() -> None:
    texts = ["How many apples are there?", "how  many pears are there?", "Name a river in Peru.", "x"]
    seeds = ["How many apples are there?", "Name a lake in Chile."]
    expected = [max(len(grams(a) & grams(b)) / math.sqrt(len(grams(a)) * len(grams(b))) for b in seeds) for a in texts]
    assert nearest(texts, seeds) == pytest.approx(expected, abs=0.02)
    assert nearest(texts, texts) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab c", min_size=1), min_size=1, max_size=8), st.randoms())
def test_more_seeds_never_make_a_prompt_newer(texts: list[str], random: Random) -> None:
    some, all_ = texts[: 1 + len(texts) // 2], list(texts)
    random.shuffle(all_)
    asked = ["abc", *texts]
    assert (nearest(asked, all_) >= nearest(asked, some) - 1e-6).all()
    assert nearest(asked, all_) == pytest.approx(nearest(asked, texts))


REJECTED = pa.schema([*SYNTHESIS_REJECTS, pa.field("pool", pa.string())])


def rows_of(metas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of synthesis "g" with this meta; a `reason` is taken out of it."""
    told = [{name: value for name, value in meta.items() if name != "reason"} for meta in metas]
    return [
        {"generation": "g", "pool": "g", "reason": meta.get("reason"), "meta": json.dumps(rest)}
        for meta, rest in zip(metas, told, strict=True)
    ]


Cells = tuple[tuple[str, ...], ...]


def table_of(synthesizer: str, accepted: Sequence[dict[str, Any]], refused: Sequence[dict[str, Any]] = ()) -> Cells:
    book = book_of(generations=(GENERATIONS, rows_of(accepted)), rejects=(REJECTED, rows_of(refused)))
    table = fact_table(book, synthesizer, "g")
    return () if table is None else table.rows


def test_coverage_counts_every_question_once() -> None:
    def query(name: str, kept: int, target: int, wrong: float) -> dict[str, Any]:
        return {"query_id": name, "kept": kept, "target": target, "difficulty": wrong, "trials": 8}

    easy, hard, never = query("a", 2, 1, 1 - 0.9), query("b", 1, 4, 0.95), query("c", 0, 4, 1.0)
    trial = {"query_id": "a", "draw": 3, "reason": "wrong"}
    assert table_of("dart", [easy, easy, hard], [trial, never | {"reason": "uncovered"}]) == (
        ("10 to 20 %", "1", "100.0 %", "100.0 %", "2.000", "8.000"),
        ("90 to 100 %", "2", "50.0 %", "0.0 %", "0.500", "8.000"),
    )
    assert table_of("dart", [], [trial]) == ()
    assert table_of("eda", [easy]) == ()


def test_who_is_sure_is_counted() -> None:
    sure = [{"sure": True}] * 3 + [{"sure": False}]
    over = [{"sure": False, "reason": "over_share"}]
    assert table_of("r_tuning", sure, over) == (("sure", "3", "75.0 %", "0"), ("unsure", "1", "25.0 %", "1"))


def test_whose_words_are_counted() -> None:
    words = [{"source": source} for source in ("self", "gold", "self")]
    assert table_of("s3ft", words, [{"source": "gold", "reason": "empty"}]) == (
        ("the model's own answer", "2", "66.7 %"),
        ("the gold reply", "1", "33.3 %"),
    )


def test_recipes_are_charged_for_what_they_asked() -> None:
    one = [{"recipe": "one", "judge_score": mark} for mark in (4, 5)]
    refused = [{"recipe": "one", "reason": "similar"}, {"recipe": "one", "reason": "not_used"}]
    tries = [
        {"generation": key, "reply": "r", "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.5} for key in "ggh"
    ]
    two = [row | {"generation": "h"} for row in rows_of([{"recipe": "two"}])]
    three = [row | {"pool": "i"} for row in rows_of([{"recipe": "three", "reason": "wrong"}])]
    book = book_of(
        generations=(GENERATIONS, [*rows_of(one), *two]),
        rejects=(REJECTED, [*rows_of(refused), *three]),
        attempts=(ATTEMPTS, tries),
    )
    table = recipes_of(book, ["g", "h", "i"])
    assert table is not None
    assert table.rows == (
        ("one", "3", "2 (66.7 %)", "33.3 %", "4.500 (2)", "2", "15.000", "0.500"),
        ("two", "1", "1 (100.0 %)", "0.0 %", "–", "1", "15.000", "0.500"),
        ("three", "1", "0 (0.0 %)", "0.0 %", "–", "–", "–", "–"),
    )
    assert recipes_of(book, ["none"]) is None

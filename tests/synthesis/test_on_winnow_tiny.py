"""Synthesizers with the real model, its trainer, the response store and the verifiers, through the flows."""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.synthesis_here import WORDINGS, Home, Tuned, different, worded
from benchmarks.synthesis_unsure import Facts, facts, is_taught, split
from eval.calibration import wilson
from flows.synth.spend import STORE
from warehouse.records import Example

TAUGHT, ASKED, BUDGET = 96, 30, 240
TESTED = 10  # problems a tuned model is tested on: the tests here are about what it makes
DART = {
    "strategy": "prop2diff", "k": 3, "pilot": 4, "verifier": "numeric", "max_tokens": 24, "budget": BUDGET,
    "max_trials": 24,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Here:
    """A home with a learner that is right about some of `asked`."""

    home: Home
    learner: Tuned
    asked: Sequence[Example]

    def source(self, synthesizer: str, params: Mapping[str, Any]) -> dict[str, Any]:
        seeds = [self.home.file("asked", self.asked)]
        return {
            "synthesize": synthesizer, "seeds": seeds, "models": {"learner": self.learner.path}, "params": dict(params)
        }  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    home = Home(tmp_path_factory.mktemp("home"), TESTED)
    rng = np.random.default_rng(0)
    rows = [worded(row, rng, WORDINGS[:4]) for row in different(5, TAUGHT + ASKED)]
    source = home.file("taught", rows[:TAUGHT])
    return Here(home, home.tuned("learner", [source], TAUGHT, 0, params={"epochs": 5.0}), rows[TAUGHT:])


def test_dart_keeps_right_replies_within_its_budget_and_asks_more_about_hard_questions(here: Here) -> None:
    recipe = here.home.recipe("dart", [here.source("dart", DART)])
    outcome = here.home.made(recipe)
    [made] = outcome.syntheses
    assert 0 < made["accepted"] < made["requests"] <= BUDGET
    rows = list(here.home.generated(outcome))
    of = {row.sample_id: row for row in here.asked}
    kept = here.home.rows(
        f"SELECT messages[len(messages)].content AS text, meta->>'query_id' AS query FROM samples "
        f"WHERE pool = '{outcome.pool}'"
    )
    assert len(kept) == made["accepted"]
    assert all(of[row["query"]].meta["answer"] in re.findall("[0-9]+", row["text"]) for row in kept)
    totals = {row["query_id"]: row for row in rows if row.get("trials") is not None}
    assert set(totals) == set(of)
    assert sum(row["trials"] for row in totals.values()) == made["requests"]
    assert all(row["kept"] <= row["target"] for row in totals.values())
    hard = np.array([row["difficulty"] for row in totals.values()])
    trials = np.array([row["trials"] for row in totals.values()])
    assert 0.1 < hard.mean() < 0.95  # else the law below says nothing
    assert trials[hard > 0.8].mean() > trials[hard < 0.5].mean() >= DART["pilot"]


def test_more_trials_find_the_earlier_ones_in_the_response_store(here: Here) -> None:
    def asked_so_far() -> int:
        with closing(sqlite3.connect(here.home.folder / STORE)) as store:
            return int(store.execute("SELECT count(*) FROM requests").fetchone()[0])

    before = asked_so_far()
    for k, asked in ((2, 2 * ASKED), (3, ASKED), (3, 0)):
        source = here.source("dart", DART | {"strategy": "vrt", "k": k})
        here.home.made(here.home.recipe("vrt", [source], seed=7))  # other draws than those of the test before
        before, so_far = asked_so_far(), before
        assert before - so_far == asked


def test_s3ft_takes_the_learner_s_words_where_they_are_right_and_else_the_gold_reply(here: Here) -> None:
    outcome = here.home.made(here.home.recipe("s3ft", [here.source("s3ft", {"verifier": "numeric", "max_tokens": 24})]))
    rows = [row for row in here.home.generated(outcome) if not row["reason"]]
    assert len(rows) == ASKED
    assert {"self", "gold"} <= {row["source"] for row in rows}
    for row in rows:
        own = any(attempt["right"] for attempt in row["attempts"]["self"])
        assert (row["source"] == "self") == own
        assert set(row["logprobs"]) >= {"self", "gold"}


def test_r_tuning_is_sure_of_the_facts_that_the_model_was_taught(tmp_path: Path) -> None:
    home = Home(tmp_path, TESTED)
    whole = facts(1)
    taught = whole.taught[:12]
    table = Facts(taught, [*taught, *(row for row in whole.rest if not is_taught(row))][:24], whole.held)
    model = home.tuned("taught", [home.file("taught", taught)], len(taught), 0, params={"epochs": 50.0})
    _, rows = split(home, table, model)
    known = {row.sample_id for row in taught}
    agree = wilson(sum(row["sure"] == (row["parents"][0] in known) for row in rows), len(rows))
    assert agree.n == 24
    assert agree.low > 0.7


def test_wilson_s_interval_is_the_worked_one() -> None:
    for right, low, high in ((8, 0.4902, 0.9433), (0, 0.0, 0.2775), (10, 0.7225, 1.0)):
        found = wilson(right, 10)
        assert found.low == pytest.approx(low, abs=1e-4)
        assert found.high == pytest.approx(high, abs=1e-4)

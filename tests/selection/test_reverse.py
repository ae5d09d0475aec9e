"""The reverse of a method: the same ranking from its other end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from reply_worlds import SPEC, obeys_the_laws, world
from selection_worlds import method

from selection.dsir import Dsir
from selection.grape import Grape
from selection.ifd import Ifd
from selection.perplexity import Perplexity
from selection.problem import Reads, signals_of
from selection.reverse import Reverse
from selection.tsds import Tsds
from warehouse.records import Selection, Spec, canonical

METHODS = [
    method("random"),
    method("balanced_random"),
    method("length"),
    method("top_k"),
    method("rds_plus"),
    Perplexity(SPEC),
    Perplexity(SPEC, take="low"),
    Ifd(SPEC, SPEC),
    Grape(SPEC, SPEC),
    Dsir(dims=97),
    Tsds(SPEC),
]


def ask(asked, budget, seed=2):
    return asked(world(budget), np.random.default_rng(seed))


@pytest.mark.parametrize("inner", METHODS, ids=lambda inner: type(inner).__name__)
def test_the_laws(inner):
    answer = obeys_the_laws(Reverse(inner))
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics
    assert answer.diagnostics["reversed"] is True


@pytest.mark.parametrize("inner", METHODS, ids=lambda inner: type(inner).__name__)
def test_it_is_the_end_of_the_whole_ranking(inner):
    whole, answer = ask(inner, 60), ask(Reverse(inner), 20)
    judged = [not {"filled=cut", "filled=no_reply"} & set(reason.split()) for reason in whole.reasons]
    kept = [row for row, fit in zip(whole.rows.tolist(), judged, strict=True) if fit]
    assert answer.rows.tolist() == kept[::-1][:20]
    scores, reasons = (
        dict(zip(whole.rows, whole.scores, strict=True)),
        dict(zip(whole.rows, whole.reasons, strict=True)),
    )
    assert answer.scores.tolist() == [scores[row] for row in answer.rows]
    assert answer.reasons == tuple(reasons[row] for row in answer.rows)


@pytest.mark.parametrize(
    ("inner", "direction"),
    [
        (method("length"), "lower is better"),
        (Perplexity(SPEC, take="low"), "higher is better"),
        (method("random"), "none"),
    ],
)
def test_the_direction_turns_round(inner, direction):
    answer = ask(Reverse(inner), 20)
    assert answer.diagnostics["direction"] == direction
    if direction != "none":
        worst = max if direction == "lower is better" else min
        assert answer.diagnostics["cut_off"] == worst(answer.scores)
        assert answer.diagnostics["mean_score"] == pytest.approx(answer.scores.mean())


def test_the_shortest_rows_are_the_reverse_of_the_longest():
    made = world(60)
    answer = Reverse(method("length"))(made, np.random.default_rng(0))
    assert np.all(np.diff(made.candidates["length"][answer.rows]) >= 0)


def test_rows_that_could_not_be_judged_stay_last():
    answer = ask(Reverse(Perplexity(SPEC)), 60)
    unfit = answer.diagnostics["not_judged"]["cut"] + answer.diagnostics["not_judged"]["no_reply"]
    assert unfit > 3
    assert all("filled=" in reason for reason in answer.reasons[-unfit:])
    assert not any("filled=" in reason for reason in answer.reasons[:-unfit])
    assert sum(answer.diagnostics["filled"].values()) == unfit
    assert answer.diagnostics["cut_off"] == answer.scores[: 60 - unfit].max()
    assert ask(Reverse(Perplexity(SPEC)), 5).diagnostics["filled"] == {"cut": 0, "no_reply": 0}


def test_twice_reversed_is_the_method():
    for inner in (method("top_k"), Perplexity(SPEC)):
        once, twice = ask(inner, 20), ask(Reverse(Reverse(inner)), 20)
        assert once.rows.tolist() == twice.rows.tolist()
        assert once.diagnostics["direction"] == twice.diagnostics["direction"]


def test_it_reads_and_compares_as_the_method_does():
    assert Reverse(method("top_k")).compares
    assert not Reverse(method("length")).compares
    assert Reverse(method("top_k")).reads == method("top_k").reads
    assert signals_of(Reverse(method("top_k"))) == signals_of(method("top_k"))
    assert signals_of(Reverse(method("length"))) == signals_of(method("length"))


def test_targets_measured_otherwise_stay_so():
    rows, targets = ({"gradient": Spec("gradient", {"of": side})} for side in ("rows", "targets"))
    asked = SimpleNamespace(compares=True, reads=rows, target_reads=targets)
    assert signals_of(Reverse(asked)) == Reads(rows, targets)


def test_weights_stay_with_their_rows():
    class Weighted:
        compares = False

        def __call__(self, problem, rng):
            rows = np.arange(problem.n)
            facts = {"direction": "higher is better"}
            return Selection(rows, rows + 1.0, -rows.astype(float), [f"row={row}" for row in rows], facts)

    answer = ask(Reverse(Weighted()), 3)
    assert answer.rows.tolist() == [59, 58, 57]
    assert answer.weights.tolist() == [60, 59, 58]
    assert answer.diagnostics == {"direction": "lower is better", "reversed": True}

"""Small pools with what a model thought of each reply, for the tests of methods that read it, and the methods' laws."""

from dataclasses import replace

import numpy as np
from selection_worlds import permuted, problem

from selection.ngrams import ngrams
from selection.problem import InProcess
from warehouse.records import Spec

SPEC = Spec("signal", {"model": "m"})


def replies(nll, tokens=None, cut=None):
    """(n, 3) float32 as the signal `response` has it; NaN is a row without a reply."""
    nll = np.asarray(nll, np.float64)
    tokens = np.where(np.isnan(nll), 0, 10) if tokens is None else np.asarray(tokens)
    return np.stack([nll, tokens, np.zeros(len(nll)) if cut is None else np.asarray(cut)], axis=1).astype(np.float32)


def world(budget, seed=0, **kwargs):
    """A problem of 60 rows with every signal; a few have no reply, a few are cut, instructions have 1 to 6."""
    made = problem(budget, seed=seed, **kwargs)
    n, rng = made.n, np.random.default_rng(seed + 100)
    nll = np.round(rng.gamma(4, 0.3, n), 1)  # rounded, so that some tie
    nll[rng.choice(n, 4, replace=False)] = np.nan
    alone = np.where(np.isnan(nll), np.nan, np.round(nll * rng.uniform(0.9, 2, n), 1))
    cut = np.isin(np.arange(n), rng.choice(n, 3, replace=False))
    tokens = np.where(np.isnan(nll), 0, rng.integers(1, 40, n))
    words = np.array(["add", "two", "numbers", "sort", "every", "word", "of", "this", "list", "which", "city", "is"])
    texts = [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(n)]
    aims = [" ".join(rng.choice(words[:6], 8)) for _ in range(len(made.target_task))]
    signals = {
        "response": replies(nll, tokens, cut),
        "response_alone": replies(alone, tokens, cut),
        "repetition": np.round(rng.beta(1, 5, n), 1).astype(np.float32),
        "ngrams": ngrams(texts, 97),
    }
    return replace(
        made,
        candidates={**made.candidates, **signals},
        targets={**made.targets, "ngrams": ngrams(aims, 97)},
        groups={**made.groups, "instruction": rng.integers(0, 20, n)},
    )


def same(first, second):
    return (
        np.array_equal(first.rows, second.rows)
        and np.array_equal(first.scores, second.scores)
        and first.reasons == second.reasons
        and first.diagnostics == second.diagnostics
    )


def obeys_the_laws(method, *, nested=True, tasks=(0, 1, 0, 1, 2)):
    """Exactly the budget, one answer whatever the blocks and the order of storage; small budgets begin large ones."""
    whole = method(world(60, tasks=tasks), np.random.default_rng(5))
    assert sorted(whole.rows.tolist()) == list(range(60))
    for budget in (1, 2, 23, 59):
        answer = method(world(budget, tasks=tasks), np.random.default_rng(5))
        assert len(set(answer.rows.tolist())) == budget
        assert np.all(answer.weights > 0)
        assert np.isfinite(answer.scores).all()
        assert not nested or answer.rows.tolist() == whole.rows[:budget].tolist()
        assert all("=" in part for reason in answer.reasons for part in reason.split(" "))
    for seed in range(3):
        made = world(31, seed, tasks=tasks, distinct=20)
        ours = method(made, np.random.default_rng(5))
        assert same(ours, method(made, np.random.default_rng(5)))
        for block_rows in (1, 7, 60):
            assert same(ours, method(replace(made, reducer=InProcess(block_rows)), np.random.default_rng(5)))
        order = np.random.default_rng(seed).permutation(60)
        theirs = method(permuted(made, order), np.random.default_rng(5))
        assert np.array_equal(ours.rows, order[theirs.rows])
        assert np.array_equal(ours.scores, theirs.scores)
        assert ours.reasons == theirs.reasons
        assert ours.diagnostics == theirs.diagnostics
    return whole

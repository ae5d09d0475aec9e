"""Hashed n-grams, and DSIR's draw by them."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reply_worlds import obeys_the_laws, world
from scipy.sparse import csr_matrix

from selection.dsir import Dsir, divergence, log_ratio, log_weights, shares
from selection.gumbel import gumbel
from selection.ngrams import DIMS, TEXTS_AT_ONCE, ngrams, spec, words_in
from selection.problem import Problem
from warehouse.errors import InputError
from warehouse.records import canonical

RNG = np.random.default_rng(0)
SMALL = Dsir(dims=97)
PARTED = st.lists(st.sampled_from(["add", "Two", "2", "a_b", "naïve", "ΣΑΣ", "über"]), max_size=12)


def released(text, dims):
    """The buckets of the released code."""
    import re

    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    grams = words + [f"{words[at]} {words[at + 1]}" for at in range(len(words) - 1)]
    return Counter(int(hashlib.sha256(gram.encode()).hexdigest(), 16) % dims for gram in grams)


@pytest.mark.parametrize("dims", [1, 97, DIMS])
def test_sha256_is_the_released_code(dims):
    texts = ["Hello, world!! Hello", "", "x = a_1+b...", "Καλημέρα κόσμε", "日本語の文章", "naïve 🙂🙂"]
    rows = ngrams(texts, dims, "sha256")
    assert rows.shape == (6, dims)
    assert [dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in rows] == [
        released(text, dims) for text in texts
    ]


@given(st.lists(PARTED, max_size=6))
@settings(max_examples=40, deadline=None)
def test_both_hashings_count_the_same_words_and_pairs(texts):
    """Where words are parted by spaces both see the same words, and with many buckets (almost) every one its own."""
    joined = [" ".join(words) for words in texts]
    fast, slow = (ngrams(joined, 1 << 21, hashing) for hashing in ("fast", "sha256"))
    for words, ours, theirs in zip(texts, fast, slow, strict=True):
        lower = [word.lower() for word in words]
        counts = Counter(lower) + Counter(pairwise(lower))
        assert sorted(ours.data) == sorted(theirs.data) == sorted(counts.values())


def test_pairs_keep_their_order_and_stay_in_their_text():
    rows = ngrams(["a b", "b a", "a", "b"], 1 << 20)
    assert [row.nnz for row in rows] == [3, 3, 1, 1]
    assert len(set(rows[0].indices) & set(rows[1].indices)) == 2
    assert set(rows[0].indices) - set(rows[1].indices) != set()


def test_rows_are_sorted_whole_and_independent_of_their_neighbours():
    texts = [f"Text number {number}, of many." for number in range(TEXTS_AT_ONCE + 3)]
    together, alone = ngrams(texts), [ngrams([text]).toarray() for text in texts[-4:]]
    assert np.array_equal(together[-4:].toarray(), np.concatenate(alone))
    assert together.has_sorted_indices
    assert together.has_canonical_format
    assert together.dtype == np.uint32
    assert words_in(np.asarray(together.sum(axis=1)).ravel()).tolist() == [7] * len(texts)


def test_known_buckets_never_move():
    """Stored signals were made with these: a change here needs a new `version` in the spec."""
    assert spec().params == {"dims": 10_000, "hashing": "fast", "version": 1}
    assert ngrams(["Add 2"], DIMS).indices.tolist() == KNOWN
    assert ngrams(["\ud800 x", "\x00"], 64).nnz > 0
    assert ngrams([], 64).shape == (0, 64)


KNOWN = [2168, 3974, 9315]


@pytest.mark.parametrize("dims", [0, -5, (1 << 23) + 1])
def test_dims_and_hashing_out_of_range_are_an_error(dims):
    with pytest.raises(InputError, match=f"dims is {dims}"):
        ngrams(["x"], dims)
    with pytest.raises(InputError, match="unknown hashing 'md5'"):
        Dsir(hashing="md5")


def test_the_worked_weight():
    """p = (.8, .2), q = (.5, .5), x = (3, 1)."""
    ratio = log_ratio(np.array([8, 2]), np.array([5, 5]))
    weight = log_weights(csr_matrix(np.array([[3, 1], [0, 0]], np.uint32)), ratio[None, :])
    assert weight[0] == pytest.approx([0.4937202, 0], abs=1e-7)


def test_without_noise_the_largest_weights_are_taken():
    made = world(25, tasks=None)
    counts = made.candidates["ngrams"]
    ratio = log_ratio(made.targets["ngrams"].toarray().sum(axis=0), counts.toarray().sum(axis=0))
    expected = counts.toarray() @ ratio
    words = words_in(counts.toarray().sum(axis=1))
    order = sorted((row for row in range(60) if words[row]), key=lambda row: (-expected[row], made.keys[row]))
    answer = Dsir(dims=97, temperature=0)(made, RNG)
    assert answer.scores == pytest.approx(expected[order[:25]])
    assert answer.scores[0] == answer.scores.max()
    assert answer.diagnostics["cut_off"] == answer.scores.min()


def test_the_draw_is_in_proportion_to_the_weights():
    """One row of three with weights 1 : 2 : 5 is drawn as often."""
    weights = np.log(np.array([1, 2, 5]))
    made = Problem(budget=1, keys=np.array([5, 1, 3], np.uint64))
    rng = np.random.default_rng(1)
    first = [int(np.argmax(weights + gumbel(made, rng)[0])) for _ in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx(np.array([1, 2, 5]) / 8, abs=0.03)


def test_noise_follows_keys():
    one = Problem(budget=1, keys=np.array([5, 1, 3], np.uint64))
    other = Problem(budget=1, keys=np.array([3, 5, 1], np.uint64))
    ours, theirs = (gumbel(each, np.random.default_rng(2), 2) for each in (one, other))
    assert np.array_equal(ours[:, [2, 0, 1]], theirs)


def test_every_task_draws_its_share_from_its_own_rows():
    pool = ["sort the list"] * 20 + ["paint a house"] * 20 + ["sleep"] * 20
    made = Problem(
        budget=20,
        keys=np.random.default_rng(0).permutation(60).astype(np.uint64),
        candidates={"ngrams": ngrams(pool)},
        targets={"ngrams": ngrams(["sort the list", "sort the list", "paint a house"])},
        target_task=np.array([0, 0, 1]),
        task_names=("sorting", "house work"),
    )
    answer = Dsir()(made, np.random.default_rng(0))
    assert answer.diagnostics["picks_per_task"] == {"sorting": 10, "house_work": 10}
    assert sorted(set(answer.rows // 20)) == [0, 1]
    assert (answer.rows // 20 == 0).sum() == 10
    assert answer.diagnostics["kl_reduction"] == pytest.approx(np.log(1.1), abs=1e-6)
    assert answer.diagnostics["unseen"] == pytest.approx(6 / 11)
    assert answer.reasons[1].startswith("task=house_work round=1 words=3")


def test_short_rows_come_last_and_are_counted():
    made = world(60, tasks=None)
    words = words_in(made.candidates["ngrams"].toarray().sum(axis=1))
    answer = Dsir(dims=97, min_words=4)(made, RNG)
    short = int((words < 4).sum())
    assert 5 < short < 55
    assert answer.diagnostics["filled"] == {"short": short}
    assert (words[answer.rows[-short:]] < 4).all()
    assert all("filled=short" in reason for reason in answer.reasons[-short:])
    assert not any("filled" in reason for reason in answer.reasons[:-short])
    nothing = Dsir(dims=97, min_words=100)(replace(made, budget=3), RNG)
    assert nothing.diagnostics["filled"] == {"short": 3}
    assert nothing.diagnostics["cut_off"] is None


@pytest.mark.parametrize("method", [SMALL, Dsir(dims=97, temperature=0, min_words=3)])
def test_the_laws(method):
    answer = obeys_the_laws(method)
    assert json.loads(canonical(answer.diagnostics)) == answer.diagnostics
    obeys_the_laws(method, tasks=None)


def test_equal_rows_have_equal_scores():
    made = world(60)
    made.candidates["ngrams"] = made.candidates["ngrams"][np.full(60, 7)]
    answer = Dsir(dims=97, temperature=0)(made, RNG)
    assert answer.rows.tolist() == np.argsort(made.keys).tolist()


def test_divergence_and_shares():
    assert shares(np.zeros(3)).tolist() == [0, 0, 0]
    assert divergence(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0
    assert divergence(np.array([1.0, 0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2), abs=1e-6)


def test_what_cannot_be_compared_is_an_error():
    made = world(5)
    with pytest.raises(InputError, match="no target was given"):
        SMALL(replace(made, targets={}, target_task=np.zeros(0, np.int64)), RNG)
    texts, tasks = ["a", "b", "", "d", ""], np.array([0, 0, 1, 0, 1])
    with pytest.raises(InputError, match="the targets of 1 hold no word"):
        SMALL(replace(made, targets={"ngrams": ngrams(texts, 97)}, target_task=tasks, task_names=()), RNG)
    broken = made.candidates["ngrams"].astype(np.float64)
    broken.data[[0, -1]] = [np.nan, np.inf]
    with pytest.raises(InputError, match=r"2 of 60 rows have .* the first is row \d"):
        SMALL(replace(made, candidates={"ngrams": broken}), RNG)
    with pytest.raises(InputError, match="temperature is -1"):
        Dsir(temperature=-1)
    with pytest.raises(InputError, match="min_words is 0"):
        Dsir(min_words=0)

"""Shingle sets, signatures and bands: what they are, whatever the rows beside them, and what a layout promises."""

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.errors import InputError
from warehouse.minhash import MOST, Layout, Sets, band_keys, bands, shingles, signatures
from warehouse.words import text_of, words_of

ROWS = st.lists(st.lists(st.text("ab c.", max_size=30), max_size=3), min_size=1, max_size=8)


def sets_of(rows: list[list[str]], n: int = 5) -> Sets:
    contents = pa.array([turn for row in rows for turn in row], pa.string())
    text = text_of(contents, np.cumsum([0, *map(len, rows)]))
    return shingles(text, words_of(text), n)


def as_sets(sets: Sets) -> list[list[int]]:
    return [sets.shingles[a:b].tolist() for a, b in pairwise(sets.offsets)]


def grams(row: list[str], n: int) -> set[tuple[str, ...]]:
    """The row's n-grams of words, by the rules in words."""
    words = "".join(f"{turn} " for turn in row).replace(".", " . ").split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else {("", *row)}


@given(ROWS, st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_sets_share_shingles_as_rows_share_runs_of_words(rows, n):
    found = as_sets(sets_of(rows, n))
    for i, row in enumerate(rows):
        assert found[i] == sorted(set(found[i]))
        assert found[i] == as_sets(sets_of([row], n))[0]
        for j, other in enumerate(rows):
            if row and other and "".join(row).strip() and "".join(other).strip():
                assert len(set(found[i]) & set(found[j])) == len(grams(row, n) & grams(other, n))


@pytest.mark.parametrize("period", [1, 2, 97, 5000, 40_000])
def test_a_row_that_repeats_itself_or_is_long_is_still_a_sorted_set(period):
    found = as_sets(sets_of([[" ".join(f"w{i % period}" for i in range(40_000))]]))[0]
    assert len(found) == (period if period < 40_000 else 39_996)
    assert found == sorted(set(found))


def test_short_rows_and_rows_without_words():
    sets = as_sets(sets_of([["2+3"], ["2-3"], ["2", "+3"], ["2+"], [], [""], [" "], ["\n"], ["2 +  3"]]))
    assert all(len(found) == 1 for found in sets)
    assert sets[0] == sets[2] == sets[8]
    assert sets[4] == sets[5]
    assert len({found[0] for found in sets}) == 6


def test_signatures_agree_as_often_as_the_sets_do():
    rng = np.random.default_rng(3)
    for shared in (20, 100, 160):  # of sets of 200: similarity 0.05, 1/3, 2/3
        values = rng.integers(0, 2**32, (300, 400 - shared)).astype(np.uint32)
        pairs = [np.sort(part) for row in values for part in (row[:200], row[200 - shared :])]
        signed = signatures(Sets(np.concatenate(pairs), np.arange(601) * 200), MOST)
        agreed = (signed[::2] == signed[1::2]).mean(axis=1)
        similarity = shared / (400 - shared)
        error = math.sqrt(similarity * (1 - similarity) / MOST)
        assert abs(agreed.mean() - similarity) < 5 * error / math.sqrt(300) + 0.002
        assert agreed.std() < 1.3 * error  # what independent hashes would give, and a little


def test_a_signature_is_the_least_of_each_permutation_and_does_not_depend_on_how_many_there_are():
    sets = sets_of([["a b c d e f g h i j"], ["x"], ["one two three four five six"]])
    signed = signatures(sets, 128)
    each = [signatures(Sets(np.array([x], np.uint32), np.array([0, 1])), 128)[0] for x in sets.shingles]
    for row, (a, b) in enumerate(pairwise(sets.offsets)):
        assert signed[row].tolist() == np.min(each[a:b], axis=0).tolist()
    assert np.array_equal(signatures(sets, 17), signed[:, :17])


def test_two_shingles_never_have_the_same_hash():
    pair = np.array([12345, 12345 + 2**31], np.uint32)
    first, second = signatures(Sets(pair, np.arange(3)), MOST)
    assert (first != second).all()


def test_keys_are_equal_where_a_whole_band_is():
    layout = Layout(0.8, 3, 2)
    signed = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 9, 5, 6], [1, 2, 1, 2, 1, 2], [2, 1, 4, 3, 6, 5]], np.uint32)
    keys = band_keys(signed, layout)
    assert (keys[:, 0] == keys[:, 1]).tolist() == [True, False, True]
    assert len(np.unique(keys)) == 9  # the same hashes in another band or order are another key


@given(st.floats(0.3, 1), st.sampled_from([64, 128, 256]), st.sampled_from([0.5, 0.95, 0.98]))
def test_a_layout_keeps_its_promise_at_the_least_cost(threshold, permutations, recall):
    layout = bands(threshold, permutations, recall)
    assert layout.permutations <= permutations
    assert layout.recall(threshold) >= recall - 1e-9
    assert layout.bands == 1 or Layout(threshold, layout.bands - 1, layout.rows).recall(threshold) < recall
    narrower = layout.rows + 1
    assert narrower > 16 or Layout(threshold, permutations // narrower, narrower).recall(threshold) < recall


def test_worked_layout():
    layout = bands(0.8)
    assert (layout.bands, layout.rows, layout.permutations) == (17, 7, 119)
    assert layout.recall(0.8) == pytest.approx(0.9817, abs=1e-4)
    assert layout.recall(0.5) == pytest.approx(0.1249, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((0.0,), "above 0"), ((1.5,), "above 0"), ((0.01, 128), "give at least 390"), ((0.8, 0), "permutations in 1")],
)
def test_layouts_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        bands(*arguments)

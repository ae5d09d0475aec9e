"""Hashed trigram sets: what they hold, on any machine, for any text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.trigrams import TEXTS_AT_ONCE, spec, trigrams
from warehouse.errors import InputError


def bucket(trigram, dims):
    """The hash in Python's own whole numbers."""
    word = sum(ord(character) << 21 * place for place, character in enumerate(trigram))
    mixed = word * 0x9E3779B97F4A7C15 % 2**64
    mixed = (mixed ^ mixed >> 32) * 0xBF58476D1CE4E5B9 % 2**64
    return (mixed >> 32) * dims >> 32


def sets(text):
    folded = f" {' '.join(text.casefold().split())} "
    return {folded[at : at + 3] for at in range(len(folded) - 2)}


@pytest.mark.parametrize("dims", [1, 97, 1 << 16, (1 << 31) - 1])
def test_each_text_holds_the_buckets_of_its_trigrams(dims):
    texts = ["To be or not to be", "", "x", "Καλημέρα κόσμε", "日本語の文章", "naïve 🙂🙂", "to be or not to be  "]
    rows = trigrams(texts, dims)
    assert rows.shape == (7, dims)
    assert rows.dtype == np.float32
    for text, row in zip(texts, rows, strict=True):
        expected = sorted({bucket(trigram, dims) for trigram in sets(text)})
        assert row.indices.tolist() == expected
        assert np.allclose(row.data, 1 / np.sqrt(max(len(expected), 1)))


def test_known_buckets_never_move():
    """Stored signals were made with these: a change here needs a new `version` in the spec."""
    assert trigrams(["Add 2 and 3.", "größe"]).indices.tolist() == [
        *sorted(bucket(trigram, 1 << 16) for trigram in sets("Add 2 and 3.")),
        *sorted(bucket(trigram, 1 << 16) for trigram in sets("größe")),
    ]
    assert [bucket("abc", 1 << 16), bucket("日本語", 1 << 16)] == [46892, 37862]
    assert spec(1 << 16).params == {"dims": 1 << 16, "version": 1}


@given(st.lists(st.text(max_size=30), max_size=12))
@settings(max_examples=80, deadline=None)
def test_any_text_has_a_row_of_length_1_or_none(texts):
    rows = trigrams(texts, 512)
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1))).ravel()
    assert rows.shape == (len(texts), 512)
    assert rows.has_sorted_indices
    for text, length in zip(texts, lengths, strict=True):
        assert length == pytest.approx(1 if text.split() else 0, abs=1e-5)


def test_lone_surrogates_and_zeros_are_text_too():
    assert trigrams(["\ud800\udc00 \x00", "\ud800"], 64).nnz > 0


def test_case_width_and_spacing_are_folded():
    rows = trigrams(["Straße  Ｎｏ．\t7", "STRASSE No. 7"]).toarray()
    assert np.array_equal(rows[0], rows[1])


def test_texts_do_not_depend_on_their_neighbours():
    texts = [f"text number {number}" for number in range(TEXTS_AT_ONCE + 3)]
    together, alone = trigrams(texts, 256), [trigrams([text], 256) for text in texts[-4:]]
    assert np.array_equal(together[-4:].toarray(), np.concatenate([row.toarray() for row in alone]))


@pytest.mark.parametrize("dims", [0, -5, 1 << 31])
def test_dims_out_of_range_are_an_error(dims):
    with pytest.raises(InputError, match=f"dims is {dims}"):
        trigrams(["x"], dims)

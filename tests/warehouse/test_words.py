"""Words of the compiled loop equal those of a slow reading of the rules, for any text, however Arrow holds it."""

from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.errors import InputError
from warehouse.words import text_of, words_of

MASK = 2**64 - 1
TEXTS = st.text(
    st.sampled_from("aZ9_ \t.+\u00a0\u00c2\u00e9\u1fff\u2000\u206f\u2070\u3000\u3042\u4e2d\uac00\ufeff\U0001f600")
    | st.characters(codec="utf-8")
)


def mixed(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def hash_of(word: bytes) -> int:
    state, pending = 0x9E3779B97F4A7C15, b""
    for byte in word:
        pending += bytes([byte])
        if len(pending) == 8:
            state, pending = mixed(state ^ int.from_bytes(pending, "big")), b""
    last = int.from_bytes(pending, "big")
    return mixed((state ^ last) + len(word) * 0xD6E8FEB86659FD93 & MASK)


def split(text: str) -> list[int]:
    found, run = [], b""
    for character in [*text, " "]:
        code, known = ord(character), character.isascii() and (character.isalnum() or character == "_")
        gap = code <= 32 or code in (127, 0xA0, 0x3000) or 0x2000 <= code <= 0x206F
        alone = (code < 128 and not known) or 0x3000 <= code <= 0xDFFF or code > 0xFFFF
        if (gap or alone) and run:
            found.append(hash_of(run))
            run = b""
        if alone and not gap:
            found.append(hash_of(character.encode()))
        elif not gap:
            run += (character.lower() if character.isascii() else character).encode()
    return found


def hashes(contents: pa.Array, offsets: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Words of each turn, and of each row."""
    words = words_of(text_of(contents, np.array(offsets)))
    turns = [words.hashes[a:b].tolist() for a, b in pairwise(words.turns)]
    return turns, [words.hashes[a:b].tolist() for a, b in pairwise(words.rows)]


def same_words(first: str, second: str) -> bool:
    turns, _ = hashes(pa.array([first, second]), [0, 2])
    return turns[0] == turns[1]


@given(st.lists(TEXTS, max_size=8), st.data())
@settings(max_examples=300, deadline=None)
def test_words_of_any_text_held_in_any_way(turns, data):
    kind = data.draw(st.sampled_from([pa.string(), pa.large_string()]))
    skipped = data.draw(st.integers(0, 2))
    contents = pa.array(["skipped words"] * skipped + turns, kind)
    offsets = [0, *sorted(data.draw(st.lists(st.integers(0, len(turns)), max_size=4))), len(turns)]
    expected = [split(turn) for turn in turns]
    rows = [list(chain.from_iterable(expected[a:b])) for a, b in pairwise(offsets)]
    held = data.draw(st.sampled_from(["slice", "offsets", "chunks"]))
    if held == "slice":
        contents = contents.slice(skipped)
    elif held == "offsets":
        offsets = [skipped + offset for offset in offsets]
    else:
        cut = data.draw(st.integers(0, len(turns)))
        contents = pa.chunked_array([contents.slice(skipped, cut), contents.slice(skipped + cut)])
    assert hashes(contents, offsets) == (expected, rows)


@given(st.lists(TEXTS, min_size=1, max_size=12), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_blocks_of_rows_hold_every_word_once(turns, size):
    text = text_of(pa.array(turns), np.array([0, *range(0, len(turns), 2), len(turns)]))
    whole = words_of(text)
    parts = [(row, block, words_of(block)) for row, block in text.blocks(size)]
    assert np.concatenate([words.hashes for _, _, words in parts]).tolist() == whole.hashes.tolist()
    assert np.concatenate([np.diff(words.rows) for _, _, words in parts]).tolist() == np.diff(whole.rows).tolist()
    assert [row for row, _, _ in parts] == np.cumsum([0, *(block.n for _, block, _ in parts)])[:-1].tolist()
    assert all(block.n == 1 or block.starts[-1] - block.starts[0] <= size for _, block, _ in parts)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("The  Cat\n", "the cat", True),
        ("2+3", "2-3", False),
        ("2 + 3", "2+3", True),
        ("a\u00a0b\u2014c", "a b c", True),
        ("a\u2000b\u206fc\u3000d", "a b c d", True),
        ("a\u2070b", "a b", False),
        ("a\u3001b", "a b", False),
        ("中文", "中 文", True),
        ("é", "É", False),  # only ASCII letters lose their case
        ("ab", "a b", False),
        ("x" * 8, "x" * 16, False),
    ],
)
def test_what_counts_as_the_same_words(first, second, same):
    assert same_words(first, second) is same


def test_the_end_of_a_turn_ends_a_word():
    assert hashes(pa.array(["ab", "cd", "ab cd"]), [0, 2, 3])[1][0] == hashes(pa.array(["ab cd"]), [0, 1])[1][0]


def test_a_character_cut_short_by_the_end_of_its_turn_is_read_no_further():
    ends = [b"\xc2", b"\xe2\x80", b"\xe3\x80", b"\xf0\x9f", b"\x80"]
    data = b"".join(b"a " + end for end in ends)
    bounds = np.cumsum([0, *(2 + len(end) for end in ends)], dtype=np.int32)
    cut = pa.StringArray.from_buffers(len(ends), pa.py_buffer(bounds), pa.py_buffer(data))
    assert [len(turn) for turn in hashes(cut, [0, len(ends)])[0]] == [2] * len(ends)


@pytest.mark.parametrize(
    ("contents", "offsets", "said"),
    [
        (pa.array([1]), [0, 1], "int64"),
        (pa.array(["a", None]), [0, 2], "1 of 2 turns are null"),
        (pa.array(["a"]), [0, 2], "at most 1"),
        (pa.array(["a"]), [0, 1, 0], "ascend"),
        (pa.array(["a"]), [-1, 1], "ascend"),
        (pa.array(["a"]), [], "ascend"),
    ],
)
def test_what_is_no_text_is_refused(contents, offsets, said):
    with pytest.raises(InputError, match=said):
        text_of(contents, np.array(offsets, np.int64))

"""Words: text as 64-bit hashes, one a word, which near-duplicate search and contamination checks both work on.

A word is a run of ASCII letters, digits, underscores and characters beyond ASCII; every ASCII punctuation character,
every Chinese, Japanese or Korean character (U+3000 to U+DFFF) and every character beyond U+FFFF is a word of its own.
ASCII white space and control characters, U+00A0, U+2000 to U+206F and U+3000 separate words, and so does the end of a
turn. The case of ASCII letters does not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.kernels import hash_words

BLOCK_BYTES = 16 * 2**20  # of text, in one piece: its words take at most eight times that


@dataclass(frozen=True, slots=True)
class Text:
    """n rows of turns as Arrow holds them, nothing copied.

    data    UTF-8 of all turns, uint8
    starts  (t + 1,) int64: turn i is data[starts[i]:starts[i + 1]]
    rows    (n + 1,) int64: row i is turns rows[i] to rows[i + 1]; rows[0] is 0 and rows[n] is t
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def n(self) -> int:
        return len(self.rows) - 1

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[tuple[int, "Text"]]:
        """(first row, rows from there on) of at most `size` bytes each; a longer row is alone."""
        ends = self.starts[self.rows]
        row = 0
        while row < self.n:
            stop = max(int(np.searchsorted(ends, ends[row] + size, side="right")) - 1, row + 1)
            yield row, self._part(row, stop)
            row = stop

    def _part(self, row: int, stop: int) -> "Text":
        first, last = self.rows[row], self.rows[stop]
        return Text(self.data, self.starts[first : last + 1], self.rows[row : stop + 1] - first)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a `Text`.

    hashes  (w,) uint64, turn after turn
    turns   (t + 1,) int64: turn i has hashes[turns[i]:turns[i + 1]]
    rows    (n + 1,) int64: row i has hashes[rows[i]:rows[i + 1]]
    """

    hashes: NDArray[np.uint64]
    turns: NDArray[np.int64]
    rows: NDArray[np.int64]


def text_of(contents: pa.Array | pa.ChunkedArray, offsets: NDArray[np.int64]) -> Text:
    """The turns contents[offsets[i]:offsets[i + 1]] of every row i; only an array of several chunks is copied.

    Raises `InputError` where `contents` is no array of strings or holds a null, or `offsets` (n + 1,) do not fit it.
    """
    if not (pa.types.is_string(contents.type) or pa.types.is_large_string(contents.type)):
        raise InputError(f"the turns are {contents.type}, not string or large_string: cast the column")
    if contents.null_count:
        raise InputError(f"{contents.null_count} of {len(contents)} turns are null: drop those rows or fill them")
    rows = np.asarray(offsets, np.int64)
    if len(rows) == 0 or rows[0] < 0 or rows[-1] > len(contents) or (np.diff(rows) < 0).any():
        raise InputError(f"the offsets must ascend from at least 0 to at most {len(contents)}, the number of turns")
    turns = _whole(contents).slice(rows[0], rows[-1] - rows[0])
    wide = np.int64 if pa.types.is_large_string(turns.type) else np.int32
    _, bounds, data = turns.buffers()
    starts = np.zeros(1, np.int64)
    if bounds is not None and bounds.size:
        starts = np.frombuffer(bounds, wide, len(turns) + 1, turns.offset * np.dtype(wide).itemsize).astype(np.int64)
    return Text(np.frombuffer(data or b"", np.uint8), starts, rows - rows[0])


def _whole(contents: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(contents, pa.ChunkedArray):
        return contents
    if contents.num_chunks == 1:
        return contents.chunk(0)
    wide = [chunk.cast(pa.large_string()) for chunk in contents.chunks]  # the chunks together may be over 2 GiB
    return pa.concat_arrays(wide) if wide else pa.array([], pa.large_string())


def words_of(text: Text, signs: bool = True) -> Words:
    """The words of all turns: about 17 ns a word on one core; takes room for 8 bytes a byte of text while it runs.

    Without `signs` ASCII punctuation parts words and is none itself.
    """
    hashes = np.empty(int(text.starts[-1] - text.starts[0]), np.uint64)
    turns = np.empty(len(text.starts), np.int64)
    found = hash_words(text.data, text.starts, signs, hashes, turns)
    return Words(hashes[:found], turns, turns[text.rows])

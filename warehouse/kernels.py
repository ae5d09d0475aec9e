"""Compiled loops over words: text to word hashes, shingle sets, MinHash, the greedy search, shared n-grams.

All are in this one file because numba keys its cache on disk by the file of the function itself: a loop that called
into another file would go stale when that file changes. Each works on whole blocks of rows, holds no interpreter lock
and checks no index, so what calls them checks the arrays.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numba import njit, uint32, uint64
from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound=NDArray[Any])

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Shingles = NDArray[np.uint32]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SEED = np.uint64(0x9E3779B97F4A7C15)
ODD = np.uint64(0xD6E8FEB86659FD93)  # the base of the polynomial over a run of words
FIRST = np.uint64(0xBF58476D1CE4E5B9)  # Stafford's 13th variant of the 64-bit finaliser of MurmurHash3
SECOND = np.uint64(0x94D049BB133111EB)
STRIDE = 16  # steps of a merge between two looks at whether it can still succeed
BUCKETED = 48  # longer lists of shingles are spread by their first bits before they are sorted

SPACE, LETTER, SINGLE, LATIN, PUNCTUATION, THREE, FOUR = range(7)


def _kinds() -> Bytes:
    kinds = np.full(256, LETTER, np.uint8)
    for byte in range(128):
        known = chr(byte).isalnum() or byte == ord("_")
        kinds[byte] = LETTER if known else SINGLE if 33 <= byte < 127 else SPACE
    kinds[0xC2] = LATIN  # may begin U+00A0
    kinds[0xE2] = PUNCTUATION  # may begin U+2000 to U+206F
    kinds[0xE3:0xEE] = THREE
    kinds[0xF0:0xF8] = FOUR
    return kinds


KINDS = _kinds()
LOWER = np.array([byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)], np.uint64)


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """`function` as machine code, compiled at its first call and then kept on disk."""
    try:
        return cast(Callable[P, T], njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the checkout nor the user's cache folder can be written: NUMBA_CACHE_DIR names one
        return cast(Callable[P, T], njit(nogil=True)(function))


def read_only(array: A) -> A:
    """A view of `array` that cannot be written: arrays that went through a file, a pickle or Ray's object store differ
    in this, and each kind would be compiled again."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return cast(A, view)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which every bit of the answer depends on all of `value`."""
    value = (value ^ (value >> uint64(30))) * FIRST
    value = (value ^ (value >> uint64(27))) * SECOND
    return value ^ (value >> uint64(31))


@compiled
def hash_words(text: Bytes, starts: Longs, signs: bool, hashes: Hashes, ends: Longs) -> int:
    """Fill `hashes` with the words of all turns and `ends` (t + 1,) with where each turn's words begin and end.

    Turn i is the bytes text[starts[i]:starts[i + 1]]; `hashes` needs room for one word a byte. Without `signs` ASCII
    punctuation parts words and is none. Returns the words found.
    """
    found = 0
    ends[0] = 0
    for turn in range(len(starts) - 1):
        i, stop = starts[turn], starts[turn + 1]
        state, pending, size = SEED, uint64(0), uint64(0)
        while i < stop:
            byte = text[i]
            kind = KINDS[byte]
            width = 1
            if kind > SINGLE:
                left = stop - i
                if kind == LATIN:
                    gap = left > 1 and text[i + 1] == 0xA0
                    kind, width = (SPACE, 2) if gap else (LETTER, 1)
                elif kind == PUNCTUATION:
                    gap = left > 2 and (text[i + 1] == 0x80 or (text[i + 1] == 0x81 and text[i + 2] <= 0xAF))
                    kind, width = (SPACE, 3) if gap else (LETTER, 1)
                else:
                    width = min(3 if kind == THREE else 4, left)
                    gap = byte == 0xE3 and left > 2 and text[i + 1] == 0x80 and text[i + 2] == 0x80
                    kind = SPACE if gap else SINGLE
            if kind == LETTER:
                pending = (pending << uint64(8)) | LOWER[byte]
                size += uint64(1)
                if size & uint64(7) == 0:
                    state, pending = mix(state ^ pending), uint64(0)
            else:
                if size:
                    hashes[found] = mix((state ^ pending) + size * ODD)
                    found += 1
                    state, pending, size = SEED, uint64(0), uint64(0)
                if kind == SINGLE and (signs or byte >= 0x80):
                    whole = uint64(0)
                    for place in range(i, i + width):
                        whole = (whole << uint64(8)) | uint64(text[place])
                    hashes[found] = mix((SEED ^ whole) + uint64(width) * ODD)
                    found += 1
            i += width
        if size:
            hashes[found] = mix((state ^ pending) + size * ODD)
            found += 1
        ends[turn + 1] = found
    return found


@compiled
def power(n: int) -> np.uint64:
    """ODD to the n, modulo 2^64: the weight of the word that leaves a run of n when the next one enters."""
    answer = uint64(1)
    for _ in range(n):
        answer *= ODD
    return answer


@compiled
def hash_runs(words: Hashes, turns: Longs, wanted: Flags, rows: Longs) -> Hashes:
    """For each row one hash of all words of its wanted turns, 0 where they have none."""
    answer = np.zeros(len(rows) - 1, np.uint64)
    for row in range(len(answer)):
        value, size = uint64(0), uint64(0)
        for turn in range(rows[row], rows[row + 1]):
            for k in range(turns[turn], turns[turn + 1] if wanted[turn] else turns[turn]):
                value = value * ODD + words[k]
                size += uint64(1)
        if size:
            answer[row] = max(uint64(1), mix(mix(value) ^ size))
    return answer


@compiled
def hash_ngrams(words: Hashes, bounds: Longs, wanted: Flags, n: int, hashes: Hashes, places: Longs) -> int:
    """Fill `hashes` and `places` with every n consecutive words inside one wanted run; returns how many there are."""
    found = 0
    leaving = power(n)
    for i in range(len(bounds) - 1):
        if not wanted[i]:
            continue
        value = uint64(0)
        for k in range(bounds[i], bounds[i + 1]):
            value = value * ODD + words[k]
            if k >= bounds[i] + n:
                value -= leaving * words[k - n]
            if k >= bounds[i] + n - 1:
                hashes[found], places[found] = mix(value), k - n + 1
                found += 1
    return found


@compiled
def spread(values: Shingles, spare: Shingles, counts: Ints) -> int:
    """Order `values` by their first bits; returns how many the fullest bucket holds."""
    n, bits = len(values), 6
    while (1 << bits) < n and (2 << bits) < len(counts):
        bits += 1
    buckets, shift = 1 << bits, uint32(32 - bits)
    counts[: buckets + 1] = 0
    for k in range(n):
        counts[(values[k] >> shift) + 1] += 1
    most = 0
    for bucket in range(buckets):
        most = max(most, counts[bucket + 1])
        counts[bucket + 1] += counts[bucket]
    for k in range(n):
        bucket = values[k] >> shift
        spare[counts[bucket]] = values[k]
        counts[bucket] += 1
    values[:] = spare[:n]
    return most


@compiled
def sort_set(values: Shingles, spare: Shingles, counts: Ints) -> int:
    """Sort `values` in place and move each distinct one to the front; returns how many there are.

    Hashes are even, so spreading them by their first bits leaves runs of one or two. `spare` is as long as `values`.
    """
    n = len(values)
    if n > BUCKETED and spread(values, spare, counts) > BUCKETED:  # text that repeats itself, or a very long row
        values.sort()
    for k in range(1, n):
        value, place = values[k], k
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
    kept = 1
    for k in range(1, n):
        if values[k] != values[kept - 1]:
            values[kept] = values[k]
            kept += 1
    return kept


@compiled
def shingle_sets(
    words: Hashes, rows: Longs, text: Bytes, bytes_of_rows: Longs, n: int, sets: Shingles, offsets: Longs
) -> None:
    """Fill `sets` with each row's distinct n-word shingles, ascending, and `offsets` (rows + 1,) with where they lie.

    `sets` needs room for a shingle a word and one a row.
    """
    longest = 1
    for row in range(len(rows) - 1):
        longest = max(longest, rows[row + 1] - rows[row])
    spare, counts = np.empty(longest, np.uint32), np.empty((1 << 14) + 1, np.int32)
    leaving = power(n)
    at = 0
    offsets[0] = 0
    for row in range(len(rows) - 1):
        first, stop = rows[row], rows[row + 1]
        value, found = uint64(0), 0
        for k in range(first, stop):
            value = value * ODD + words[k]
            if k >= first + n:
                value -= leaving * words[k - n]
            if k >= first + n - 1:
                sets[at + found] = mix(value) >> uint64(32)
                found += 1
        if found == 0:
            size = uint64(stop - first)
            if first == stop:
                for place in range(bytes_of_rows[row], bytes_of_rows[row + 1]):
                    value = value * ODD + uint64(text[place]) + uint64(1)
            sets[at] = mix(mix(value) ^ size) >> uint64(32)
            found = 1
        at += sort_set(sets[at : at + found], spare, counts)
        offsets[row + 1] = at


@compiled
def min_hashes(sets: Shingles, offsets: Longs, factors: Shingles, shifts: Shingles, out: Shingles) -> None:
    """out[i, k] = the least factors[k] · x + shifts[k] modulo 2^32 over the shingles x of row i."""
    for row in range(len(offsets) - 1):
        least = out[row]
        least[:] = uint32(0xFFFFFFFF)
        last = offsets[row + 1] - 1
        for k in range(offsets[row], last + 1, 4):  # four at a time: `least` is read and written a quarter as often
            x0, x1, x2, x3 = sets[k], sets[min(k + 1, last)], sets[min(k + 2, last)], sets[min(k + 3, last)]
            for p in range(len(factors)):
                a, b = factors[p], shifts[p]
                first = min(uint32(a * x0 + b), uint32(a * x1 + b))
                second = min(uint32(a * x2 + b), uint32(a * x3 + b))
                least[p] = min(least[p], min(first, second))


@compiled
def hash_bands(signatures: Shingles, rows: int, keys: Hashes) -> None:
    """keys[b, i] = the hash of rows `rows * b` to `rows * (b + 1)` of signature i."""
    for i in range(keys.shape[1]):
        for band in range(keys.shape[0]):
            value = uint64(band + 1)
            for k in range(rows * band, rows * (band + 1)):
                value = value * ODD + uint64(signatures[i, k])
            keys[band, i] = mix(value)


@compiled
def shared(first: Shingles, second: Shingles, needed: int) -> int:
    """How many values two ascending sets share, or some number below `needed` once that many are out of reach."""
    i, j, found = 0, 0, 0
    n, m = len(first), len(second)
    while i < n and j < m and found + min(n - i, m - j) >= needed:
        for _ in range(min(STRIDE, n - i, m - j)):  # neither set can end within so many steps
            x, y = first[i], second[j]
            found += x == y
            i += x <= y
            j += y <= x
    return found


@compiled
def similarity(first: Shingles, second: Shingles, threshold: float) -> float:
    """Exact Jaccard similarity of two sets where it is at least `threshold`, else some number below it."""
    both = len(first) + len(second)
    needed = int(threshold / (1 + threshold) * both) - 1  # one less, for rounding
    common = shared(first, second, needed)
    return common / (both - common)


@compiled
def search(
    first: int,
    begin: int,
    stop: int,
    starts: Longs,
    sizes: Ints,
    block: Shingles,
    cache: Shingles,
    places: Ints,
    links: Ints,
    kept: Flags,
    met: Ints,
    threshold: float,
    compared: int,
    witnesses: Ints,
    similarities: Floats,
    limited: Flags,
) -> tuple[int, int]:
    """Decide the entries begin to stop of a block that starts at entry `first`; (stop, -1), or (i, j) where entry i
    needs the set of an earlier block's entry j: put it in `cache`, its place in `places`, and call again from i.

    `met` holds the last entry that met each one, so that none is compared twice. Bands take turns, nearest rows first.
    """
    bands = links.shape[1]
    cursors = np.empty(bands, np.int32)
    for i in range(begin, stop):
        for band in range(bands):  # the link of a dropped entry leads to a kept one already
            link = links[i, band]
            if link >= 0 and not kept[link]:
                links[i, band] = links[link, band]
            cursors[band] = links[i, band]
        mine = block[starts[i] - starts[first] : starts[i] - starts[first] + sizes[i]]
        steps, open_bands = 0, 1
        while open_bands and kept[i]:
            open_bands = 0
            for band in range(bands):
                j = cursors[band]
                if j < 0:
                    continue
                if steps == compared:
                    limited[i], open_bands = True, 0
                    break
                if met[j] != i:
                    if min(sizes[i], sizes[j]) >= threshold * max(sizes[i], sizes[j]) - 1:
                        if j >= first:
                            theirs = block[starts[j] - starts[first] : starts[j] - starts[first] + sizes[j]]
                        elif places[j] < 0:
                            return i, j
                        else:
                            theirs = cache[places[j] : places[j] + sizes[j]]
                        value = similarity(mine, theirs, threshold)
                        if value >= threshold:
                            kept[i], witnesses[i], similarities[i] = False, j, value
                            break
                    met[j] = i
                steps += 1
                open_bands += 1
                cursors[band] = links[j, band]
    return stop, -1


@compiled
def two_bits(gram: np.uint64) -> np.uint64:
    """What an n-gram of this hash sets in its word of the bitmap."""
    return (uint64(1) << (gram >> uint64(40) & uint64(63))) | (uint64(1) << (gram >> uint64(34) & uint64(63)))


@compiled
def fill_bitmap(grams: Hashes, bitmap: Hashes) -> None:
    """Set the bits of all n-grams; `bitmap` has a power of two of words."""
    for gram in grams:
        bitmap[gram & uint64(len(bitmap) - 1)] |= two_bits(gram)


@compiled
def best_items(
    words: Hashes,
    bounds: Longs,
    wanted: Flags,
    rows: Longs,
    n: int,
    width: int,
    bitmap: Hashes,
    buckets: Ints,
    grams: Hashes,
    postings: Longs,
    places: Ints,
    items: Ints,
    sizes: Ints,
    found: Ints,
    shares: Floats,
) -> None:
    """For each row the item of which the largest share is covered by n-grams that a wanted turn of the row holds too.

    Fills found (rows,) with the item, the lowest of equals, -1 without one, and `shares`. The n-gram grams[g] occurs at
    places[postings[g]:postings[g + 1]]; an occurrence at p covers p to p + width; place p belongs to items[p], and
    sizes[e] places of item e count. `bitmap` rules out most others; those that begin like h are from
    buckets[h >> shift] on.
    """
    seen = np.full(len(grams), -1, np.int32)
    covered = np.full(len(items) + width, -1, np.int32)
    counts = np.zeros(len(sizes), np.int32)
    touched = np.empty(len(sizes), np.int32)
    leaving, last = power(n), uint64(len(bitmap) - 1)
    shift = uint64(64)
    while (1 << (uint64(64) - shift)) < len(buckets) - 1:
        shift -= uint64(1)
    for row in range(len(rows) - 1):
        some = 0
        for turn in range(rows[row], rows[row + 1]):
            first = bounds[turn]
            value = uint64(0)
            for k in range(first, bounds[turn + 1] if wanted[turn] else first):
                value = value * ODD + words[k]
                if k < first + n - 1:
                    continue
                if k >= first + n:
                    value -= leaving * words[k - n]
                gram = mix(value)
                if two_bits(gram) & ~bitmap[gram & last]:
                    continue
                g = buckets[gram >> shift]
                while g < len(grams) and grams[g] < gram:
                    g += 1
                if g == len(grams) or grams[g] != gram or seen[g] == row:
                    continue
                seen[g] = row
                for posting in range(postings[g], postings[g + 1]):
                    place = places[posting]
                    item = items[place]
                    if counts[item] == 0:
                        touched[some] = item
                        some += 1
                    for p in range(place, place + width):
                        if covered[p] != row:
                            covered[p] = row
                            counts[item] += 1
        found[row], shares[row] = -1, 0.0
        for t in range(some):
            item = touched[t]
            share = counts[item] / sizes[item]
            if share > shares[row] or (share == shares[row] and item < found[row]):
                found[row], shares[row] = item, share
            counts[item] = 0

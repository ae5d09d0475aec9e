"""Instructions that are nearly the same text: joined around one of them, never in chains."""

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from synthesis.join import Join
from warehouse.minhash import Sets, band_keys, bands, shingles, signatures
from warehouse.words import text_of, words_of

WORDS = 3  # in a shingle: instructions are short
NUMBER = re.compile(r"\d+")


def joins(texts: Mapping[str, str], sizes: Mapping[str, int], threshold: float) -> dict[str, Join]:
    """For each instruction (id to text) that is joined to another, which one; `sizes` is how many replies each has.

    The instruction with most replies is a centre first, of equally many the lowest id; whatever is not joined yet and
    at least `threshold` similar joins it. Texts with different numbers ask different things and are never joined. Pairs
    are found by MinHash: of those right at the threshold 98 in 100, of more similar ones more.
    """
    order = sorted(texts, key=lambda name: (-sizes[name], name))
    if len(order) < 2:
        return {}
    text = text_of(pa.array([texts[name].casefold() for name in order], pa.large_string()), np.arange(len(order) + 1))
    sets = shingles(text, words_of(text), WORDS)
    layout = bands(threshold)
    keys = band_keys(signatures(sets, layout.permutations), layout)
    meeting: list[dict[int, list[int]]] = [defaultdict(list) for _ in keys]
    for band, where in zip(keys.tolist(), meeting, strict=True):
        for place, key in enumerate(band):
            where[key].append(place)
    numbers = [NUMBER.findall(texts[name]) for name in order]
    found: dict[int, Join] = {}
    for centre, name in enumerate(order):
        if centre in found:
            continue
        met = {place for where, key in zip(meeting, keys[:, centre].tolist(), strict=True) for place in where[key]}
        for place in met:
            if place <= centre or place in found or numbers[place] != numbers[centre]:
                continue
            if (similarity := _jaccard(sets, centre, place)) >= threshold:
                found[place] = Join(name, similarity)
    return {order[place]: join for place, join in found.items()}


def _jaccard(sets: Sets, a: int, b: int) -> float:
    first, second = (sets.shingles[sets.offsets[i] : sets.offsets[i + 1]] for i in (a, b))
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)

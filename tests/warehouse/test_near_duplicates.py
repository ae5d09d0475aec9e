"""Near-duplicates: the greedy law against brute force, the recall a layout promises, and shards that change nothing."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import near_duplicates as module
from warehouse.errors import InputError
from warehouse.minhash import Layout, bands
from warehouse.near_duplicates import Fingerprints, NearDuplicates, fingerprint, near_duplicates

LAYOUT = Layout(0.5, 6, 2)


def texts(rows: np.ndarray) -> pa.Array:
    return pa.array([" ".join(f"w{word}" for word in row) for row in rows])


def prints(contents: pa.Array, layout: Layout = LAYOUT, ngram: int = 5) -> Fingerprints:
    return fingerprint(contents, np.arange(len(contents) + 1), layout, ngram)


def saved(contents: pa.Array, folder: Path, cuts: list[int], layout: Layout = LAYOUT, ngram: int = 5) -> list[Path]:
    """Fingerprints of the rows, cut into shards."""
    shards = []
    for start, stop in pairwise([0, *cuts, len(contents)]):
        shards.append(folder / f"{len(shards)}")
        prints(contents.slice(start, stop - start), layout, ngram).save(shards[-1])
    return shards


def as_sets(found: Fingerprints) -> list[set[int]]:
    return [set(found.sets.shingles[a:b].tolist()) for a, b in pairwise(found.sets.offsets)]


def brute_force(found: Fingerprints, alive: np.ndarray, threshold: float, compared: int) -> NearDuplicates:
    """The law, word for word: rows are compared bands by turns, nearest first."""
    sets, kept, dropped, limited = as_sets(found), [], [], []
    for i in np.flatnonzero(alive):
        mates = [
            [j for j in reversed(kept) if found.keys[band, i] == found.keys[band, j]] for band in range(len(found.keys))
        ]
        turns = [mate[depth] for depth in range(len(kept)) for mate in mates if depth < len(mate)]
        values = [(len(sets[i] & sets[j]) / len(sets[i] | sets[j]), j) for j in turns[:compared]]
        near = [(i, j, value) for value, j in values if value >= threshold]
        if near:
            dropped.append(near[0])
        else:
            kept.append(i)
            limited += [i] if len(turns) > compared else []
    rows, witnesses, values = zip(*dropped, strict=True) if dropped else ((), (), ())
    arrays = np.array(rows, int), np.array(witnesses, int), np.array(values, float)
    return NearDuplicates(len(alive), *arrays, np.array(limited, int))


def same(first: NearDuplicates, second: NearDuplicates) -> bool:
    return (
        first.rows.tolist() == second.rows.tolist()
        and first.witnesses.tolist() == second.witnesses.tolist()
        and first.similarities.tolist() == second.similarities.tolist()
        and (first.n, first.limited.tolist()) == (second.n, second.limited.tolist())
    )


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_the_law_whatever_the_shards_the_blocks_and_the_cache(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(1, 60))
    rows = rng.integers(0, 3, (8, 40))[rng.integers(0, data.draw(st.integers(1, 8)), n)]
    rows = np.where(rng.random((n, 40)) < rng.choice([0, 0.02, 0.1, 0.5], (n, 1)), rng.integers(0, 3, (n, 40)), rows)
    contents = texts([row[: rng.integers(20, 41)] for row in rows])
    alive = rng.random(n) < data.draw(st.sampled_from([1.0, 0.7]))
    compared = data.draw(st.sampled_from([256, 3, 1]))
    threshold = data.draw(st.sampled_from([0.5, 0.8, 1.0]))
    expected = brute_force(prints(contents, ngram=2), alive, threshold, compared)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    shards = saved(contents, tmp_path_factory.mktemp("shards"), cuts, ngram=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", data.draw(st.sampled_from([1, 50, 2**22])))
        patch.setattr(module.resource, "getrlimit", lambda _: (data.draw(st.sampled_from([2, 1000])), -1))
        limits = {"compared": compared, "cache": data.draw(st.sampled_from([10, 90, 2**16]))}
        found = near_duplicates(shards, alive, threshold, **limits)
        grown = None
        for count in sorted(data.draw(st.lists(st.integers(0, len(shards)), max_size=3))):
            first = [0, *cuts, n][count]
            grown = near_duplicates(shards[:count], alive[:first], threshold, earlier=grown, **limits)
        grown = near_duplicates(shards, alive, threshold, earlier=grown, **limits)
    assert same(found, expected)
    assert same(grown, expected)
    first = [0, *cuts, n][-2]
    assert same(found.first(first), brute_force(prints(contents, ngram=2), alive[:first], threshold, compared))


def planted(similarity: float, pairs: int, rng: np.random.Generator, length: int = 204) -> np.ndarray:
    """Pairs of rows of 200 shingles, all first ones before all second ones, that have about this similarity."""
    first = rng.integers(0, 10**6, (pairs, length))
    different = int(200 * (1 - similarity) / (1 + similarity))  # shingles of either row, each ending in a new word
    second = first.copy()
    second[:, length - different :] = rng.integers(0, 10**6, (pairs, different))
    return np.concatenate([first, second])


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9])
def test_planted_pairs_are_found_as_often_as_promised_and_nothing_else(tmp_path, similarity):
    pairs, layout = 1500, bands(0.7)
    contents = texts(planted(similarity, pairs, np.random.default_rng(7)))
    found = near_duplicates(saved(contents, tmp_path, [pairs], layout), threshold=0.7)
    assert found.witnesses.tolist() == (found.rows - pairs).tolist()
    assert found.similarities == pytest.approx(similarity, abs=0.005)
    assert (found.similarities >= 0.7).all()
    assert len(found.rows) / pairs > layout.recall(similarity) - 4 * (0.02 / pairs) ** 0.5


def test_brute_force_jaccard_agrees_on_what_is_near(tmp_path):
    """On a pool with families of rows: every drop is right, and what brute force over all pairs drops is dropped."""
    rng, n, threshold, layout = np.random.default_rng(5), 1200, 0.8, bands(0.8)
    rows = rng.integers(0, 10**5, (n // 4, 120))[rng.integers(0, n // 4, n)]
    rows = np.where(
        rng.random((n, 120)) < rng.choice([0, 0.005, 0.02, 0.05], (n, 1)), rng.integers(0, 10**5, (n, 120)), rows
    )
    contents = texts(rows)
    sets = as_sets(prints(contents, layout))
    found = near_duplicates(saved(contents, tmp_path, [500], layout), threshold=threshold)
    kept = sorted(set(range(n)) - set(found.rows.tolist()))
    for i, j, value in zip(found.rows, found.witnesses, found.similarities, strict=True):
        assert j in set(kept)
        assert j < i
        assert value == len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    near = [
        (i, j) for i in kept for j in kept if j < i and len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    ]
    assert len(found.rows) > 200
    assert len(near) <= 0.02 * len(found.rows)


def test_many_rows_of_one_template_are_few_comparisons(tmp_path, monkeypatch):
    """100,000 rows that share all keys: each is compared with the one that stays, not with those that went."""
    n, layout = 100_000, Layout(0.8, 2, 1)
    one = prints(pa.array(["the same five words again and again in a row of them"]), layout)
    sets = module.Sets(np.tile(one.sets.shingles, n), np.arange(n + 1) * len(one.sets.shingles))
    Fingerprints(np.tile(one.keys, n), sets, layout, 5).save(tmp_path)
    looked = []
    kernel = module.search
    monkeypatch.setattr(module, "search", lambda *given: looked.append(1) or kernel(*given))
    found = near_duplicates([tmp_path])
    assert len(found.rows) == n - 1
    assert (found.witnesses == 0).all()
    assert not len(found.limited)
    assert len(looked) == 1


def test_rows_that_share_a_bucket_and_stay_are_compared_with_a_bounded_number_and_counted(tmp_path):
    n, layout = 5000, Layout(0.8, 2, 1)
    sets = module.Sets(np.arange(2 * n, dtype=np.uint32), np.arange(n + 1) * 2)
    Fingerprints(np.ones((2, n), np.uint64), sets, layout, 5).save(tmp_path)
    found = near_duplicates([tmp_path], compared=100)
    assert len(found.rows) == 0
    assert found.limited.tolist() == list(range(51, n))  # entry 50 has 50 before it, met in both bands


def test_a_dropped_row_is_nobodys_witness(tmp_path):
    first = np.arange(60)
    second = np.concatenate([first[:56], 1000 + first[:4]])
    third = np.concatenate([2000 + first[:4], second[4:]])
    chain = texts(np.stack([first, second, third]))
    sets = as_sets(prints(chain))
    assert len(sets[1] & sets[2]) / len(sets[1] | sets[2]) >= 0.8 > len(sets[0] & sets[2]) / len(sets[0] | sets[2])
    found = near_duplicates(saved(chain, tmp_path, [1], bands(0.6, 128, 0.999)), threshold=0.8)
    assert (found.rows.tolist(), found.witnesses.tolist()) == ([1], [0])


def test_rows_that_are_not_alive_take_no_part(tmp_path):
    shards = saved(pa.array(["one two three"] * 4), tmp_path, [2])
    assert near_duplicates(shards, np.array([False, True, False, True])).rows.tolist() == [3]
    assert near_duplicates(shards).witnesses.tolist() == [0, 0, 0]
    assert near_duplicates(shards, np.zeros(4, bool)).rows.tolist() == []


def test_nothing_to_compare(tmp_path):
    assert near_duplicates([]).rows.tolist() == []
    shards = saved(pa.array(["a", "b"]), tmp_path, [0, 0, 2])
    assert near_duplicates(shards).rows.tolist() == []
    assert near_duplicates(saved(pa.array([], pa.string()), tmp_path / "none", [])).n == 0


def test_a_shard_cut_short_is_named(tmp_path):
    shards = saved(pa.array(["one two three"] * 4), tmp_path, [2])
    file = shards[1] / "shingles.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match=f"{file} is shorter"):
        near_duplicates(shards)


def test_what_does_not_fit_is_refused(tmp_path):
    first, second = saved(pa.array(["a b", "c d"]), tmp_path, [1])
    with pytest.raises(InputError, match="no fingerprints"):
        near_duplicates([tmp_path])
    with pytest.raises(InputError, match=r"similarity 0.5 and more.*0.4"):
        near_duplicates([first, second], threshold=0.4)
    with pytest.raises(InputError, match=r"expected \(2,\)"):
        near_duplicates([first, second], np.ones(3, bool))
    prints(pa.array(["e f"]), ngram=3).save(second)
    with pytest.raises(InputError, match="fingerprint one of them again"):
        near_duplicates([first, second])
    with pytest.raises(ValueError, match="keys for"):
        Fingerprints(np.zeros((2, 1), np.uint64), prints(pa.array(["a"])).sets, LAYOUT, 5)

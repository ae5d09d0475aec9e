"""What the sieve rules out cannot count: lists by way of it are those of a full pass, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import sieve, topk
from selection.cosine import cosines, unit_rows
from selection.problem import InProcess, Problem
from selection.sieve import Sieve, kth_of_lists, ordered, sieve_of
from selection.topk import Lists, counted, top_lists
from warehouse.errors import InputError

ROUTES = ["bfloat16", "float32"]
D = 24


def vectors(kind, n, rng, d=D):
    """Rows of one `kind` of pool."""
    plain = rng.standard_normal((n, d)).astype(np.float32)
    centres = np.random.default_rng(99).standard_normal((20, d)).astype(np.float32)
    crowded = centres[rng.integers(0, 20, n)]
    return {
        "random": plain,
        "clustered": crowded + 0.3 * plain,
        "anisotropic": plain + 4 * centres[0],
        "repeated": centres[rng.integers(0, 20, n)] + plain[rng.integers(0, min(n, 50), n)],
        "tiny": plain * np.float32(10.0) ** rng.integers(-37, 37, (n, 1)),
        "opposite": np.abs(plain),
    }[kind]


def world(kind, n=3000, m=30, seed=0, block_rows=700, threads=2, dtype=np.float32):
    rng = np.random.default_rng(seed)
    targets = vectors(kind, m, rng) * (-1 if kind == "opposite" else 1)
    return Problem(
        budget=1,
        keys=rng.integers(0, 2 * n, n).astype(np.uint64),
        candidates={"v": vectors(kind, n, rng).astype(dtype)},
        targets={"v": targets},
        target_task=np.zeros(m, np.int64),
        reducer=InProcess(block_rows, threads),
    )


def lists_of(problem, lists=None):
    m = len(problem.targets["v"])
    return Lists("v", unit_rows(problem.targets["v"]).values, np.arange(m) if lists is None else np.array(lists))


def shrink(monkeypatch):
    """Sizes at which a pool of 3,000 rows is sieved as one of a million is."""
    for name, value in {"SIEVE_WORK": 0, "FIRST_ROWS": 100, "RUN": 8, "CENSUS_ROWS": 300, "SAMPLE_BLOCK": 64}.items():
        monkeypatch.setattr(topk, name, value)
    monkeypatch.setattr(sieve, "TILE", 128)
    monkeypatch.setattr(sieve, "SLAB", 8)


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


def by_way_of(route, problem, lists, k, monkeypatch):
    """The lists, and how many pairs the sieve left to score: None where it was not used."""
    scored = []
    with monkeypatch.context() as patch:
        patch.setattr(topk, "route_for", lambda work: route)
        plain = topk._scored
        patch.setattr(topk, "_scored", lambda *given: scored.append(given) or plain(*given))
        if route is None:
            patch.setattr(topk, "SIEVE_WORK", 1 << 62)
        top = top_lists(problem, lists, k)
    return top, sum(len(part) for part in scored[0][3].parts) if scored else None


def same(first, second):
    return (
        np.array_equal(first.rows, second.rows)
        and np.array_equal(first.scores, second.scores)
        and np.array_equal(first.keys, second.keys)
        and first.census.zero == second.census.zero
        and first.census.histogram(1) == second.census.histogram(1)
    )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("starts", [None, [0], [0, 1, 7, 29]])
@pytest.mark.parametrize("kind", ["random", "clustered", "anisotropic", "repeated", "tiny", "opposite"])
def test_lists_by_way_of_the_sieve_are_those_of_a_full_pass(kind, starts, route, small, monkeypatch):
    problem = world(kind)
    lists = lists_of(problem, starts)
    for k in (1, 20):
        expected, unused = by_way_of(None, problem, lists, k, monkeypatch)
        found, left = by_way_of(route, problem, lists, k, monkeypatch)
        assert same(found, expected)
        assert unused is None
        assert left < 3000 * 30 / 2


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("route", ROUTES)
def test_a_memory_mapped_file_of_another_type_is_sieved_as_it_lies(tmp_path, dtype, route, small, monkeypatch):
    problem = world("anisotropic", dtype=dtype)
    np.save(tmp_path / "v.npy", problem.candidates["v"])
    expected, _ = by_way_of(None, problem, lists_of(problem), 9, monkeypatch)
    problem.candidates["v"] = np.load(tmp_path / "v.npy", mmap_mode="r")
    found, left = by_way_of(route, problem, lists_of(problem), 9, monkeypatch)
    assert same(found, expected)
    assert left is not None


@given(st.integers(0, 2**32 - 1), st.integers(1, 3500), st.integers(1, 3), st.sampled_from(ROUTES), st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_neither_blocks_nor_threads_nor_the_order_of_rows_matter(seed, block_rows, threads, route, k):
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        order = np.random.default_rng(seed).permutation(1500)
        problem = world("repeated", n=1500, m=9, seed=seed)
        problem.keys[:] = np.arange(1500)
        expected, _ = by_way_of(None, problem, lists_of(problem), k, patch)
        stored = replace(
            problem,
            keys=problem.keys[order],
            candidates={"v": problem.candidates["v"][order]},
            reducer=InProcess(block_rows, threads),
        )
        found, _ = by_way_of(route, stored, lists_of(problem), k, patch)
    assert np.array_equal(order[found.rows], expected.rows)
    assert np.array_equal(found.scores, expected.scores)
    assert found.census.histogram(1) == expected.census.histogram(1)


def everything(values, rows, route, sample=None):
    """A sieve that keeps all, and how far each product is from its score."""
    sifter = sieve_of(
        values, np.arange(len(values)), 1, np.full(len(values), -np.inf), rows if sample is None else sample, route
    )
    pairs, _, _ = sifter.sift(rows, 0, 1 << 40)
    exact = cosines(values, unit_rows(rows).values)[pairs.directions, pairs.rows]
    return sifter, pairs, np.abs(pairs.products + sifter.offsets[pairs.directions] - exact)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["random", "anisotropic", "clustered", "tiny", "opposite"])
def test_no_product_is_further_from_its_score_than_the_bound(kind, route):
    rng = np.random.default_rng(1)
    values = np.asarray(unit_rows(vectors(kind, 20, rng, 384)).values)
    sifter, pairs, off = everything(values, vectors(kind, 500, rng, 384), route)
    assert len(pairs) == 500 * 20
    assert np.all(off <= sifter.errors[pairs.directions] + sifter._output * np.abs(pairs.products))


@pytest.mark.parametrize("d", [144, 384, 768])
def test_the_bound_holds_where_all_roundings_add_up_and_is_no_wider_than_that_needs(d):
    """Entries halfway between two numbers of bfloat16, whose roundings the direction has the signs of."""
    rng = np.random.default_rng(d)
    signs = rng.choice([-1.0, 1.0], d)
    entry = np.full(d, 1 + 2.0**-8 + 2.0**-20)  # rounds up by almost 2⁻⁸
    entry[: d // 2] = 1 + 2.0**-7 + 2.0**-8 - 2.0**-20  # rounds down by almost 2⁻⁸
    scale = 2.0 ** -np.ceil(np.log2(np.sqrt(d)))
    row = (entry * signs * scale).astype(np.float64)
    rest = np.sqrt(1 - np.square(row).sum())  # one more number brings the length to 1 and leaves the others alone
    rows = np.stack([np.append(row, rest), -np.append(row, rest)])
    away = np.append(np.where(entry > 1.004, -1, 1) * signs, 0.0)
    values = np.asarray(unit_rows(np.stack([away, -away, rows[0]])).values)
    sifter, pairs, off = everything(values, rows, "bfloat16")
    bound = sifter.errors[pairs.directions] + sifter._output * np.abs(pairs.products)
    assert np.all(off <= bound)
    assert (off / bound).max() > 0.5


@pytest.mark.parametrize("route", ROUTES)
def test_rows_unlike_the_sample_are_scored_exactly(route):
    rng = np.random.default_rng(2)
    sample = vectors("anisotropic", 400, rng)
    rows = np.concatenate([sample[:50], -sample[:3], np.zeros((1, D)), np.full((1, D), 1e-30), np.full((1, D), 3e38)])
    values = np.asarray(unit_rows(vectors("random", 6, rng)).values)
    _, pairs, off = everything(values, rows.astype(np.float32), route, sample)
    assert set(zip(pairs.directions.tolist(), pairs.rows.tolist(), strict=True)) == {
        (j, i) for j in range(6) for i in range(56)
    }
    assert len(pairs) == 56 * 6
    assert off[pairs.rows >= 50].max() < 1e-6


@pytest.mark.parametrize("route", ROUTES)
def test_broken_rows_and_rows_without_length_are_counted_over_all_rows(route, small, monkeypatch):
    problem = world("anisotropic")
    problem.candidates["v"][[5, 700, 2999]] = 0
    found, left = by_way_of(route, problem, lists_of(problem), 3, monkeypatch)
    assert found.census.zero == 3
    assert left is not None
    problem.candidates["v"][[1500, 41, 2998]] = [[np.nan], [np.inf], [-np.inf]]
    with pytest.raises(InputError, match=r"3 of 3000 candidate vectors in 'v'.*row 41"):
        by_way_of(route, problem, lists_of(problem), 3, monkeypatch)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("block_rows", [100, 3000])
def test_a_pool_that_the_sieve_cannot_thin_out_is_scored_in_full(block_rows, route, small, monkeypatch):
    problem = world("random", block_rows=block_rows)
    problem.candidates["v"][:] = problem.candidates["v"][0]
    monkeypatch.setattr(topk, "PAIRS_KEPT", 500)
    found, left = by_way_of(route, problem, lists_of(problem), 3, monkeypatch)
    assert left is None
    assert found.rows[0].tolist() == np.lexsort((np.arange(3000), problem.keys))[:3].tolist()


@pytest.mark.parametrize("route", ROUTES)
def test_pairs_are_looked_through_on_the_way_where_there_are_many(route, small, monkeypatch):
    problem = world("random", block_rows=50)
    lists = lists_of(problem)
    expected, _ = by_way_of(None, problem, lists, 2, monkeypatch)
    monkeypatch.setattr(topk, "PAIRS_KEPT", 600)
    found, left = by_way_of(route, problem, lists, 2, monkeypatch)
    assert same(found, expected)
    assert left is not None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_kth_of_every_list_counts_a_row_once(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    p, k, count = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    lists, rows = rng.integers(0, count, p), rng.integers(0, 9, p)
    scores = rng.integers(-40, 40, p) / 16
    found = kth_of_lists(lists, rows, scores, k, count)
    for each in range(count):
        best = {row: scores[(lists == each) & (rows == row)].max() for row in rows[lists == each].tolist()}
        expected = sorted(best.values(), reverse=True)[k - 1] if len(best) >= k else -np.inf
        assert found[each] <= expected
        assert found[each] == pytest.approx(expected, abs=1e-6)


def test_integers_order_as_the_numbers_do():
    numbers = np.array([-np.inf, -3e38, -1, -1e-45, -0.0, 0.0, 1e-45, 0.5, 1, np.inf], np.float32)
    assert np.all(np.diff(ordered(numbers).astype(np.int64)) > 0)


def test_the_census_counts_the_same_rows_in_any_order():
    keys = np.random.default_rng(0).integers(0, 2**63, 100_000).astype(np.uint64)
    chosen = counted(keys, len(keys))
    assert 0.9 * topk.CENSUS_ROWS < chosen.sum() < 1.1 * topk.CENSUS_ROWS
    assert np.array_equal(counted(keys[::-1], len(keys))[::-1], chosen)
    assert 0.9 * topk.CENSUS_ROWS < counted(np.arange(100_000, dtype=np.uint64), 100_000).sum() < 1.1 * topk.CENSUS_ROWS


def test_a_sieve_of_rows_without_length_is_none():
    values = np.asarray(unit_rows(np.ones((1, 3))).values)
    assert sieve_of(values, np.zeros(1, np.int64), 1, np.zeros(1), np.zeros((5, 3), np.float32), "float32") is None
    assert isinstance(sieve_of(values, np.zeros(1, np.int64), 1, np.zeros(1), np.eye(3), "float32"), Sieve)

"""Selection: RDS+ scoring and turns against the released code's way and against FAISS, how near its products are to
the machine's best, and the trigram signal. How time and memory grow with the pool is `benchmarks/bench_sweep.py`.

python benchmarks/bench_selection.py [--json]        needs 6 GB of memory, and takes about 3 minutes
"""

import importlib.util
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.frame import Row, best_of, race, run
from selection.by_turns import start_depth
from selection.cosine import unit_rows
from selection.problem import Problem
from selection.rds_plus import RdsPlus
from selection.round_robin import retry
from selection.sieve import BF16_WORK, TILE, Halves, one_core_each, route_for, sieve_of
from selection.trigrams import trigrams
from warehouse.records import Rows, Selection, Spec

D, Q = 384, 50
N, MANY = 1_000_000, 1000
Vectors = NDArray[np.float32]


def vectors(n: int, rng: np.random.Generator) -> Vectors:
    """(n, D) rows of unit length around 200 centres, as embeddings of real text crowd."""
    centres = rng.standard_normal((200, D), dtype=np.float32)
    rows = centres[rng.integers(0, 200, n)] + rng.standard_normal((n, D), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def alike(n: int, rng: np.random.Generator) -> Vectors:
    """(n, D) rows of unit length whose cosines are 0.85 or so, as those of language models' representations."""
    rows = rng.standard_normal((n, D), dtype=np.float32)
    rows += 2.4 * np.random.default_rng(1).standard_normal(D, dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def problem(pool: Vectors, targets: Vectors, budget: int) -> Problem:
    return Problem(
        budget=budget,
        keys=np.arange(len(pool), dtype=np.uint64),
        candidates={"representation": pool},
        targets={"representation": targets},
        target_task=np.zeros(len(targets), np.int64),
    )


def ours(question: Problem, policy: Any) -> Selection:
    return RdsPlus(Spec("representation", {}), policy)(question, np.random.default_rng(0))


def dictionaries(pool: Vectors, targets: Vectors, budget: int) -> list[int]:
    """The released code's way: a dictionary of dictionaries of floats, a full sort per target, `list.pop(0)` per pick,
    and the list of picks rebuilt without its duplicates after each."""
    products = targets @ pool.T
    scores = {t: {row: float(products[t, row]) for row in range(len(pool))} for t in range(len(targets))}
    ranked = {t: sorted(scores[t].items(), key=lambda item: item[1], reverse=True) for t in scores}
    picks: list[int] = []
    while len(picks) < budget:
        for t in ranked:
            picks.append(ranked[t].pop(0)[0])
            picks = list(dict.fromkeys(picks))
    return picks[:budget]


def faiss_lists(index: Any, targets: Vectors, budget: int) -> Rows:
    """Exact inner products and top-k by FAISS, then the same turns. The index stands already and checks no vector."""
    k = start_depth(budget, len(targets))
    while True:
        rows = index.search(targets, k)[1]
        turns = retry(rows, budget)
        if turns is not None:
            return np.asarray(rows[turns.lists, turns.places])
        k = min(2 * k, budget)


def agree(first: Rows | list[int], second: Rows | list[int]) -> None:
    """Both must have picked the same rows but for near ties: float32 sums round where ours do not."""
    shared = len(np.intersect1d(first, second)) / len(first)
    if shared < 0.999:
        raise AssertionError(f"only {shared:.2%} of the picks agree")


def against_dictionaries(rng: np.random.Generator) -> Iterator[Row]:
    """At a size that dictionaries can be waited for; and by the pair, where theirs takes longer the larger the pool."""
    small = 50_000, 2 * Q
    pool, targets, budget = vectors(small[0], rng), vectors(small[1], rng), 1000
    question = problem(pool, targets, budget)
    seconds, answer, peer, theirs = race(
        2, lambda: ours(question, "consume"), lambda: dictionaries(pool, targets, budget)
    )
    agree(answer.rows, theirs)
    yield Row("RDS+ 1,000 of 50,000 rows, 100 targets, against dicts and sorts", seconds, "s", 10, peer)
    large = problem(vectors(N, rng), vectors(MANY, rng), 10_000)
    seconds, _ = best_of(2, lambda: ours(large, "consume"))
    mine, its = seconds / (N * MANY) * 1e9, peer / (small[0] * small[1]) * 1e9
    yield Row("the same by the pair: of 1,000,000 x 1,000, dicts of 50,000 x 100", mine, "ns", 100, its)


def against_faiss(rng: np.random.Generator) -> Iterator[Row]:
    import faiss

    pool, targets = vectors(200_000, rng), vectors(Q, rng)
    index = faiss.IndexFlatIP(D)
    index.add(pool)
    for budget in (1_000, 10_000):
        question = problem(pool, targets, budget)
        mine, theirs = partial(ours, question, "retry"), partial(faiss_lists, index, targets, budget)
        seconds, answer, peer, picks = race(7, mine, theirs)
        agree(answer.rows, picks)
        yield Row(f"RDS+ {budget:,} of 200,000 rows, 50 targets, against FAISS", seconds, "s", 0.8, peer)


def at_scale_against_faiss(rng: np.random.Generator) -> Iterator[Row]:
    import faiss

    goal = 1.5 if route_for(BF16_WORK) == "bfloat16" else 1.0
    for kind, draw in (("crowded", vectors), ("alike", alike)):
        pool, targets = draw(N, rng), draw(MANY, rng)
        index = faiss.IndexFlatIP(D)
        index.add(pool)
        question = problem(pool, targets, 10_000)
        mine, theirs = partial(ours, question, "retry"), partial(faiss_lists, index, targets, 10_000)
        seconds, answer, peer, picks = race(2, mine, theirs)
        agree(answer.rows, picks)
        yield Row(f"RDS+ 10,000 of 1,000,000 rows ({kind}), 1,000 targets, FAISS", seconds, "s", goal, peer)


def products(rng: np.random.Generator) -> Iterator[Row]:
    """The products as the sieve takes them, tile by tile, against the best rate of torch on one core."""
    import torch

    if route_for(BF16_WORK) != "bfloat16":
        return
    pool, values = vectors(8 * TILE, rng), np.asarray(unit_rows(vectors(MANY, rng)).values)
    sieve = sieve_of(values, np.arange(MANY), 1, np.zeros(MANY), pool, "bfloat16")
    if sieve is None:
        raise AssertionError("the pool has no rows of any length")
    with one_core_each("bfloat16"):
        tile = Halves.of(sieve.factors, sieve.centre)
        tile.centred(pool[:TILE])
        large, factors = torch.from_numpy(pool).bfloat16(), torch.as_tensor(np.asarray(values, np.float32)).bfloat16()
        whole = {rows: partial(torch.mm, factors, large[:rows].T) for rows in (TILE, 2 * TILE, 4 * TILE, 8 * TILE)}
        mine = max(_rate(TILE, partial(tile.multiplied, slice(0, MANY))) for _ in range(3))
        peer = max(_rate(rows, multiply) for rows, multiply in whole.items())
    yield Row("products of bfloat16 on one core, against torch's best", mine, "GFLOP/s", 0.6, peer, more_is_better=True)


def _rate(rows: int, multiply: Callable[[], Any]) -> float:
    """GFLOP per CPU second of a product of MANY directions with `rows` rows."""
    multiply()
    seconds, _ = best_of(10, multiply, time.thread_time)
    return 2 * MANY * D * rows / seconds / 1e9


def trigram_signal() -> Row:
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlucmfw", k=draw.randint(2, 9))) for _ in range(5000)]
    texts = [" ".join(draw.choices(words, k=46)) for _ in range(20_000)]
    seconds, _ = best_of(3, lambda: trigrams(texts), time.process_time)
    return Row("trigrams of 20,000 texts of 300 characters, one core", seconds, "CPU s", 2.0)


def measure() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    yield from against_dictionaries(rng)
    if importlib.util.find_spec("faiss"):
        yield from against_faiss(rng)
        yield from at_scale_against_faiss(rng)
    else:
        print("FAISS is not installed: its rows are not measured (pip install faiss-cpu)", file=sys.stderr)
    yield from products(rng)
    yield trigram_signal()


if __name__ == "__main__":
    sys.exit(run(measure))

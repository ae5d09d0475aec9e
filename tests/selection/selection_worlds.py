"""Small problems for the tests of selection methods, and the methods' algorithms written without any economy."""

import numpy as np

from selection.cosine import cosines, unit_rows
from selection.problem import InProcess, Problem
from selection.table import METHODS, build
from selection.trigrams import trigrams
from warehouse.records import Spec

FILLED = {"representation": Spec("representation", {"model": "m", "template": "t"}), "tokenizer": "tokenizer-1"}
WORDS = ["add", "two", "numbers", "sort", "every", "word", "of", "this", "list", "which", "city", "is", "older"]


def method(name, **params):
    return build(name, params, **FILLED)


def every_method():
    """Every entry of the table with its defaults, and every choice of its literal parameters."""
    yield from ((name, {}) for name in METHODS)
    yield "length", {"unit": "characters"}
    yield "top_k", {"aggregate": "max"}
    yield from (("rds_plus", {"policy": policy}) for policy in ("consume", "global_max"))
    yield "lexical", {"policy": "consume"}


def problem(budget, n=60, m=5, d=17, seed=0, tasks=None, block_rows=16_384, distinct=None):
    """A problem that any method can answer. `distinct` draws the vectors from that many, so that scores tie."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((distinct or n, d)).astype(np.float32)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]
    target_task = np.zeros(m, np.int64) if tasks is None else np.asarray(tasks, np.int64)
    return Problem(
        budget=budget,
        keys=rng.permutation(10 * n)[:n].astype(np.uint64),
        candidates={
            "representation": vectors[rng.integers(0, len(vectors), n)] if distinct else vectors,
            "trigrams": trigrams(texts, 512),
            "length": rng.integers(1, 30, n),
        },
        targets={
            "representation": rng.standard_normal((m, d)).astype(np.float32),
            "trigrams": trigrams([" ".join(rng.choice(WORDS, 6)) for _ in range(m)], 512),
        },
        target_task=target_task,
        task_names=tuple(f"task {number}" for number in range(target_task.max() + 1)),
        groups={"source": rng.choice(["alpaca", "dolly", "flan", "math"], n, p=[0.6, 0.25, 0.1, 0.05])},
        reducer=InProcess(block_rows),
    )


def permuted(world, order):
    """The same pool with its rows stored in another order: row i was row order[i]."""
    return Problem(
        budget=world.budget,
        keys=world.keys[order],
        candidates={name: signal[order] for name, signal in world.candidates.items()},
        targets=world.targets,
        target_task=world.target_task,
        task_names=world.task_names,
        groups={name: labels[order] for name, labels in world.groups.items()},
        reducer=world.reducer,
    )


def score_matrix(world, signal="representation"):
    """All cosines (m, n) at once, in the order of the targets."""
    return cosines(unit_rows(world.targets[signal]).values, unit_rows(world.candidates[signal]).values)


def ranking(scores, keys):
    """Every list in full: rows by descending score, ascending key, ascending row."""
    return [sorted(range(len(keys)), key=lambda row: (-line[row], keys[row], row)) for line in scores]


def round_robin(rankings, budget, policy):
    """Algorithm 1 of the paper (`retry`) and the released code (`consume`), over full lists that are popped."""
    lists, picks = [list(ranked) for ranked in rankings], []
    while len(picks) < budget:
        for number, ranked in enumerate(lists):
            while policy == "retry" and ranked and ranked[0] in {row for row, _ in picks}:
                ranked.pop(0)
            row = ranked.pop(0) if ranked else None
            if row is not None and row not in {taken for taken, _ in picks} and len(picks) < budget:
                picks.append((row, number))
    return picks

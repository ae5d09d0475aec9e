"""Small problems for the tests of selection methods, and the methods' algorithms written without any economy."""

import numpy as np

from selection.concepts import concepts
from selection.cosine import cosines, unit_rows
from selection.ngrams import ngrams
from selection.problem import InProcess, Problem
from selection.repetition import repetition
from selection.table import METHODS, build
from selection.trigrams import trigrams
from warehouse.records import Spec

SIGNALS = (
    "representation", "instructions", "response", "response_alone", "scores", "degradation", "gradient",
    "target_gradient", "length", "repetition",
)  # fmt: skip
FILLED = {name: Spec(name, {"model": "m", "template": "t"}) for name in SIGNALS} | {"tokenizer": "tokenizer-1"}
WORDS = ["add", "two", "numbers", "sort", "every", "word", "of", "this", "list", "which", "city", "is", "older"]


def method(name, **params):
    return build(name, params, lambda field, given: FILLED[field])


def every_method():
    """Every entry of the table with its defaults, and every choice of its literal parameters."""
    yield from ((name, {}) for name in METHODS)
    yield "length", {"unit": "characters"}
    yield "top_k", {"aggregate": "max"}
    yield from (("rds_plus", {"policy": policy}) for policy in ("consume", "global_max"))
    yield "lexical", {"policy": "consume"}
    yield "perplexity", {"take": "mid"}
    yield "ifd", {"policy": "perplexity_ratio"}
    yield from (("grape", {"order": order}) for order in ("reverse", "random"))
    yield from (("deita", {"by": by}) for by in ("complexity", "quality"))
    yield from (("k_means", {"within": within, "quota": "equal"}) for within in ("farthest", "random"))
    yield from (("replay", {"policy": policy}) for policy in ("similar", "support"))
    yield "got_d", {"contrast": True}
    yield "dsir", {"temperature": 0}
    yield "tsds", {"sample": False}
    yield "rds_plus", {"reverse": True}
    yield "random", {"reverse": True}


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
            **_signals(np.random.default_rng([seed, 1]), texts, d, distinct),
        },
        targets={
            "representation": rng.standard_normal((m, d)).astype(np.float32),
            **_signals(np.random.default_rng([seed, 2]), [" ".join(rng.choice(WORDS, 6)) for _ in range(m)], d, None),
            "trigrams": trigrams([" ".join(rng.choice(WORDS, 6)) for _ in range(m)], 512),
        },
        target_task=target_task,
        task_names=tuple(f"task {number}" for number in range(target_task.max() + 1)),
        groups={
            "source": rng.choice(["alpaca", "dolly", "flan", "math"], n, p=[0.6, 0.25, 0.1, 0.05]),
            "instruction": rng.integers(0, max(1, n // 3), n),
        },
        reducer=InProcess(block_rows),
    )


def _signals(rng, texts, d, distinct):
    """The other signals of `texts`; as vectors, numbers are drawn from `distinct` of them, so that scores tie."""
    n = len(texts)
    which = rng.integers(0, distinct, n) if distinct else np.arange(n)
    vectors = rng.standard_normal((2, n, d)).astype(np.float32)[:, which]
    numbers = rng.uniform(0.1, 5, (3, n, 3)).astype(np.float32)[:, which]
    numbers[:2, :, 1] = rng.integers(1, 30, n)
    numbers[:2, :, 2] = rng.random(n) < 0.1
    return {
        "instructions": vectors[0],
        "gradient": vectors[1],
        "response": numbers[0],
        "response_alone": numbers[1],
        "scores": numbers[2],
        "degradation": rng.uniform(0, np.log(2), n).astype(np.float32)[which],
        "ngrams": ngrams(texts, 512),
        "repetition": repetition(texts),
        "concepts": concepts(texts, 512),
    }


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

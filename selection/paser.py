"""`paser`: rows that repair what a model lost when it was damaged, pruned for one: PASER.

Clusters of prompts stand for capabilities. The worse a capability was hurt, the more of the budget it gets; inside it
come the rows whose replies were hurt most for what they cost to train; rows that join known concepts in a new way are
put last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from selection import concepts
from selection.answer import HIGHER, selection, summary
from selection.buckets import check_dims
from selection.mixing import poured
from selection.problem import Problem
from selection.spectral import Clusters, clusters
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

NO_REPLY, INCONSISTENT = "no_reply", "inconsistent"


def efficiency(degradation: Floats, tokens: Rows) -> Floats:
    """(n,) degradation over the logarithm of the cost tokens², the latter at least 1; higher is better."""
    return np.asarray(degradation / np.maximum(2 * np.log(np.maximum(tokens, 1)), 1.0))


def cluster_means(degradation: Floats, cluster: Rows, count: int) -> Floats:
    """(count,) mean degradation of each cluster's rows; 0 for a cluster without rows."""
    sizes = np.bincount(cluster, minlength=count)
    return np.asarray(np.bincount(cluster, degradation, count) / np.maximum(sizes, 1))


@dataclass(frozen=True, slots=True)
class Passed:
    """Rows taken, in their order, and rows put off because of their concepts, in theirs."""

    taken: Rows
    put_off: Rows


def consistent(order: Rows, cluster: Rows, budgets: Rows, about: csr_matrix | None) -> Passed:
    """The rows of `order` that fit into their cluster's budget and agree with those taken before.

    A row agrees when any two of its concepts that are known stand together in a row taken before; taken, its concepts
    become known. `cluster` (n,) indexes `budgets` (c,); `about` (n, dims) are the rows' concepts, None to ask nothing.
    Takes the square of a row's concepts in time and, for rows taken, in memory.
    """
    left = budgets.tolist()
    known: set[int] = set()
    together: set[tuple[int, int]] = set()
    taken, put_off = [], []
    for row, own in zip(order.tolist(), cluster[order].tolist(), strict=True):
        if not left[own]:
            continue
        theirs = [] if about is None else about.indices[about.indptr[row] : about.indptr[row + 1]].tolist()
        if not together.issuperset(_pairs([concept for concept in theirs if concept in known])):
            put_off.append(row)
            continue
        known.update(theirs)
        together.update(_pairs(theirs))
        taken.append(row)
        left[own] -= 1
    return Passed(np.array(taken, np.int64), np.array(put_off, np.int64))


def late(passed: Passed, cluster: Rows, budgets: Rows) -> Rows:
    """Of the rows put off, the first of each cluster that fill what is left of its budget."""
    short = budgets - np.bincount(cluster[passed.taken], minlength=len(budgets))
    own = cluster[passed.put_off]
    together = np.argsort(own, kind="stable")
    ranks = np.empty(len(own), np.int64)
    ranks[together] = np.arange(len(own)) - np.searchsorted(own[together], own[together], side="left")
    return passed.put_off[ranks < short[own]]


@dataclass(frozen=True, slots=True)
class Paser:
    """Budgets by how much each cluster of prompts was hurt, rows inside by what they repair per cost.

    instructions  the signal of prompts that clusters are made of
    degradation   divergence of the damaged model from the whole one, nats, mean over a row's reply tokens
    length        tokens of the row
    clusters      how many; where not given, as many as the widest gap of the graph's eigenvalues says
    most          the most clusters that it may say
    neighbours    of each row in the graph
    consistency   whether rows that join known concepts anew are put last
    dims          buckets that concepts are hashed into

    A cluster's budget is its mean degradation over the sum of all, by largest remainder, as far as its rows go; the
    rest flows to the others. Scores are degradation / max(1, ln tokens²); higher is better. Rows without a degradation
    (no reply token) come after all others with score 0. A smaller budget is not the beginning of a larger one. Raises
    `InputError` for vectors that are not finite and for degradations or lengths that cannot be.
    """

    compares: ClassVar[bool] = False

    instructions: Spec
    degradation: Spec
    length: Spec
    clusters: int | None = None
    most: int = 20
    neighbours: int = 30
    consistency: bool = True
    dims: int = concepts.DIMS

    def __post_init__(self) -> None:
        check_dims(self.dims, concepts.DIMS)
        given = {"clusters": 1 if self.clusters is None else self.clusters, "most": self.most}
        if wrong := {name: n for name, n in {**given, "neighbours": self.neighbours}.items() if not 1 <= n <= 1000}:
            raise InputError(f"paser: {wrong}; give numbers from 1 to 1000")

    @property
    def reads(self) -> Mapping[str, Spec]:
        own = {"instructions": self.instructions, "degradation": self.degradation, "length": self.length}
        return {**own, "concepts": concepts.spec(self.dims)} if self.consistency else own

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        degradation = np.asarray(problem.candidates["degradation"][:], np.float64)
        tokens = np.asarray(problem.candidates["length"][:], np.int64)
        _check(degradation, tokens)
        found = clusters(problem, "instructions", self.neighbours, self.clusters, self.most, rng)
        by_key = problem.by_key
        replied = by_key[~np.isnan(degradation[by_key])]
        hurt = cluster_means(degradation[replied], found.of[replied], found.count)
        sizes = np.bincount(found.of[replied], minlength=found.count)
        budgets = poured(hurt, sizes, min(problem.budget, len(replied)))
        scores = np.where(np.isnan(degradation), 0.0, efficiency(np.nan_to_num(degradation), tokens))
        order = replied[np.argsort(-scores[replied], kind="stable")]
        about = csr_matrix(problem.candidates["concepts"][:]).sorted_indices() if self.consistency else None
        passed = consistent(order, found.of, budgets, about)
        filling = late(passed, found.of, budgets)
        silent = by_key[np.isnan(degradation[by_key])][: problem.budget - len(passed.taken) - len(filling)]
        rows = np.concatenate([passed.taken, filling, silent])
        marks = [""] * len(passed.taken) + [INCONSISTENT] * len(filling) + [NO_REPLY] * len(silent)
        facts = {
            "clusters": _told(found, hurt, budgets),
            "eigenvalues": found.eigenvalues.tolist(),
            "distinct_prompts": found.distinct,
            "rows_of_length_0": found.zero,
            "inconsistent": len(passed.put_off),
            "no_reply": problem.n - len(replied),
            "filled": {INCONSISTENT: len(filling), NO_REPLY: len(silent)},
            **summary(scores[rows], HIGHER),
        }
        return selection(rows, scores[rows], _reasons(rows, found.of, degradation, tokens, marks), HIGHER, **facts)


def _check(degradation: Floats, tokens: Rows) -> None:
    wrong = np.flatnonzero(np.isinf(degradation) | (degradation < 0))
    if len(wrong):
        first = f"the first is row {wrong[0]} with {degradation[wrong[0]]}"
        raise InputError(f"{len(wrong)} degradations are infinite or below 0, {first}: measure them again")
    if np.isnan(degradation).all():
        raise InputError(f"none of {len(degradation)} rows has a degradation: paser needs replies to measure")
    if tokens.min() < 0:
        row = int(tokens.argmin())
        raise InputError(f"{(tokens < 0).sum()} lengths are below 0, row {row} has {tokens[row]}: measure them again")


def _pairs(theirs: list[int]) -> list[tuple[int, int]]:
    """All pairs of ascending concepts."""
    return [(first, second) for at, first in enumerate(theirs) for second in theirs[at + 1 :]]


def _told(found: Clusters, hurt: Floats, budgets: Rows) -> list[dict[str, Any]]:
    sizes = np.bincount(found.of, minlength=found.count)
    columns = zip(sizes.tolist(), hurt.tolist(), budgets.tolist(), strict=True)
    return [{"rows": size, "degradation": mean, "budget": budget} for size, mean, budget in columns]


def _reasons(rows: Rows, cluster: Rows, degradation: Floats, tokens: Rows, marks: list[str]) -> list[str]:
    columns = zip(cluster[rows].tolist(), degradation[rows].tolist(), tokens[rows].tolist(), marks, strict=True)
    return [
        f"cluster={own} degradation={hurt:.4g} tokens={length}{f' filled={mark}' if mark else ''}"
        for own, hurt, length, mark in columns
    ]

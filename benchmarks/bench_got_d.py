"""GOT-D's duals against POT's Sinkhorn and geomloss's, each with the least work that is accurate to 1e-4, and memory.

An error is the largest of the centred prices g, against prices converged in float64, over the largest of these.

python benchmarks/bench_got_d.py [--json]
"""

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.frame import Row, best_of, run
from selection.got_d import GotD, Pairing, Solution, masses, reading, solve, survey
from selection.problem import Problem
from selection.targets import targets_of
from selection.transport import Kernel, climb
from warehouse.records import Floats, Spec

D, KINDS = 384, 200
ACCURATE = 1e-4
MEMORY = 1 << 30
SINKHORN_STEPS = (10, 20, 40, 80, 160, 320)
SCALINGS = (0.5, 0.9)
Vectors = NDArray[np.float32]


def vectors(n: int, shares: Floats, rng: np.random.Generator) -> Vectors:
    """(n, D) rows of unit length around `KINDS` centres with `shares`, the spread of direction k falling as 1 / √k."""
    spread = (1 / np.sqrt(np.arange(1, D + 1))).astype(np.float32)
    centres = np.random.default_rng(0).standard_normal((KINDS, D), dtype=np.float32)
    rows = centres[rng.choice(KINDS, n, p=shares)] + rng.standard_normal((n, D), dtype=np.float32)
    rows *= spread
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@dataclass(frozen=True, slots=True)
class World:
    """A pool of all kinds alike and targets of a few of them, and a regularisation."""

    problem: Problem
    relative: float

    @property
    def pairing(self) -> Pairing:
        targets = targets_of(self.problem, "representation")
        return Pairing(self.problem, "representation", np.asarray(targets.values), masses(targets, "targets"))

    @property
    def pool(self) -> Vectors:
        return np.asarray(self.problem.candidates["representation"])

    @property
    def targets(self) -> Vectors:
        return np.asarray(self.problem.targets["representation"])


def world(n: int, m: int, relative: float) -> World:
    rng = np.random.default_rng(1)
    pool, targets = vectors(n, np.full(KINDS, 1 / KINDS), rng), vectors(m, rng.dirichlet(np.full(KINDS, 0.3)), rng)
    question = Problem(
        budget=n // 20,
        keys=np.arange(n, dtype=np.uint64),
        candidates={"representation": pool},
        targets={"representation": targets},
        target_task=np.zeros(m, np.int64),
    )
    return World(question, relative)


def epsilon_of(question: World) -> float:
    return question.relative * question.pairing.mean_cost(survey(question.problem, "representation"))


def duals(question: World, memory: int) -> tuple[Floats, Solution]:
    """Ours, from the vectors: the mean cost, the prices of the targets, then g (n,)."""
    epsilon, pairing = epsilon_of(question), question.pairing
    solution = solve(pairing, epsilon, memory)
    if isinstance(solution.passes, Kernel):
        with threadpool_limits(limits=1, user_api="blas"):
            return solution.passes.candidates(solution.end.h), solution
    return reading(pairing, solution.end.h, epsilon).g, solution


def converged(question: World, solution: Solution) -> Floats:
    """g (n,) in float64, over costs free of rounding, to steps of 1e-7 ε."""
    n, m = question.problem.n, question.pairing.m
    kernel = question.pairing.kernel(question.problem.by_key, np.empty((n, m)))
    kernel.use(epsilon_of(question))
    with threadpool_limits(limits=1, user_api="blas"):
        end = climb(kernel, question.pairing.a, solution.end.h, 1e-7)
        return kernel.candidates(end.h)


def error(g: Floats, reference: Floats) -> float:
    difference = g - g.mean() - (reference - reference.mean())
    return float(np.abs(difference).max() / np.abs(reference - reference.mean()).max())


def pot(question: World, epsilon: float, steps: int, kind: Any) -> Floats:
    """POT's Sinkhorn over a kernel of type `kind`, from the vectors."""
    import ot

    costs = (2 - 2 * question.targets.astype(kind) @ question.pool.T.astype(kind)).astype(kind)
    m, n = costs.shape
    even = np.full(m, 1 / m, kind), np.full(n, 1 / n, kind)
    log = ot.sinkhorn(*even, costs, epsilon, numItermax=steps, stopThr=0, warn=False, log=True)[1]
    return np.asarray(epsilon * np.log(log["v"].astype(np.float64)))


def geomloss(question: World, epsilon: float, scaling: float, _: Any) -> Floats:
    """geomloss's Sinkhorn with ε-scaling, whose cost is half of ours and whose ε therefore is."""
    import torch
    from geomloss import SamplesLoss

    loss = SamplesLoss(
        "sinkhorn",
        p=2,
        blur=float(np.sqrt(epsilon / 2)),
        scaling=scaling,
        debias=False,
        potentials=True,
        backend="tensorized",
    )
    with torch.no_grad():
        potentials = loss(torch.from_numpy(question.targets), torch.from_numpy(question.pool))
    return 2 * potentials[1].numpy().reshape(-1).astype(np.float64)


def least(
    way: Callable[..., Floats], question: World, reference: Floats, settings: tuple[Any, ...], kind: Any
) -> tuple[float, float]:
    """Seconds of the first of `settings` that is accurate, and its error; of the last where none is."""
    epsilon = epsilon_of(question)
    for setting in settings:
        seconds, g = best_of(1, lambda setting=setting: way(question, epsilon, setting, kind))
        found = error(g, reference)
        if found <= ACCURATE:
            break
    return seconds, found


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(work: Callable[[], Any]) -> float:
    """MB of memory that `work` takes at most, beyond what is held before."""
    before, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            most[0] = max(most[0], resident() - before)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return most[0] / 2**20


def against_peers(n: int, m: int, relative: float, kind: Any, with_geomloss: bool) -> Iterator[Row]:
    question = world(n, m, relative)
    name = f"{n:,} x {m:,}, ε {relative:g} of the mean cost"
    yield Row(f"memory, {name}", peak(lambda: duals(question, MEMORY)), "MB", 1000)
    seconds, (g, solution) = best_of(2, lambda: duals(question, MEMORY))
    streamed, (streamed_g, _) = best_of(1, lambda: duals(question, 0))
    reference = converged(question, solution)
    yield Row(f"error, {name}, {solution.end.passes} passes", error(g, reference), "of max", ACCURATE)
    again, _ = best_of(1, lambda: duals(question, MEMORY))
    peer, theirs = least(pot, question, reference, SINKHORN_STEPS, kind)
    yield Row(f"duals, {name}, against POT (error {theirs:.0e})", min(seconds, again), "s", 5, peer)
    yield Row(f"streamed (error {error(streamed_g, reference):.0e}), {name}, against POT", streamed, "s", 1, peer)
    if with_geomloss:
        peer, theirs = least(geomloss, question, reference, SCALINGS, None)
        yield Row(f"duals, {name}, against geomloss (error {theirs:.0e})", min(seconds, again), "s", 5, peer)


def whole_method() -> Row:
    question = world(200_000, 1_000, 0.05)
    method = GotD(Spec("representation", {}))
    seconds, _ = best_of(1, lambda: method(question.problem, np.random.default_rng(0)))
    return Row("got_d 10,000 of 200,000 rows, 1,000 targets, all told", seconds, "s", 15)


def measure() -> Iterator[Row]:
    if missing := [name for name in ("ot", "geomloss") if importlib.util.find_spec(name) is None]:
        print(f"not installed: {', '.join(missing)} (pip install POT geomloss)", file=sys.stderr)
        yield whole_method()
        return
    yield from against_peers(20_000, 200, 0.05, np.float32, True)
    yield from against_peers(20_000, 200, 0.01, np.float64, False)  # float32 holds no e^-200
    yield from against_peers(200_000, 1_000, 0.05, np.float32, False)
    yield from against_peers(200_000, 1_000, 0.01, np.float64, False)
    yield whole_method()


if __name__ == "__main__":
    sys.exit(run(measure))

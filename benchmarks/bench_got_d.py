"""GOT-D's duals against POT's Sinkhorn and geomloss's, each with the least work that is accurate to 1e-4, and memory.

An error is the largest of the centred prices g, against prices converged in float64, over the largest of these. Times
are CPU seconds of the process with its system calls, from the vectors to g; linear algebra runs on one thread for all.
A peer takes as many steps as its own error needs, which it is told.

python benchmarks/bench_got_d.py [--json]
"""

import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.frame import Row, best_of, run
from selection.got_d import GotD, Pairing, Solution, masses, reading, solve
from selection.kept import Kept
from selection.problem import Problem
from selection.survey import survey
from selection.targets import targets_of
from selection.transport import Kernel, climb
from warehouse.records import Floats, Spec

D, KINDS = 384, 200
ACCURATE = 1e-4
MEMORY = 1 << 30
MOST_STEPS = 400
SCALINGS = (0.5, 0.7, 0.8, 0.9)
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
    if isinstance(solution.passes, Kernel | Kept):
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


def costs_of(question: World, kind: Any) -> NDArray[Any]:
    """(m, n) costs of type `kind`."""
    return np.asarray(2 - 2 * question.targets.astype(kind) @ question.pool.T.astype(kind))


def pot(question: World, epsilon: float, steps: int, kind: Any) -> Floats:
    """POT's Sinkhorn over a kernel of type `kind`."""
    import ot

    costs = costs_of(question, kind)
    m, n = costs.shape
    even = np.full(m, 1 / m, kind), np.full(n, 1 / n, kind)
    log = ot.sinkhorn(*even, costs, epsilon, numItermax=steps, stopThr=0, warn=False, log=True)[1]
    return np.asarray(epsilon * np.log(log["v"].astype(np.float64)))


def steps_needed(question: World, epsilon: float, reference: Floats, kind: Any) -> int:
    """The first number of Sinkhorn's steps, taken as POT takes them, whose g is accurate."""
    kernel = np.exp(costs_of(question, kind) / kind(-epsilon))
    m, n = kernel.shape
    u = np.full(m, 1 / m, kind)
    for step in range(1, MOST_STEPS):
        v = kind(1 / n) / (u @ kernel)
        u = kind(1 / m) / (kernel @ v)
        if error(epsilon * np.log(v.astype(np.float64)), reference) <= ACCURATE:
            return step
    return MOST_STEPS


def geomloss(question: World, epsilon: float, scaling: float) -> Floats:
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


def scaling_needed(question: World, epsilon: float, reference: Floats) -> float:
    """The coarsest of `SCALINGS` whose g is accurate, or the finest."""
    rough = (scaling for scaling in SCALINGS if error(geomloss(question, epsilon, scaling), reference) <= ACCURATE)
    return next(rough, SCALINGS[-1])


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, with the linear-algebra library on one thread, and what it returned."""
    with threadpool_limits(limits=1):
        return best_of(1, work, time.process_time)


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


def against(
    name: str, question: World, reference: Floats, peers: Mapping[str, Callable[[], Floats]], memory: int
) -> Iterator[Row]:
    """Ours before and after all `peers`, so that a machine with more or less else to do slows both alike."""
    first, (g, solution) = cpu(lambda: duals(question, memory))
    found = {peer: cpu(work) for peer, work in peers.items()}
    again, _ = cpu(lambda: duals(question, memory))
    ours = (first + again) / 2
    yield Row(f"error, {name}, {solution.way}, {solution.end.passes} passes", error(g, reference), "of max", ACCURATE)
    for peer, (seconds, theirs) in found.items():
        row = f"{solution.way}, {name}, against {peer} (error {error(theirs, reference):.0e})"
        yield Row(row, ours, "CPU s", 5 if solution.way == "kept" else 1, seconds)


def size(n: int, m: int, relative: float, kinds: tuple[Any, ...], ways: tuple[int, ...], geom: bool) -> Iterator[Row]:
    question = world(n, m, relative)
    name, epsilon = f"{n:,} x {m:,}, ε {relative:g}", epsilon_of(question)
    yield Row(f"memory above the vectors, {name}", peak(lambda: duals(question, MEMORY)), "MB", 1000)
    reference = converged(question, duals(question, MEMORY)[1])
    peers: dict[str, Callable[[], Floats]] = {}
    steps = steps_needed(question, epsilon, reference, kinds[0])
    for kind in kinds:
        peers[f"POT {np.dtype(kind)}, {steps} steps"] = partial(pot, question, epsilon, steps, kind)
    if geom:
        scaling = scaling_needed(question, epsilon, reference)
        peers[f"geomloss, scaling {scaling:g}"] = partial(geomloss, question, epsilon, scaling)
    for memory in ways:
        yield from against(name, question, reference, peers, memory)


def whole_method() -> Row:
    question = world(200_000, 1_000, 0.05)
    method = GotD(Spec("representation", {}))
    seconds, _ = cpu(lambda: method(question.problem, np.random.default_rng(0)))
    return Row("got_d 10,000 of 200,000 rows, 1,000 targets, all told", seconds, "CPU s", 15)


def measure() -> Iterator[Row]:
    if missing := [name for name in ("ot", "geomloss") if importlib.util.find_spec(name) is None]:
        print(f"not installed: {', '.join(missing)} (pip install POT geomloss)", file=sys.stderr)
        yield whole_method()
        return
    for name in ("ot", "geomloss"):  # what a peer takes to be imported is not counted
        importlib.import_module(name)
    yield from size(20_000, 200, 0.05, (np.float32, np.float64), (MEMORY, 0), geom=True)
    yield from size(20_000, 200, 0.01, (np.float64,), (MEMORY,), geom=False)  # float32 holds no e^-200
    yield from size(200_000, 1_000, 0.05, (np.float32, np.float64), (MEMORY,), geom=False)
    yield whole_method()


if __name__ == "__main__":
    sys.exit(run(measure))

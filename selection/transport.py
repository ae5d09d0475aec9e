"""Entropic optimal transport between a few targets and many candidates, by its semi-dual.

    OT = min over π of ⟨π, C⟩ + ε KL(π ‖ a bᵀ),   a (m,) the targets' masses, b (n,) the candidates'

has prices f (m,) and g (n,). Given f, the best g_j is −ε log Σ_i a_i exp((f_i − C_ij)/ε), so what is left to find are
the m numbers f, the maximum of the concave H(f) = a·f + b·g(f), whose gradient is a − r, r_i = Σ_j b_j p_ij the mass
that target i is given: p_ij, which sums to 1 over the targets, is how candidate j shares its mass. (Cuturi and Peyré
2018, arXiv 1512.02783.) f is climbed by Newton steps that are damped until they gain, with a curvature measured on
some of the candidates and mended between measurements by the pairs of L-BFGS. Everything is done with logarithms of
prices, h = f/ε, and differences from the largest exponent, so a small ε underflows nothing that counts.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from selection.problem import cores
from warehouse.errors import InputError
from warehouse.records import Floats

CHUNK_NUMBERS = 1 << 18  # numbers of a chunk of the kernel: 1 MB of float32, which stays in a core's cache
PRODUCT_NUMBERS = 1 << 21  # and of one whose (m, m) products are summed: each is as large as many chunks of the other
DRIFT = 20.0  # the kernel is made anew where a log-price moved by more: e^20 is far from the ends of float32
COARSE = 0.05  # |a − r|₁ at which a larger ε has done its work, and Sinkhorn's steps have
LEVEL = 3.0  # each ε on the way down is at least this part of the one before
SINKHORN_STEPS = 40  # at most, for each ε
PASSES = 300  # evaluations of H at most, for the last ε
NOTHING, NOTHING_SINGLE = np.log(1e-100), np.float32(np.log(1e-16))
UNSOLVED = 1e-6  # |a − r|₁ that rounding does not explain
MEMORY = 10  # pairs of L-BFGS
REFRESH = 8  # steps after which a curvature is measured again
NEWTON_TARGETS = 3000  # with more targets the (m, m) curvature is left out: its diagonal and the pairs must do
CURVATURE_ROWS = 16  # candidates per target that a curvature is measured on at least
CURVATURE_WORK = 1 << 33  # products of two shares that are not too many in any case
LONGEST_STEP = 6.0  # of a log-price: the curvature says nothing of what lies farther
FIRST_DAMPING = 1e-3
LEAST_DAMPING = 1e-9
DAMPED_NO_MORE = 1e-2  # from here down a step says how far the maximum is
LEAST_SHARE = 1e-3  # of its mass is what a target's diagonal counts at least
MOST_DAMPING = 1e9

Chunk = NDArray[Any]
CostRows = Callable[[slice], Chunk]
"""Costs (b, m) of some candidates, a fresh or a read-only array."""


@dataclass(frozen=True, slots=True)
class Duals:
    """The prices of an entropic transport problem.

    f                (m,) of the targets: high where the candidates supply too little
    g                (n,) of the candidates, the nearest target's cost less its price, softly: ∂OT/∂b but for a constant
    epsilon          what they belong to, in units of the cost
    marginal_error   |a − r|₁: how much mass the targets are given too little and too much; the candidates' is exact
    passes           evaluations of H for this ε
    """

    f: Floats
    g: Floats
    epsilon: float
    marginal_error: float
    passes: int

    def objective(self, a: Floats, b: Floats) -> float:
        """⟨π, C⟩ + ε KL(π ‖ a bᵀ)."""
        return float(a @ self.f + b @ self.g)


def calibrated(g: Floats) -> Floats:
    """n/(n − 1) (g_j − mean g): the derivative of OT when j gains mass that all others lose in equal parts.

    It sums to 0, does not see a constant added to `g` (n,) and ranks as `g` does (LAVA, Just et al. 2023). A single
    candidate has nobody to take mass from: 0.
    """
    n = len(g)
    return (g - g.mean()) * (n / (n - 1)) if n > 1 else np.zeros(n)


def transport(costs: Floats, a: Floats, b: Floats, epsilon: float, tolerance: float = 1e-10) -> Duals:
    """Duals of `costs` (m, n) between masses `a` (m,) and `b` (n,), which are brought to sum 1.

    `tolerance` is the error left in f, in units of ε, as Newton's step estimates it. Entries without mass take no part;
    they get the prices they would have at the first grain of it. Memory is some (m, n) arrays of float64. Raises
    `InputError` for costs or masses that are not finite, negative masses, no mass at all, and an ε that is not above 0
    or so small that no solution was found.
    """
    check_problem(costs, a, b, epsilon)
    a, b = a / a.sum(), b / b.sum()
    some, has = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    with threadpool_limits(limits=1, user_api="blas"):
        rows = np.ascontiguousarray(costs[np.ix_(some, has)].T, np.float64)
        kernel = Kernel(rows.__getitem__, b[has], np.log(a[some]), np.empty(rows.shape))
        h = anneal(kernel, a[some], largest_epsilon(rows, epsilon), epsilon, COARSE)
        end = climb(kernel, a[some], h, tolerance, refresh=1)
        check_end(end, epsilon)
    f_some = epsilon * (end.h - a[some] @ end.h)
    g = _softmin(costs[some].T, f_some, a[some], epsilon)
    f = np.empty(len(a))
    f[some] = f_some
    rest = np.flatnonzero(a == 0)
    f[rest] = _softmin(costs[np.ix_(rest, has)], g[has], b[has], epsilon)
    return Duals(f, g, epsilon, end.marginal_error, end.passes)


@dataclass(frozen=True, slots=True)
class Moment:
    """H and the masses given, at some log-prices: `softmin` is b·g/ε, `usage` r (m,)."""

    softmin: float
    usage: Floats

    def plus(self, other: "Moment") -> "Moment":
        return Moment(self.softmin + other.softmin, self.usage + other.usage)


class Passes(Protocol):
    """One ε's H: `at` goes over all candidates, `curvature` over some."""

    def at(self, h: Floats) -> Moment: ...

    def curvature(self, h: Floats) -> Floats:
        """(m, m) −ε² ∂²H/∂f², or its diagonal (m,) where there are more than `NEWTON_TARGETS`."""
        ...


class Cooled(Passes, Protocol):
    """One that can turn to another ε."""

    def use(self, epsilon: float) -> None: ...


@dataclass(slots=True)
class Kernel:
    """The shares p_ij of n candidates, kept in memory: after one pass that makes them, a pass is two products.

    rows     costs of some candidates
    b        (n,) masses of the candidates
    log_a    (m,)
    shares   (n, m) where they are kept, over the largest of each row; its type is what is computed in. They are those
             at log-prices `base`, and others follow by p_ij ∝ p⁰_ij exp(h_i − base_i), so ε's exponential is paid once
    """

    rows: CostRows
    b: Floats
    log_a: Floats
    shares: Chunk
    epsilon: float = np.nan
    base: Floats | None = None
    norms: Floats = field(init=False)
    mass: Chunk = field(init=False)

    def __post_init__(self) -> None:
        self.norms = np.empty(len(self.b))
        self.mass = self.b.astype(self.shares.dtype)

    def use(self, epsilon: float) -> None:
        """Turn to another ε."""
        self.epsilon, self.base = epsilon, None

    def at(self, h: Floats) -> Moment:
        weights = self._weights(h)

        def moment(part: slice) -> Moment:
            shares = self.shares[part]
            sums = shares @ weights
            softmin = -float(self.b[part] @ (self.norms[part] + np.log(sums)))
            return Moment(softmin, ((self.mass[part] / sums) @ shares).astype(np.float64))

        total = folded(moment, self._chunks(), Moment.plus)
        return Moment(total.softmin, total.usage * weights)

    def candidates(self, h: Floats) -> Floats:
        """g (n,) at `h`."""
        weights = self._weights(h)
        sums = np.concatenate([self.shares[part] @ weights for part in self._chunks()])
        return np.asarray(-self.epsilon * (self.norms + np.log(sums)))

    def curvature(self, h: Floats) -> Floats:
        if len(h) > NEWTON_TARGETS:
            return self.at(h).usage
        weights = self._weights(h)
        chunks = list(chunks_of(len(self.b), len(h), PRODUCT_NUMBERS))
        rows = max(CURVATURE_ROWS * len(h), CURVATURE_WORK // len(h) ** 2)
        step = max(1, len(self.b) // rows)

        def squares(part: slice) -> Floats:
            shares, mass = self.shares[part] * weights, self.mass[part]
            sums = self.shares[part] @ weights
            usage = (mass / sums) @ shares
            shares *= (np.sqrt(mass) / sums)[:, None]
            outer = -np.asarray(shares.T @ shares, np.float64)  # numpy computes half of such a product
            outer[np.diag_indices(len(h))] += usage
            return outer

        some = chunks[::step]
        weight = sum(float(self.b[part].sum()) for part in some)
        return np.asarray(folded(squares, iter(some), np.add) / weight)

    def _weights(self, h: Floats) -> Chunk:
        """exp(h − base), (m,); the shares are made anew, and base is h, where that would leave the range of numbers."""
        if self.base is None or np.ptp(h - self.base) > DRIFT:
            self._make(h)
            self.base = h.copy()
        return np.exp(h - self.base).astype(self.shares.dtype)

    def _make(self, h: Floats) -> None:
        offsets = (h + self.log_a).astype(self.shares.dtype)
        scale = self.shares.dtype.type(-1 / self.epsilon)

        def make(part: slice) -> None:
            shares = self.shares[part]
            np.multiply(self.rows(part), scale, out=shares)
            shares += offsets
            largest = shares.max(axis=1, keepdims=True)
            shares -= largest
            exponentials(shares)
            self.norms[part] = largest[:, 0]

        folded(make, self._chunks(), lambda *_: None)

    def _chunks(self) -> Iterator[slice]:
        n, m = self.shares.shape
        return chunks_of(n, m)


def exponentials(exponents: Chunk) -> None:
    """exp in place of numbers of at most 0, but nowhere less than what is nothing beside 1: products of smaller numbers
    are subnormal, and an arithmetic unit takes a hundred times as long over these."""
    np.maximum(exponents, NOTHING_SINGLE if exponents.dtype == np.float32 else NOTHING, out=exponents)
    np.exp(exponents, out=exponents)


def chunks_of(n: int, m: int, numbers: int = CHUNK_NUMBERS) -> Iterator[slice]:
    """The n candidates in chunks of about so many `numbers`, whose bounds depend on nothing but these three."""
    size = max(16, numbers // m)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def anneal(kernel: Cooled, a: Floats, start: float, epsilon: float, rough: float | None = None) -> Floats:
    """Log-prices near the best for `epsilon`, found through larger ones from `start` down by Sinkhorn's steps.

    With `rough` each of the larger ones is climbed too, to steps of that length: slower, and what a tiny ε needs. The
    kernel is left at `epsilon`.
    """
    h, levels = np.zeros(len(a)), max(0, int(np.ceil(np.log(start / epsilon) / np.log(LEVEL))))
    for level in range(levels, -1, -1):
        kernel.use(epsilon * LEVEL**level)
        h = sinkhorn_steps(kernel, a, h)
        if rough and level:
            h = climb(kernel, a, h, rough, refresh=1).h
        h = h * LEVEL if level else h
    return h


def sinkhorn_steps(passes: Passes, a: Floats, h: Floats) -> Floats:
    """`h` after Sinkhorn's steps h += log(a/r), each of which gains, until |a − r|₁ is `COARSE`."""
    for _ in range(SINKHORN_STEPS):
        usage = passes.at(h).usage
        if np.abs(a - usage).sum() <= COARSE:
            break
        h = h + np.log(a) - np.log(np.maximum(usage, a * np.exp(-DRIFT)))
    return h


@dataclass(frozen=True, slots=True)
class End:
    """Where a climb ended: log-prices `h` (m,), |a − r|₁ there, evaluations of H, whether the tolerance was met.

    `curvature`, (m, m) or its diagonal, is the last that was measured.
    """

    h: Floats
    marginal_error: float
    passes: int
    converged: bool
    curvature: Floats


def climb(
    passes: Passes,
    a: Floats,
    h: Floats,
    tolerance: float,
    *,
    curvature: Floats | None = None,
    refresh: int = REFRESH,
    limit: int = PASSES,
) -> End:
    """The maximum of H from `h` (m,), to steps of at most `tolerance`.

    A step solves (curvature + damping · diag(a)) step = a − r, mended by the last pairs of steps and gradients unless
    the curvature is measured before each. One that is too long or gains less than a tenth of what it promised is not
    taken, and the damping rises; after the other ones it falls. The first curvature need not be measured where it is
    known.
    """
    pairs: deque[tuple[Floats, Floats]] = deque(maxlen=MEMORY if refresh > 1 else 0)
    first = passes.curvature(h) if curvature is None else curvature
    metric, here, used, age = _metric(first, a, FIRST_DAMPING), passes.at(h), 1, 0
    while True:
        slope = a - here.usage
        step = _two_loops(metric, slope, pairs)
        length = float(np.abs(step).max())
        near = length <= tolerance and metric.damping <= DAMPED_NO_MORE
        if near or used >= limit or metric.damping > MOST_DAMPING:
            return End(h, float(np.abs(slope).sum()), used, near, metric.curvature)
        if length > LONGEST_STEP:
            pairs.clear()
            metric = _metric(metric.curvature, a, metric.damping * 4)
            continue
        there = passes.at(h + step)
        used, age = used + 1, age + 1
        if not _gains(a, slope, step, here, there):
            pairs.clear()
            metric = _metric(metric.curvature, a, metric.damping * 8)
            continue
        bend = there.usage - here.usage
        if step @ bend > 0:  # always but for rounding
            pairs.append((step, bend))
        h, here = h + step, there
        damping = max(metric.damping / 8, LEAST_DAMPING)
        if age >= refresh:
            metric, age = _metric(passes.curvature(h), a, damping), 0
        elif damping < metric.damping and metric.damping > DAMPED_NO_MORE:
            metric = _metric(metric.curvature, a, damping)


def _gains(a: Floats, slope: Floats, step: Floats, here: Moment, there: Moment) -> bool:
    """Whether the step gained a tenth of its promise; near the top, where H shows nothing, whether the slope fell."""
    promise = float(slope @ step) / 2
    gain = float(a @ step) + there.softmin - here.softmin
    return gain >= 0.1 * promise or (promise < 1e-6 and np.abs(a - there.usage).sum() < np.abs(slope).sum())


@dataclass(frozen=True, slots=True)
class _Metric:
    """What solves with a curvature, (m, m) or its diagonal (m,), damped by `damping` times diag(a)."""

    curvature: Floats
    factor: Any
    damping: float

    def solve(self, slope: Floats) -> Floats:
        return slope / self.factor if self.curvature.ndim == 1 else np.asarray(cho_solve(self.factor, slope))


def _metric(curvature: Floats, a: Floats, damping: float) -> _Metric:
    """Damped by more than asked where rounding leaves the curvature indefinite."""
    if curvature.ndim == 1:
        return _Metric(curvature, curvature + (damping + LEAST_SHARE) * a, damping)
    fixed = curvature + a[:, None] * a  # prices are free but for a constant: this fixes it at a·step = 0
    while True:
        damped = fixed.copy()
        damped[np.diag_indices(len(a))] += damping * a
        try:
            return _Metric(curvature, cho_factor(damped, overwrite_a=True, check_finite=False), damping)
        except LinAlgError:
            damping *= 10


def _two_loops(metric: _Metric, slope: Floats, pairs: deque[tuple[Floats, Floats]]) -> Floats:
    """L-BFGS's direction from `slope`, with the metric where it has a multiple of the identity (Nocedal 1980)."""
    rest, shares = slope.copy(), []
    for step, bend in reversed(pairs):
        shares.append(float(step @ rest) / float(step @ bend))
        rest -= shares[-1] * bend
    direction = metric.solve(rest)
    for (step, bend), share in zip(pairs, reversed(shares), strict=True):
        direction += step * (share - float(bend @ direction) / float(step @ bend))
    return direction


def folded(work: Callable[[slice], Any], parts: Iterator[slice], merge: Callable[[Any, Any], Any]) -> Any:
    """`work` of all parts, in threads, merged in their order: floating-point sums do not depend on the threads."""
    first, second = next(parts), next(parts, None)
    if second is None:  # a thread costs more than a small chunk does
        return work(first)
    with ThreadPoolExecutor(cores()) as threads:
        answers = threads.map(work, chain((first, second), parts))
        total = next(answers)
        for answer in answers:
            total = merge(total, answer)
    return total


def _softmin(costs: Floats, prices: Floats, masses: Floats, epsilon: float) -> Floats:
    """−ε log Σ_i masses_i exp((prices_i − costs_ji)/ε) of each row j."""
    exponents = (prices - costs) / epsilon + np.log(masses)
    largest = exponents.max(axis=1)
    return np.asarray(-epsilon * (largest + np.log(np.exp(exponents - largest[:, None]).sum(axis=1))))


def largest_epsilon(costs: Floats, epsilon: float) -> float:
    """Where to start from on the way down to `epsilon`."""
    return max(epsilon, float(np.ptp(costs)) / 4)


def check_problem(costs: Floats, a: Floats, b: Floats, epsilon: float) -> None:
    """Raises `InputError` for numbers that no transport problem has, `ValueError` for arrays that do not fit."""
    if costs.shape != (len(a), len(b)):
        raise ValueError(f"costs are {costs.shape} for {len(a)} targets and {len(b)} candidates")
    if not np.isfinite(costs).all():
        raise InputError(f"{int((~np.isfinite(costs)).sum())} costs are NaN or infinite: measure them again")
    for name, masses in (("targets", a), ("candidates", b)):
        if not (np.isfinite(masses).all() and (masses >= 0).all() and masses.sum() > 0):
            raise InputError(f"masses of the {name} must be numbers of at least 0 that do not all vanish")
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon is {epsilon}; give a number above 0, in units of the cost")


def check_end(end: End, epsilon: float) -> None:
    """Raises `InputError` where the climb did not end at a solution."""
    if not end.converged and end.marginal_error > UNSOLVED:
        raise InputError(
            f"epsilon {epsilon:.3g} is too small: after {end.passes} passes the targets' masses are still off by "
            f"{end.marginal_error:.3g} in all; give a larger one"
        )

"""ot_mixture: the mixture of sources that is nearest to a target by optimal transport. No model is trained.

    OT(p) = max over f of a·f + Σ_i p_i G_i(f),   G_i(f) = the mean of g_j(f) over the rows j of source i

with the prices f (m,) and g (n,) of `selection.transport` is convex in the shares p (s,), a maximum of what is
linear in p, and its gradient is G at the best f. Whatever f is, a·f + min_i G_i(f) is below every OT(p), so
p·G − min_i G_i says how far p may be from the best (Frank and Wolfe's gap). Shares follow their gradient by
exponentiated steps,

    p⁺_i ∝ p_i exp(−G_i/μ),   G at the best f for p⁺ itself:   f maximises a·f − μ log Σ_i p_i exp(−G_i(f)/μ),

which is concave in f and has a curvature: Newton's steps of `transport.climb` find f and p⁺ at once. Such a step is a
proximal one: it gains however long it is, so μ falls fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController, threadpool_limits

from selection.advice import Advice, Distance, Evidence, Remark, interval
from selection.transport import (
    COARSE,
    NEWTON_TARGETS,
    UNSOLVED,
    Cooled,
    Kernel,
    Moment,
    anneal,
    check_end,
    check_problem,
    climb,
    largest_epsilon,
)
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats, Rows

TOLERANCE = 1e-4  # the gap, in units of ε
EXACT = 1e-9  # of log-prices
STEPS = 60  # of the shares, at most
FASTER, FASTEST = 4.0, 1e-4  # by what μ falls with every step, and how far, in units of ε
LEAST_EPSILON, MOST_EPSILON = 1e-4, 1.0
GAIN = "gain over even"
FORECASTS = ("advised", "even", GAIN)


@dataclass(frozen=True, slots=True)
class Nearest:
    """A mixture and how good it is.

    shares      (s,) of the sources
    objective   OT(p), in units of the cost
    gap         by how much the least objective may be below it, at most
    iterations  exponentiated steps
    prices      (m,) f of the targets: high where all sources supply too little
    """

    shares: Floats
    objective: float
    gap: float
    iterations: int
    prices: Floats


@dataclass(frozen=True, slots=True)
class Sources:
    """A kernel of every source, whose rows have masses that sum to 1, and the targets' masses `a` (m,)."""

    kernels: tuple[Kernel, ...]
    a: Floats

    def use(self, epsilon: float) -> None:
        for kernel in self.kernels:
            kernel.use(epsilon)

    def at(self, h: Floats) -> tuple[Floats, Floats]:
        """G/ε (s,), and the mass (s, m) that the targets would be given by each source alone."""
        moments = [kernel.at(h) for kernel in self.kernels]
        return np.array([each.softmin for each in moments]), np.stack([each.usage for each in moments])

    def gradient(self, h: Floats) -> Floats:
        """G/ε (s,) where the prices have mean 0 by mass: with these p·G is OT(p)."""
        return np.asarray(self.at(h)[0] + self.a @ h)

    def curvature(self, h: Floats, shares: Floats) -> Floats:
        """(m, m) of a mixture with `shares`."""
        used = [(share, kernel) for share, kernel in zip(shares, self.kernels, strict=True) if share > 0]
        return np.asarray(sum(share * kernel.curvature(h) for share, kernel in used))


@dataclass(frozen=True, slots=True)
class Given:
    """H of the mixture with `shares` (s,)."""

    sources: Sources
    shares: Floats

    def use(self, epsilon: float) -> None:
        self.sources.use(epsilon)

    def at(self, h: Floats) -> Moment:
        softmins, usages = self.sources.at(h)
        return Moment(float(self.shares @ softmins), self.shares @ usages)

    def curvature(self, h: Floats) -> Floats:
        return self.sources.curvature(h, self.shares)


@dataclass(frozen=True, slots=True)
class Moving:
    """H of the mixture that an exponentiated step from `logs` (s,), the logarithms of shares, leads to.

    `pull` is μ/ε: the less it is, the longer the step.
    """

    sources: Sources
    logs: Floats
    pull: float

    def use(self, epsilon: float) -> None:
        self.sources.use(epsilon)

    def led_to(self, softmins: Floats) -> tuple[Floats, float]:
        """Logarithms (s,) of the new shares where G/ε is `softmins` (s,), and −(μ/ε) log Σ_i p_i exp(−G_i/μ)."""
        exponents = self.logs - softmins / self.pull
        total = float(np.logaddexp.reduce(exponents))
        return exponents - total, -self.pull * total

    def at(self, h: Floats) -> Moment:
        softmins, usages = self.sources.at(h)
        logs, softmin = self.led_to(softmins)
        return Moment(softmin, np.exp(logs) @ usages)

    def curvature(self, h: Floats) -> Floats:
        softmins, usages = self.sources.at(h)
        shares = np.exp(self.led_to(softmins)[0])
        spread = usages - shares @ usages
        return np.asarray(self.sources.curvature(h, shares) + (spread.T * shares) @ spread / self.pull)


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of s sources and a target: `costs` (m, n), `source_of` (n,) int64 in 0 to s - 1, masses `a` (m,) of the
    targets and `b` (n,) of the rows, which sum to 1 within each source. All masses are above 0."""

    costs: Floats
    source_of: Rows
    a: Floats
    b: Floats

    @property
    def s(self) -> int:
        return int(self.source_of.max()) + 1

    def sources(self) -> Sources:
        rows = [np.flatnonzero(self.source_of == source) for source in range(self.s)]
        return Sources(tuple(self._kernel(each) for each in rows), self.a)

    def _kernel(self, rows: Rows) -> Kernel:
        costs = np.ascontiguousarray(self.costs[:, rows].T, np.float64)
        return Kernel(costs.__getitem__, self.b[rows], np.log(self.a), np.empty(costs.shape))

    def resampled(self, rng: np.random.Generator) -> tuple["Question", Rows]:
        """Targets, and rows of every source, drawn anew with replacement; and which targets are in it."""
        a, b = rng.multinomial(len(self.a), self.a) / len(self.a), np.zeros(len(self.b))
        for source in range(self.s):
            rows = np.flatnonzero(self.source_of == source)
            b[rows] = rng.multinomial(len(rows), self.b[rows] / self.b[rows].sum()) / len(rows)
        some, has = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
        return Question(self.costs[np.ix_(some, has)], self.source_of[has], a[some], b[has]), some


def question_of(costs: Floats, source_of: Rows, target_weights: Floats) -> Question:
    """Rows that weigh alike within their source, and the targets that weigh anything, by `target_weights` (m,).

    Raises `InputError` for costs or weights that are not finite, negative weights, a source without rows and more
    targets than a curvature can be measured over.
    """
    counts = np.bincount(source_of)
    if not len(counts) or counts.min() == 0:
        raise InputError(f"the sources have {counts.tolist()} rows with costs: each needs at least 1")
    check_problem(costs, target_weights, 1 / counts[source_of], 1.0)
    some = np.flatnonzero(target_weights > 0)
    if len(some) > NEWTON_TARGETS:
        raise InputError(f"there are {len(some)} targets; draw at most {NEWTON_TARGETS} of them")
    a = target_weights[some] / target_weights.sum()
    return Question(np.asarray(costs, np.float64)[some], source_of, a, 1 / counts[source_of])


def nearest(question: Question, epsilon: float, start: Floats | None = None) -> Nearest:
    """The mixture with the least OT(p), from prices `start` (m,) of a problem like it, where there are some.

    Raises `InputError` where `epsilon`, in units of the cost, is so small that no solution was found.
    """
    sources, largest = question.sources(), largest_epsilon(question.costs, epsilon)
    sources.use(epsilon)
    logs, pull, gap, iterations = np.full(question.s, -np.log(question.s)), 1.0, np.inf, 0
    with threadpool_limits(limits=1, user_api="blas"):
        if start is None:
            h = anneal(Moving(sources, logs, pull), sources.a, largest, epsilon, COARSE)
        else:
            h = start / epsilon
        while gap > TOLERANCE and iterations < STEPS:
            step = Moving(sources, logs, pull)
            h = _top(step, sources.a, h, epsilon, largest)
            gradient = sources.gradient(h)
            logs = step.led_to(gradient)[0]
            gap = float(np.exp(logs) @ (gradient - gradient.min()))
            pull, iterations = max(pull / FASTER, FASTEST), iterations + 1
    shares = np.exp(logs) / np.exp(logs).sum()
    return Nearest(shares, epsilon * float(shares @ gradient), epsilon * gap, iterations, epsilon * (h - sources.a @ h))


def _top(mixture: Cooled, a: Floats, h: Floats, epsilon: float, largest: float) -> Floats:
    """The best log-prices (m,), from `h`; where that is so far away that it leads nowhere, through ε from `largest`."""
    end = climb(mixture, a, h, EXACT, refresh=1)
    if not end.converged and end.marginal_error > UNSOLVED:
        end = climb(mixture, a, anneal(mixture, a, largest, epsilon, COARSE), EXACT, refresh=1)
    check_end(end, epsilon)
    return end.h


@dataclass(slots=True)
class Along:
    """OT(p) and its gradient for one mixture after another: each starts from the prices `h` of the one before."""

    sources: Sources
    epsilon: float
    largest: float
    h: Floats
    libraries: ThreadpoolController = field(default_factory=ThreadpoolController)  # to look for them takes milliseconds

    def __call__(self, shares: Floats) -> tuple[float, Floats]:
        with self.libraries.limit(limits=1, user_api="blas"):
            self.h = _top(Given(self.sources, shares), self.sources.a, self.h, self.epsilon, self.largest)
            gradient = self.epsilon * self.sources.gradient(self.h)
        return float(shares @ gradient), gradient


def along(question: Question, epsilon: float, start: Floats) -> Along:
    """For mixtures near one with prices `start` (m,)."""
    sources = question.sources()
    sources.use(epsilon)
    return Along(sources, epsilon, largest_epsilon(question.costs, epsilon), start / epsilon)


def distance_to(costs: Floats, source_of: Rows, target_weights: Floats, epsilon: float) -> Distance:
    """OT(p) and its gradient (s,) as a function of shares (s,), for `Evidence.distance`.

    costs           (m, n) of carrying each row to each target
    source_of       (n,) int64 in 0 to s - 1, the place of each row's source in `Evidence.sources`
    target_weights  (m,) of the targets, brought to sum 1
    epsilon         in units of the cost

    The gradient g of shares p has p·g = OT(p); a constant may be added to it, as shares sum to 1. It is right on the
    border too, where a source has share 0. Raises `InputError` as `question_of` and `nearest` do.
    """
    question = question_of(costs, source_of, target_weights)
    return along(question, epsilon, nearest(question, epsilon).prices)


def places(sources: Sequence[str], labels: NDArray[Any]) -> Rows:
    """(n,) the place in `sources` of each of `labels` (n,). Raises `InputError` for one that is not there."""
    at = {name: place for place, name in enumerate(sources)}
    named, inverse = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    if missing := sorted(set(named.tolist()) - at.keys()):
        raise InputError(f"rows are of {', '.join(missing)}, but the sources are {', '.join(sources)}")
    return np.array([at[name] for name in named.tolist()], np.int64)[inverse]


@dataclass(frozen=True, slots=True)
class OtMixture:
    """Shares whose mixture of the sources is nearest to the target by optimal transport.

    epsilon    the entropic regularisation over the mean cost; smaller is nearer to transport itself, and slower
    resamples  of targets and rows, behind every interval
    seed       of these

    Reads the costs of a sample of every source to the targets (`Evidence.costs`, with `source_of` and `keys` of the
    rows and `target_weights`). Raises `InputError` without them and as `question_of` does, for a source without rows,
    and for an epsilon out of its range.
    """

    epsilon: float = 0.01
    resamples: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if not LEAST_EPSILON <= self.epsilon <= MOST_EPSILON:
            detail = f"epsilon is {self.epsilon} of the mean cost; give {LEAST_EPSILON:g} to {MOST_EPSILON:g}"
            raise InputError(f"ot_mixture: {detail}")
        if self.resamples < 20:
            raise InputError(f"ot_mixture: {self.resamples} resamples; give 20 or more")

    def __call__(self, evidence: Evidence) -> Advice:
        question = _question(evidence)
        mean_cost = float(question.a @ question.costs @ question.b / question.s)
        epsilon = self.epsilon * (mean_cost if mean_cost > 0 else 1.0)
        best = nearest(question, epsilon)
        draws = self._draws(question, best, epsilon)
        m, names = len(question.a), evidence.sources
        shares = {name: interval(best.shares[at], draws[:, at], m) for at, name in enumerate(names)}
        even = along(question, epsilon, best.prices)(_even(question.s))[0]
        forecasts = {
            name: interval(value, draw, m)
            for name, value, draw in zip(
                FORECASTS, (best.objective, even, even - best.objective), draws.T[question.s :], strict=True
            )
        }
        listed = ", ".join(f"{name} {share.value:.0%}" for name, share in shares.items())
        facts = {
            "targets": m,
            "rows": np.bincount(question.source_of).tolist(),
            "epsilon": epsilon,
            "mean_cost": mean_cost,
            "objective": best.objective,
            "gap": best.gap,
            "iterations": best.iterations,
        }
        remarks = [*_unclear(forecasts[GAIN]), *_repeated(evidence, best.shares)]
        return Advice(f"Nearest to the target: {listed}.", shares, (), forecasts, (), remarks, facts)

    def _draws(self, question: Question, best: Nearest, epsilon: float) -> Floats:
        """(resamples, s + 3) shares, and the distances of `FORECASTS`, with targets and rows drawn anew."""
        rng, draws = np.random.default_rng(self.seed), []
        for _ in range(self.resamples):
            drawn, some = question.resampled(rng)
            found = nearest(drawn, epsilon, best.prices[some])
            distance = along(drawn, epsilon, found.prices)
            advised, even = distance(best.shares)[0], distance(_even(question.s))[0]
            draws.append([*found.shares, advised, even, even - advised])
        return np.array(draws)


def _question(evidence: Evidence) -> Question:
    """Rows in the order of their keys, so that storing them in another changes nothing."""
    if evidence.costs is None or evidence.source_of is None or evidence.keys is None:
        raise InputError("ot_mixture needs costs between rows and targets: measure a sample of every source")
    m, order = len(evidence.costs), np.argsort(evidence.keys, kind="stable")
    weights = np.ones(m) if evidence.target_weights is None else evidence.target_weights
    source_of = places(evidence.sources, evidence.source_of)[order]
    if len(missing := set(range(len(evidence.sources))) - set(source_of.tolist())):
        listed = ", ".join(evidence.sources[at] for at in sorted(missing))
        raise InputError(f"no row of {listed} has costs: measure some, or leave the source out")
    return question_of(evidence.costs[:, order], source_of, weights)


def _even(s: int) -> Floats:
    return np.full(s, 1 / s)


def _unclear(gain: Estimate) -> list[Remark]:
    if gain.low > 0:
        return []
    detail = f"equal shares are {gain.value:.4g} farther, between {gain.low:.4g} and {gain.high:.4g}"
    return [Remark("no_clear_gain", detail)]


def _repeated(evidence: Evidence, shares: Floats) -> list[Remark]:
    wanted = evidence.budget * shares
    return [
        Remark("rows_repeated", f"{rows:.0f} rows of {name} are wanted, it has {has}")
        for name, rows, has in zip(evidence.sources, wanted, evidence.available, strict=True)
        if rows > has
    ]

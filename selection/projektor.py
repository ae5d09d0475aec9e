"""projektor: the value of a mixture of sources at a size not yet trained, from small runs, and the best mixture there.

Stage 1 fits, for every size of runs N_k, the metric L over shares p (s,) and their transport distance OT(p) to the
target. Stage 2 is a straight line in ln N through the fitted surfaces. Both are linear in the measured values, so the
surface at size N is one surface whose coefficients are weighted sums of those at all sizes, and so is its gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from selection.advice import Advice, Distance, Evidence, Remark, interval, of_one_seed, seed_shifts, widened
from selection.answer import LOWER
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats, Rows

Surface: TypeAlias = Literal["pq_ot", "line"]
Slope: TypeAlias = Callable[[Floats], tuple[float, Floats]]

STEPS = 200
STILL = 1e-7  # a step that moves the shares by less ends the search
FLAT = 1e-10  # a gradient below this is taken for this
ENOUGH_DECREASE = 1e-4  # of what the gradient promises (Armijo's condition)
CONDITION = 1e-9  # singular values below this part of the largest count as 0


def line_weights(n: float, sizes: Floats) -> Floats:
    """(k,) weights whose sum with values at `sizes` (k,) is the least-squares line in ln N, read at n.

    They sum to 1; for two sizes they give [ln(n/N0) L1 - ln(n/N1) L0] / ln(N1/N0). The root of the sum of their squares
    is by how much the noise of one value is amplified.
    """
    logs = np.log(sizes)
    centred = logs - logs.mean()
    return np.asarray(1 / len(sizes) + (np.log(n) - logs.mean()) * centred / np.square(centred).sum())


def onto_simplex(point: Floats) -> Floats:
    """The nearest point to `point` (s,) whose entries are at least 0 and sum to 1 (Duchi et al. 2008)."""
    descending = np.sort(point)[::-1]
    excess = (np.cumsum(descending) - 1) / np.arange(1, len(point) + 1)
    level = excess[np.flatnonzero(descending > excess)[-1]]
    return np.asarray(np.maximum(point - level, 0.0))


def columns(shares: Floats, distances: Floats, surface: Surface) -> Floats:
    """The (r, c) numbers that the metric is linear in, for `shares` (r, s) and their `distances` (r,).

    pq_ot  Σ_i (b2_i p_i² + b1_i p_i + b0) OT + Σ_i (c2_i p_i² + c1_i p_i + c0), as 4 s columns p_i² OT, p_i OT, p_i²
           and p_i: the shares sum to 1, so the constants b0 and c0 are part of b1 and c1
    line   b OT + c
    """
    away = distances[:, None]
    if surface == "line":
        return np.hstack([away, np.ones_like(away)])
    return np.hstack([shares**2 * away, shares * away, shares**2, shares])


def rank_needed(s: int, surface: Surface) -> int:
    """How many independent columns mixtures of s sources can have: with two, p_1² - p_2² = p_1 - p_2."""
    if surface == "line":
        return 2
    return 6 if s == 2 else 4 * s


def on_surface(coefficients: Floats, surface: Surface, distance: Distance) -> Slope:
    """The surface with `coefficients` (c,) as a function of shares (s,): its value and its gradient (s,)."""

    def value_and_gradient(shares: Floats) -> tuple[float, Floats]:
        away, slope = distance(shares)
        value = float(columns(shares[None], np.array([away]), surface)[0] @ coefficients)
        if surface == "line":
            return value, coefficients[0] * slope
        b2, b1, c2, c1 = coefficients.reshape(4, -1)
        by_distance = float(b2 @ shares**2 + b1 @ shares)
        return value, by_distance * slope + (2 * b2 * shares + b1) * away + 2 * c2 * shares + c1

    return value_and_gradient


def descend(slope: Slope, start: Floats) -> tuple[float, Floats]:
    """The least value found from `start` (s,) by projected gradient steps on the simplex, and where it is."""
    shares = onto_simplex(start)
    value, gradient = slope(shares)
    step = 1 / max(float(np.abs(gradient).max()), FLAT)
    for _ in range(STEPS):
        moved = onto_simplex(shares - step * gradient)
        distance = float(np.square(moved - shares).sum())
        if distance < STILL**2:
            break
        below, next_gradient = slope(moved)
        if below <= value - ENOUGH_DECREASE * distance / step:
            shares, value, gradient, step = moved, below, next_gradient, 2 * step
        else:
            step /= 2
    return value, shares


def best_mixture(slope: Slope, starts: Floats) -> tuple[float, Floats]:
    """The least of `descend` from each of `starts` (k, s), and where it is; ties go to the first."""
    return min((descend(slope, start) for start in starts), key=lambda found: found[0])


@dataclass(frozen=True, slots=True)
class Fit:
    """A surface per size of runs.

    sizes         (k,) ascending
    coefficients  (k, c)
    solvers       k matrices (c, r_k) that take the values of the runs of a size to its coefficients
    residuals     (r,) what each run is away from the line in ln N through the surfaces, and from what its seed adds
    noise         (r,) the same as `widened` for the degrees of freedom that the fit leaves
    effects       (k, S) what each of S seeds adds to all mixtures of a size; S is 0 where seeds cannot be told apart
    """

    sizes: Floats
    coefficients: Floats
    solvers: tuple[Floats, ...]
    residuals: Floats
    noise: Floats
    effects: Floats

    def at(self, n: float) -> Floats:
        """(c,) coefficients of the surface at size n."""
        return np.asarray(line_weights(n, self.sizes) @ self.coefficients)

    def draws(self, n: float, count: int, rng: np.random.Generator) -> Floats:
        """(count, c) coefficients at size n of fits to the fitted values with residuals drawn anew.

        Where seeds are told apart, these say how mixtures differ; `shifts` says how far all of them may be off.
        """
        moved = [self._moved(solver, count, rng) for solver in self.solvers]
        weighted = [w * each for w, each in zip(line_weights(n, self.sizes), moved, strict=True)]
        return np.asarray(self.at(n) + sum(weighted))

    def shifts(self, n: float, count: int, rng: np.random.Generator) -> Floats:
        """(count,) draws of how far the fit's seeds put all mixtures at size n off; 0 where they are not told apart."""
        return seed_shifts(line_weights(n, self.sizes) @ self.effects, count, rng)

    def _moved(self, solver: Floats, count: int, rng: np.random.Generator) -> Floats:
        drawn = rng.choice(self.noise, (count, solver.shape[1]))
        if self.effects.size:  # how much the seeds differ holds the noise of their means: not twice
            drawn = drawn - drawn.mean(axis=1, keepdims=True)
        return np.asarray(drawn @ solver.T)


def fit_surfaces(
    sizes: Floats, shares: Floats, distances: Floats, values: Floats, surface: Surface, seeds: Rows | None = None
) -> Fit:
    """Least squares at every size of `sizes` (r,), for runs with `shares` (r, s), `distances` and `values` (r,).

    What a seed of `seeds` (r,) adds to all mixtures of a size is fitted beside the surface, where two seeds or more
    have runs of every size, on mixtures that tell the two apart, and runs are left over.

    Raises `InputError` for a single size, for a size with fewer runs than independent columns, for mixtures that do not
    tell the columns apart, and where no run is left over to measure noise by.
    """
    each, size_of = np.unique(sizes, return_inverse=True)
    if len(each) < 2:
        raise InputError(
            f"all runs have the size {each.tolist()}: a line in ln N needs runs of at least 2 sizes, best 5"
        )
    design, needed = columns(shares, distances, surface), rank_needed(shares.shape[1], surface)
    spare = len(values) - 2 * needed
    runs_of = [np.flatnonzero(size_of == at) for at in range(len(each))]
    codes = _codes(design, needed, runs_of, seeds, spare)
    solvers = tuple(
        _solver(np.hstack([design[at], code]), needed + code.shape[1], size)
        for at, code, size in zip(runs_of, codes, each, strict=True)
    )
    if spare < 1:
        raise InputError(f"{len(values)} runs leave none to measure noise by: give more than {2 * needed} with a value")
    c = design.shape[1]
    solved = [solver @ values[at] for solver, at in zip(solvers, runs_of, strict=True)]
    coefficients = np.stack([found[:c] for found in solved])
    straight = np.stack([line_weights(size, each) @ coefficients for size in each])
    added = np.zeros(len(values))
    for at, code, found in zip(runs_of, codes, solved, strict=True):
        added[at] = code @ found[c:]
    residuals = values - (design * straight[size_of]).sum(axis=1) - added
    noise = widened(residuals, spare - sum(code.shape[1] for code in codes))
    effects = _effects(added, runs_of, seeds if any(code.size for code in codes) else None)
    return Fit(each, coefficients, tuple(solver[:c] for solver in solvers), residuals, noise, effects)


@dataclass(frozen=True, slots=True)
class Projektor:
    """Shares for the budget, from runs of at least two sizes on mixtures of the sources.

    surface    `pq_ot`: the pseudo-quadratic one of `columns`; `line`: a line in the transport distance alone
    farthest   how many times the largest run the budget may be; beyond that it refuses
    spread     ratio of the largest to the smallest run below which it warns
    restarts   random starts of the search, beside the even mixture and those tried
    resamples  draws behind every interval
    seed       of the starts and the draws

    Without `evidence.distance` it can only choose among the mixtures tried. Raises `InputError` without distances, for
    one source, and for runs too few or too alike.
    """

    surface: Surface = "pq_ot"
    farthest: float = 4.0
    spread: float = 4.0
    restarts: int = 8
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("farthest", "spread"):
            if not getattr(self, name) >= 1:
                raise InputError(f"projektor: {name} is {getattr(self, name)}; give a factor of at least 1")
        if self.restarts < 0 or self.resamples < 20:
            raise InputError(
                f"projektor: {self.restarts} restarts and {self.resamples} resamples; give 0 and 20 or more"
            )

    def __call__(self, evidence: Evidence) -> Advice:
        runs = evidence.completed()
        if len(runs.sources) < 2:
            raise InputError("projektor weighs sources against each other, but there is one source only")
        if runs.distances is None:
            raise InputError("projektor fits the metric over transport distances to the target: measure them first")
        fit = _fitted(runs, runs.distances, evidence.failed, self.surface)
        warnings, refusals = self._cautions(evidence, fit), self._refusals(evidence, fit)
        if refusals:
            return Advice(f"No forecast for {evidence.budget} rows.", refusals=refusals, warnings=warnings)
        rng = np.random.default_rng(self.seed)
        return self._advice(runs, runs.distances, fit, warnings, rng)

    def _advice(
        self, runs: Evidence, distances: Floats, fit: Fit, warnings: list[Remark], rng: np.random.Generator
    ) -> Advice:
        sign = 1.0 if runs.direction == LOWER else -1.0
        draws = np.vstack([fit.at(runs.budget), fit.draws(runs.budget, self.resamples, rng)])
        shifts = np.append(0.0, fit.shifts(runs.budget, self.resamples, rng))  # of all mixtures alike: no gain has them
        even = np.full(len(runs.sources), 1 / len(runs.sources))
        if runs.distance is None:
            tried, first = np.unique(runs.mixtures, axis=0, return_index=True)
            table = draws @ columns(tried, distances[first], self.surface).T
            bests = tried[(sign * table).argmin(axis=1)]
            advised = table[:, (sign * table[0]).argmin()]
            others = {_named(runs, mixture): table[:, at] for at, mixture in enumerate(tried)}
        else:
            starts = np.vstack(
                [even, np.unique(runs.mixtures, axis=0), rng.dirichlet(np.ones(len(even)), self.restarts)]
            )
            bests = self._searched(sign * draws, runs.distance, starts)
            advised, others = (
                self._read(draws, bests[0], runs.distance),
                {"even": self._read(draws, even, runs.distance)},
            )
        levels = {**others, "advised": advised}
        forecasts = {name: interval(*_draws(level + shifts), runs.r) for name, level in levels.items()}
        if "even" in others:
            gain = sign * (others["even"] - advised)
            forecasts["gain over even"] = interval(*_draws(gain), runs.r)
            warnings = [*warnings, *_unclear(forecasts["gain over even"]), *_beyond(runs, bests[0])]
        shares = {name: interval(*_draws(bests[:, at]), runs.r) for at, name in enumerate(runs.sources)}
        listed = ", ".join(f"{name} {share.value:.0%}" for name, share in shares.items())
        facts = self._facts(runs, fit)
        return Advice(f"For {runs.budget} rows: {listed}.", shares, (), forecasts, (), warnings, facts)

    def _searched(self, draws: Floats, distance: Distance, starts: Floats) -> Floats:
        """(b, s) best shares: of the fit from all `starts`, of each draw from there and from the even mixture."""
        best = best_mixture(on_surface(draws[0], self.surface, distance), starts)[1]
        near = np.stack([best, starts[0]])
        others = [best_mixture(on_surface(draw, self.surface, distance), near)[1] for draw in draws[1:]]
        return np.stack([best, *others])

    def _read(self, draws: Floats, shares: Floats, distance: Distance) -> Floats:
        return np.asarray(draws @ columns(shares[None], np.array([distance(shares)[0]]), self.surface)[0])

    def _refusals(self, evidence: Evidence, fit: Fit) -> list[Remark]:
        times = evidence.budget / fit.sizes[-1]
        if times <= self.farthest:
            return []
        detail = f"{evidence.budget} rows are {times:.3g} times the largest run, {fit.sizes[-1]:.0f}; "
        return [Remark("extrapolation", f"{detail}at most {self.farthest:g} times is forecast: train larger runs")]

    def _cautions(self, evidence: Evidence, fit: Fit) -> list[Remark]:
        ratio = float(fit.sizes[-1] / fit.sizes[0])
        noise = _amplified(evidence.budget, fit)
        remarks = []
        if ratio < self.spread:
            detail = f"the largest run is {ratio:.3g} times the smallest, {self.spread:g} is advised: "
            remarks.append(Remark("pilot_ratio", f"{detail}the noise of a run is multiplied by {noise:.3g}"))
        if evidence.failed:
            remarks.append(Remark("runs_failed", f"{evidence.failed} of {evidence.r} runs have no value"))
        remarks += of_one_seed(evidence.completed(), bool(fit.effects.size))
        if evidence.direction != LOWER:
            detail = f"a line in ln N passes every bound that {evidence.metric} may have: prefer a loss"
            remarks.append(Remark("bounded_metric", detail))
        return remarks

    def _facts(self, runs: Evidence, fit: Fit) -> dict[str, Any]:
        return {
            "surface": self.surface,
            "sizes": fit.sizes.tolist(),
            "runs": runs.r,
            "seeds": fit.effects.shape[1],
            "residual": float(np.sqrt(np.square(fit.residuals).mean())),
            "noise_amplified": _amplified(runs.budget, fit),
            "coefficients": fit.at(runs.budget).tolist(),
            "searched": "simplex" if runs.distance else "mixtures tried",
        }


def _fitted(runs: Evidence, distances: Floats, failed: int, surface: Surface) -> Fit:
    try:
        return fit_surfaces(runs.sizes, runs.mixtures, distances, runs.values, surface, runs.seeds)
    except InputError as error:
        raise InputError(f"{error} ({failed} runs failed)") if failed else error from None


def _amplified(n: float, fit: Fit) -> float:
    return float(np.sqrt(np.square(line_weights(n, fit.sizes)).sum()))


def _codes(design: Floats, needed: int, runs_of: list[Rows], seeds: Rows | None, spare: int) -> list[Floats]:
    """For every size (r_k, S_k - 1) numbers that what seeds add, 0 on average, is linear in.

    They have no columns where fewer than two seeds have runs of every size, the mixtures do not tell what they add
    from the surface, or no run would be left.
    """
    none = [np.zeros((len(at), 0)) for at in runs_of]
    if seeds is None or len(_everywhere(runs_of, seeds)) < 2:
        return none
    codes = [_code(seeds[at]) for at in runs_of]
    clear = all(
        _scaled(np.hstack([design[at], code]))[2] == needed + code.shape[1]
        for at, code in zip(runs_of, codes, strict=True)
    )
    return codes if clear and spare > sum(code.shape[1] for code in codes) else none


def _code(seeds: Rows) -> Floats:
    each, place = np.unique(seeds, return_inverse=True)
    return np.asarray(np.vstack([np.eye(len(each) - 1), -np.ones(len(each) - 1)])[place])


def _everywhere(runs_of: list[Rows], seeds: Rows) -> list[int]:
    """The seeds that have runs of every size, ascending."""
    return sorted(set.intersection(*(set(seeds[at].tolist()) for at in runs_of)))


def _effects(added: Floats, runs_of: list[Rows], seeds: Rows | None) -> Floats:
    """(k, S) of what seeds have `added` (r,), for those that have runs of every size."""
    if seeds is None:
        return np.zeros((len(runs_of), 0))
    return np.array([[added[at][seeds[at] == seed][0] for seed in _everywhere(runs_of, seeds)] for at in runs_of])


def _scaled(design: Floats) -> tuple[Floats, Floats, int]:
    """`design` (r, c) with columns brought to one length, what they were divided by, and its rank."""
    lengths = np.linalg.norm(design, axis=0)
    scale = np.where(lengths > 0, lengths, 1.0)
    return design / scale, scale, int(np.linalg.matrix_rank(design / scale, rtol=CONDITION))


def _solver(design: Floats, needed: int, size: float) -> Floats:
    """The (c, r) pseudo-inverse of `design` (r, c)."""
    if len(design) < needed:
        raise InputError(
            f"{len(design)} runs of size {size:.0f} have a value; the surface needs at least {needed} of each"
        )
    scaled, scale, found = _scaled(design)
    if found < needed:
        detail = f"the mixtures tried at size {size:.0f} tell {found} of {needed} columns apart"
        raise InputError(f"{detail}: try more mixtures that differ, or the surface `line`")
    return np.asarray(np.linalg.pinv(scaled, rcond=CONDITION) / scale[:, None])


def _named(runs: Evidence, shares: Floats) -> str:
    return " ".join(f"{name}={share:.3g}" for name, share in zip(runs.sources, shares, strict=True))


def _draws(column: Floats) -> tuple[float, Floats]:
    return float(column[0]), column[1:]


def _unclear(gain: Estimate) -> list[Remark]:
    if gain.low > 0:
        return []
    detail = f"the gain over equal shares is {gain.value:.4g}, between {gain.low:.4g} and {gain.high:.4g}"
    return [Remark("no_clear_gain", detail)]


def _beyond(runs: Evidence, shares: Floats) -> list[Remark]:
    outside = (shares > runs.mixtures.max(axis=0) + 1e-9) | (shares < runs.mixtures.min(axis=0) - 1e-9)
    names = [name for name, out in zip(runs.sources, outside, strict=True) if out]
    return [Remark("beyond_pilots", f"no run had as much or as little of {', '.join(names)}")] if names else []

"""Repeat the good pool or add the next one: scaling laws for data filtering (QQT), whose utility decays in epochs.

Within epoch k of a pool the error y above its floor d falls as dy/dn = y b_k / n, and the utility b (below 0) halves
every tau epochs: b_k = b · 2^(-(k-1)/tau). With n_j rows seen by the end of epoch j

    y(n) = A · n_1^b_1 · Π_{j≥2} (n_j / n_{j-1})^b_j + d,    so  ln(y - d) = ln A + b · x(n; tau),

and for given tau and d the rest is linear least squares, weighted so that errors count in units of ln y: the fit scans
these two (variable projection).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from selection.advice import Advice, Evidence, Remark, interval, of_one_seed, seed_shifts, widened
from selection.answer import LOWER
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats, Rows

Form: TypeAlias = Literal["additive", "released"]

PARAMETERS = 4  # A, b, tau and d
LEAST_RUNS = 5
HALF_LIVES = (0.25, 64.0)  # epochs: from a pool spent at its first repeat to one that does not wear out
FLOORS = 0.999  # of the least error seen: the floor is below it
GRID = (91, 61)  # half-lives and floors scanned first
ZOOMS, ZOOM_GRID, ZOOM_CELLS = 14, (21, 21), 4  # then closer and closer around the best, four cells to either side


@dataclass(frozen=True, slots=True)
class Law:
    """The error of a pool of `rows` rows after n of them were seen, repeats counted.

    log_scale  ln A: what ln(y - d) would be at n = 1
    b          utility of a first epoch; below 0, lower is better
    tau        epochs in which the utility halves
    d          error that no amount of this data removes
    rows       of the pool
    """

    log_scale: float
    b: float
    tau: float
    d: float
    rows: float


def seen(n: Floats, rows: float, tau: float | Floats) -> Floats:
    """x(n; tau) = ln n_1 + Σ_{j≥2} 2^(-(j-1)/tau) ln(n_j / n_{j-1}), for n (r,) rows seen of a pool of `rows`.

    Rising in n; an epoch of length 0 adds nothing. With tau (t, 1) the answer is (t, r).
    """
    epochs = np.ceil(n / rows)
    ends = np.minimum(np.arange(1, max(int(epochs.max()), 1) + 1) * rows, n[:, None])  # (r, epochs)
    logs = np.diff(np.log(ends), axis=1)
    decay = 0.5 ** (np.arange(1, ends.shape[1])[:, None] / np.asarray(tau).reshape(1, -1))
    x = np.log(ends[:, :1]) + logs @ decay
    return np.asarray(x[:, 0] if np.ndim(tau) == 0 else x.T)


def error(law: Law, n: Floats, form: Form = "additive") -> Floats:
    """(r,) errors after n (r,) rows. In the `released` form, the authors' code, repeats also shrink the floor d."""
    return mixed_error([law], np.ones(1), n, form)


def mixed_error(laws: Sequence[Law], shares: Floats, n: Floats, form: Form = "additive") -> Floats:
    """(r,) errors after n (r,) rows drawn from several pools by `shares` (p,) that sum to 1.

    ln(y - d) = Σ_i w_i (ln A_i + b_i x(n; rows_i / w_i, tau_i / w_i)): pool i is through after rows_i / w_i rows and
    wears out that much more slowly. For equal pools and shares this is the law's own rule for p pools. The floor is the
    mean of the floors by shares.
    """
    used = [(law, share) for law, share in zip(laws, shares, strict=True) if share > 0]
    floor = sum(share * law.d for law, share in used)
    first = sum(share * law.b * np.log(np.minimum(n, law.rows / share)) for law, share in used)
    whole = sum(share * law.b * seen(n, law.rows / share, law.tau / share) for law, share in used)
    scale = sum(share * law.log_scale for law, share in used)
    if form == "released":
        return np.asarray((np.exp(scale + first) + floor) * np.exp(whole - first))
    return np.asarray(np.exp(scale + whole) + floor)


def best_pools(laws: Sequence[Law], n: Floats, form: Form = "additive") -> tuple[Rows, Floats]:
    """How many pools to use at each of n (q,), and the errors (p, q) of using the best 1, 2 ... p of them.

    Pools are ranked by b, the lowest first, and used together in proportion to their rows; ties go to fewer pools.
    """
    ranked = [laws[at] for at in by_utility(laws)]
    table = np.stack([mixed_error(ranked, _together(ranked, p), n, form) for p in range(1, len(laws) + 1)])
    return table.argmin(axis=0) + 1, table


def by_utility(laws: Sequence[Law]) -> Rows:
    """(p,) the pools, best first: by b, ties by place."""
    return np.argsort([law.b for law in laws], kind="stable").astype(np.int64)


@dataclass(frozen=True, slots=True)
class PoolRuns:
    """Runs on one pool alone: errors (r,) after n (r,) rows seen, repeats counted, of a pool of `rows`; their seeds."""

    name: str
    rows: float
    n: Floats
    errors: Floats
    seeds: Rows | None = None

    def __post_init__(self) -> None:
        if len(self.n) < LEAST_RUNS:
            raise InputError(f"pool {self.name!r} has {len(self.n)} runs with a value; its law needs {LEAST_RUNS}")
        if (self.errors <= 0).any():
            raise InputError(f"pool {self.name!r} has an error of {self.errors.min()}; the law is of errors above 0")
        if len(np.unique(self.n)) < PARAMETERS:
            sizes = sorted(set(self.n.tolist()))
            raise InputError(f"the runs of pool {self.name!r} see {sizes} rows; give at least {PARAMETERS} such sizes")
        if (self.n > self.rows).sum() < 2:
            detail = f"pool {self.name!r} of {self.rows:.0f} rows is repeated by {(self.n > self.rows).sum()} runs"
            raise InputError(f"{detail}: how fast it wears out shows from 2 that see more than all of it")


def fit_laws(pools: Sequence[PoolRuns], form: Form = "additive", floor: float | None = None) -> tuple[Law, ...]:
    """A law per pool with one floor d for all, or with the `floor` given, by least squares of ln y.

    The released form is fitted with a given floor, on runs of one epoch or more: repeats then say nothing of d. Raises
    `InputError` otherwise, and for a floor that is not below every error.
    """
    least = min(float(pool.errors.min()) for pool in pools)
    if floor is not None and not 0 <= floor < least:
        raise InputError(f"the floor is {floor} but the least error is {least}; give one between 0 and that")
    if form == "released":
        return _fit_released(pools, floor)
    floors = np.linspace(0, FLOORS * least, GRID[1]) if floor is None else np.array([floor])
    taus = [np.geomspace(*HALF_LIVES, GRID[0])] * len(pools)
    best = _scan(pools, taus, floors)
    widths = np.log(HALF_LIVES[1] / HALF_LIVES[0]) / (GRID[0] - 1), FLOORS * least / (GRID[1] - 1)
    for zoom in range(ZOOMS):
        reach = [ZOOM_CELLS * width * (2 * ZOOM_CELLS / (ZOOM_GRID[0] - 1)) ** zoom for width in widths]
        around = np.linspace(-1, 1, ZOOM_GRID[0])
        taus = [np.clip(tau * np.exp(reach[0] * around), *HALF_LIVES) for tau in best[0]]
        if floor is None:
            floors = np.clip(best[1] + reach[1] * np.linspace(-1, 1, ZOOM_GRID[1]), 0, FLOORS * least)
        best = _scan(pools, taus, floors)
    return tuple(_law(pool, tau, best[1]) for pool, tau in zip(pools, best[0], strict=True))


def _scan(pools: Sequence[PoolRuns], taus: Sequence[Floats], floors: Floats) -> tuple[Floats, float]:
    """The half-life of every pool and the floor with the least sum of squares."""
    tables = [_squares(pool, each, floors) for pool, each in zip(pools, taus, strict=True)]  # (t, f) each
    at = int(sum(table.min(axis=0) for table in tables).argmin())
    return np.array([each[table[:, at].argmin()] for each, table in zip(taus, tables, strict=True)]), float(floors[at])


def _squares(pool: PoolRuns, taus: Floats, floors: Floats) -> Floats:
    """(t, f) sums of squares left by the best line of ln(y - d) over x(n; tau), in units of ln y."""
    x = seen(pool.n, pool.rows, taus)
    y = np.log(pool.errors - floors[:, None])
    weights = _weights(pool, floors[:, None])
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    total, by_x, by_y = weights.sum(axis=1), x @ weights.T, (weights * y).sum(axis=1)
    spread = np.square(x) @ weights.T - np.square(by_x) / total
    both = x @ (weights * y).T - by_x * by_y / total
    return np.asarray((weights * np.square(y)).sum(axis=1) - np.square(by_y) / total - np.square(both) / spread)


def _weights(pool: PoolRuns, floor: float | Floats) -> Floats:
    # an error of ε in ln y is one of ε y / (y - d) in ln(y - d): unweighted, noise alone would push the floor to 0
    return np.asarray(np.square((pool.errors - floor) / pool.errors))


def _law(pool: PoolRuns, tau: float, d: float) -> Law:
    x, y, weights = seen(pool.n, pool.rows, float(tau)), np.log(pool.errors - d), _weights(pool, d)
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    centred = weights * (x - mean_x)
    b = float(centred @ (y - mean_y) / (centred @ (x - mean_x)))
    return Law(float(mean_y - b * mean_x), b, float(tau), d, pool.rows)


def _fit_released(pools: Sequence[PoolRuns], floor: float | None) -> tuple[Law, ...]:
    """After a first epoch ln y = ln((A n_1^b) + d) + b (x - ln n_1): a line for given tau, whatever d is."""
    if floor is None:
        raise InputError("the released form cannot tell its floor: give one, as its authors do (0.1 there)")
    if short := [pool.name for pool in pools if (pool.n < pool.rows).any()]:
        raise InputError(f"the released form is fitted on runs of at least one epoch; shorter ones are in {short}")
    return tuple(_released(pool, floor) for pool in pools)


def _released(pool: PoolRuns, floor: float) -> Law:
    tau, width = 1.0, np.log(HALF_LIVES[1] / HALF_LIVES[0])
    for zoom in range(ZOOMS):
        taus = np.clip(tau * np.exp(width * 0.5**zoom * np.linspace(-1, 1, GRID[0])), *HALF_LIVES)
        tau = float(taus[_squares(pool, taus, np.zeros(1))[:, 0].argmin()])
    law = _law(pool, tau, 0.0)
    after_one = np.exp(law.log_scale + law.b * np.log(pool.rows))
    if after_one <= floor:
        raise InputError(f"pool {pool.name!r} reaches {after_one:.4g} in one epoch, below the floor {floor}: lower it")
    scale = np.log(after_one - floor) - law.b * np.log(pool.rows)
    return Law(float(scale), law.b, tau, floor, pool.rows)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Which pools to use together for the budget: the best alone, repeated, or the next ones too.

    form       `additive`: a floor d below everything; `released`: the authors' code, where repeats shrink d
    floor      d, where it is known; fitted if not given (`additive` only)
    farthest   how many times the most rows seen by a run on a pool the budget may be; beyond that it refuses
    resamples  draws behind every interval
    seed       of the draws

    Runs on one source alone are fitted; runs on mixtures check the rule that combines pools. Raises `InputError` where
    the metric is not an error or loss, and for a pool with too few runs or none that repeat it.
    """

    form: Form = "additive"
    floor: float | None = None
    farthest: float = 4.0
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.farthest >= 1:
            raise InputError(f"scaling: farthest is {self.farthest}; give a factor of at least 1")
        if self.floor is not None and not 0 <= self.floor < np.inf:
            raise InputError(f"scaling: floor is {self.floor}; give an error of at least 0")
        if self.resamples < 20:
            raise InputError(f"scaling: {self.resamples} resamples; give at least 20")

    def __call__(self, evidence: Evidence) -> Advice:
        if evidence.direction != LOWER:
            raise InputError(f"scaling laws are of errors or losses; of {evidence.metric}, higher is better")
        runs = evidence.completed()
        pools = _alone(runs)
        warnings = _cautions(evidence)
        most = min(float(pool.n.max()) for pool in pools)
        if evidence.budget > self.farthest * most:
            detail = f"{evidence.budget} rows are {evidence.budget / most:.3g} times the most seen of every pool, "
            refusal = Remark("extrapolation", f"{detail}{most:.0f}; at most {self.farthest:g} times is forecast")
            return Advice(f"No forecast for {evidence.budget} rows.", refusals=[refusal], warnings=warnings)
        laws = fit_laws(pools, self.form, self.floor)
        rng = np.random.default_rng(self.seed)
        fitted = [error(law, pool.n, self.form) for pool, law in zip(pools, laws, strict=True)]
        effects, left = _taken_apart(pools, fitted)
        draws = self._draws(pools, fitted, left, rng)
        warnings += of_one_seed(runs, bool(effects.size))
        return self._advice(runs, laws, draws, seed_shifts(effects, self.resamples, rng), warnings)

    def _draws(
        self, pools: Sequence[PoolRuns], fitted: Sequence[Floats], left: Sequence[Floats], rng: np.random.Generator
    ) -> list[tuple[Law, ...]]:
        """Laws fitted to the `fitted` errors with what was `left` of their logarithms drawn anew."""
        answers = []
        for _ in range(self.resamples):
            noise = [np.exp(rng.choice(each, len(each))) for each in left]
            again = [
                PoolRuns(pool.name, pool.rows, pool.n, each * factors)
                for pool, each, factors in zip(pools, fitted, noise, strict=True)
            ]
            answers.append(fit_laws(again, self.form, self._floor(again)))
        return answers

    def _floor(self, pools: Sequence[PoolRuns]) -> float | None:
        # noise may take an error below a floor that is known
        least = min(float(pool.errors.min()) for pool in pools)
        return None if self.floor is None else min(self.floor, FLOORS * least)

    def _advice(
        self,
        runs: Evidence,
        laws: Sequence[Law],
        draws: Sequence[tuple[Law, ...]],
        shifts: Floats,
        warnings: list[Remark],
    ) -> Advice:
        n = np.array([float(runs.budget)])
        order = by_utility(laws)
        used = int(best_pools(laws, n, self.form)[0][0])
        choices = [_together([laws[at] for at in order], p) for p in range(1, len(laws) + 1)]
        tables = np.array([self._errors(each, order, choices, n) for each in (laws, *draws)])  # (1 + b, p)
        names = [runs.sources[at] for at in order]
        tables *= np.exp(np.append(0.0, shifts))[:, None]  # seeds scale all choices alike: a gain keeps its sign
        forecasts = {"+".join(names[: p + 1]): interval(*_split(tables[:, p]), runs.r) for p in range(len(names))}
        votes = np.array([int(best_pools(each, n, self.form)[0][0]) for each in draws])
        shares = np.array([self._shares(each, n) for each in (laws, *draws)])
        other = 1 if used > 1 else 2
        if len(names) > 1:
            gain = interval(*_split(tables[:, other - 1] - tables[:, used - 1]), runs.r)
            forecasts[f"gain over {'+'.join(names[:other])}"] = gain
            warnings = [*warnings, *_unclear(gain, names, used, other)]
        warnings = [*warnings, *_limits(runs, laws), *_repeats(runs, laws, shares[0])]
        facts = {
            "decision": "repeat the best pool" if used == 1 else "add pools",
            "pools": names[:used],
            "votes": {str(p): int((votes == p).sum()) for p in range(1, len(names) + 1)},
            "laws": {name: _told(law) for name, law in zip(runs.sources, laws, strict=True)},
            "mixtures_checked": self._checked(runs, laws),
        }
        told = {name: interval(*_split(shares[:, at]), runs.r) for at, name in enumerate(runs.sources)}
        says = f"For {runs.budget} rows: use {' and '.join(names[:used])}" + (" alone." if used == 1 else " together.")
        return Advice(says, told, (), forecasts, (), warnings, facts)

    def _errors(self, laws: Sequence[Law], order: Rows, choices: Sequence[Floats], n: Floats) -> list[float]:
        ranked = [laws[at] for at in order]
        return [float(mixed_error(ranked, shares, n, self.form)[0]) for shares in choices]

    def _shares(self, laws: Sequence[Law], n: Floats) -> Floats:
        order, shares = by_utility(laws), np.zeros(len(laws))
        shares[order] = _together([laws[at] for at in order], int(best_pools(laws, n, self.form)[0][0]))
        return shares

    def _checked(self, runs: Evidence, laws: Sequence[Law]) -> dict[str, float]:
        """How far the rule for mixtures is from the runs on them: how many, and their mean |forecast / error - 1|."""
        mixed = np.flatnonzero(runs.mixtures.max(axis=1) < 1)
        off = [
            abs(float(mixed_error(laws, runs.mixtures[at], runs.sizes[[at]], self.form)[0]) / runs.values[at] - 1)
            for at in mixed
        ]
        return {"runs": len(mixed), "mean_error": float(np.mean(off))} if off else {"runs": 0}


def _together(ranked: Sequence[Law], p: int) -> Floats:
    """(pools,) shares of the first p pools in proportion to their rows."""
    rows = np.array([law.rows if at < p else 0.0 for at, law in enumerate(ranked)])
    return np.asarray(rows / rows.sum())


def _alone(runs: Evidence) -> list[PoolRuns]:
    """The runs on each source alone."""
    return [
        PoolRuns(
            name,
            float(runs.available[at]),
            runs.sizes[alone],
            runs.values[alone],
            None if runs.seeds is None else runs.seeds[alone],
        )
        for at, name in enumerate(runs.sources)
        for alone in [runs.mixtures[:, at] == 1]
    ]


def _taken_apart(pools: Sequence[PoolRuns], fitted: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """What each of S seeds adds to ln y, (S,), and what is left of every pool's runs, `widened` for what was fitted.

    S is 0 where no size of a pool has runs of two seeds, or too few runs are left.
    """
    left = [_residuals(pool, each) for pool, each in zip(pools, fitted, strict=True)]
    seeds = _seeds(pools)
    free = [len(each) - PARAMETERS - max(len(seeds) - 1, 0) / len(pools) for each in left]
    if len(seeds) < 2 or min(free) < 1:
        return np.zeros(0), [widened(each, len(each) - PARAMETERS) for each in left]
    together, of = np.concatenate(left), np.concatenate([pool.seeds for pool in pools if pool.seeds is not None])
    effects = np.array([together[of == seed].mean() for seed in seeds])
    apart = [
        each - effects[np.searchsorted(seeds, pool.seeds)]
        for each, pool in zip(left, pools, strict=True)
        if pool.seeds is not None
    ]
    return effects, [widened(each - each.mean(), few) for each, few in zip(apart, free, strict=True)]


def _seeds(pools: Sequence[PoolRuns]) -> Rows:
    """The seeds of all runs, ascending, where every pool has runs of two at one size; otherwise none."""
    seeds = [pool.seeds for pool in pools if pool.seeds is not None]
    compared = [
        len(np.unique(np.column_stack([pool.n, pool.seeds]), axis=0)) > len(np.unique(pool.n))
        for pool in pools
        if pool.seeds is not None
    ]
    return np.unique(np.concatenate(seeds)) if seeds and all(compared) else np.zeros(0, np.int64)


def _residuals(pool: PoolRuns, fitted: Floats) -> Floats:
    """(r,) ln(y / fitted), centred."""
    left = np.log(pool.errors / fitted)
    return np.asarray(left - left.mean())


def _split(column: Floats) -> tuple[float, Floats]:
    return float(column[0]), column[1:]


def _told(law: Law) -> Mapping[str, float]:
    return {"b": law.b, "tau": law.tau, "d": law.d, "log_scale": law.log_scale, "rows": law.rows}


def _cautions(evidence: Evidence) -> list[Remark]:
    detail = (
        "published for CLIP trained from scratch over many epochs; not shown for fine-tuning, and blind to what pools"
    )
    remarks = [Remark("untested", f"{detail} give each other")]
    if evidence.failed:
        remarks.append(Remark("runs_failed", f"{evidence.failed} of {evidence.r} runs have no value"))
    return remarks


def _unclear(gain: Estimate, names: Sequence[str], used: int, other: int) -> list[Remark]:
    if gain.low > 0:
        return []
    detail = f"{'+'.join(names[:used])} against {'+'.join(names[:other])}: {gain.value:.4g}"
    return [Remark("no_clear_gain", f"{detail}, between {gain.low:.4g} and {gain.high:.4g}")]


def _limits(runs: Evidence, laws: Sequence[Law]) -> list[Remark]:
    low, high = HALF_LIVES[0] * 1.001, HALF_LIVES[1] / 1.001
    at = [f"{name} {law.tau:.3g}" for name, law in zip(runs.sources, laws, strict=True) if not low < law.tau < high]
    rising = [name for name, law in zip(runs.sources, laws, strict=True) if law.b >= 0]
    remarks = [Remark("at_the_limit", f"half-lives in epochs on the border of what is searched: {', '.join(at)}")]
    useless = [Remark("at_the_limit", f"more of it does not lower {runs.metric}: {', '.join(rising)}")]
    return (remarks if at else []) + (useless if rising else [])


def _repeats(runs: Evidence, laws: Sequence[Law], shares: Floats) -> list[Remark]:
    epochs = [runs.budget * share / law.rows for share, law in zip(shares, laws, strict=True)]
    told = [f"{name} {each:.3g} epochs" for name, each in zip(runs.sources, epochs, strict=True) if each > 1]
    return [Remark("rows_repeated", ", ".join(told))] if told else []

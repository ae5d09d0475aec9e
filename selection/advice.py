"""Answers that are not a set of rows: shares of sources, ordered manifests, forecasts; and what they are drawn from.

An advisor is a frozen dataclass of hyper-parameters. It sees runs that were made, as arrays, and says what to do next,
with an interval on every number. What it will not say it refuses by a value with a reason from a closed list.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from selection.answer import HIGHER, LOWER
from warehouse.errors import InputError
from warehouse.records import Estimate, Floats, Rows, canonical

ON_THE_SIMPLEX = 1e-6  # by how much shares may miss a sum of 1

Distance: TypeAlias = Callable[[Floats], tuple[float, Floats]]
"""The transport distance of the mixture with shares (s,) to the target, and its gradient (s,)."""

Reason: TypeAlias = Literal[
    "extrapolation",  # asked about a size too far beyond the largest run
    "pilot_ratio",  # the runs' sizes are too close together: noise is amplified
    "runs_failed",  # runs without a value were left out
    "beyond_pilots",  # a share that no run came near
    "bounded_metric",  # a straight line passes any bound
    "no_clear_gain",  # the interval of the gain holds 0
    "at_the_limit",  # a fitted number lies on the border of what was searched
    "rows_repeated",  # the budget takes more rows of a source than it has
    "untested",  # published evidence for this use is missing
    "one_seed",  # by how much another seed would move a forecast cannot be told from the runs
]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known and what is asked: s sources, r runs trained on mixtures of them, and a budget.

    sources    (s,) names
    available  (s,) int64 rows that each source holds
    budget     rows to train on, repeats counted, that advice is wanted for
    metric     name of what the runs were measured by
    direction  how it reads: "lower is better" or "higher is better"
    sizes      (r,) rows each run was trained on, repeats counted
    shares     (r, s) of its mixture; each row sums to 1
    values     (r,) of the metric; NaN where a run failed
    seeds      (r,) int64 of the runs: repeats of one mixture and size differ in them, and runs of one err alike
    distances  (r,) transport distance of each run's mixture to the target, where it was measured
    distance   the same for any mixture, with its gradient
    source_of  (n,) source of every row of the pool, for advice that names rows
    keys       (n,) uint64 of those rows
    costs      (m, n) of carrying each of those rows to each target: where given, the rows are a sample of the pool
    target_weights  (m,) of the targets; without them all weigh alike

    Raises `InputError` for numbers that no run can have, `ValueError` for arrays that do not fit together.
    """

    sources: tuple[str, ...]
    available: Rows
    budget: int = 1
    metric: str = "loss"
    direction: str = LOWER
    sizes: Floats = field(default_factory=lambda: np.zeros(0))
    shares: Floats | None = None
    values: Floats = field(default_factory=lambda: np.zeros(0))
    seeds: Rows | None = None
    distances: Floats | None = None
    distance: Distance | None = None
    source_of: NDArray[Any] | None = None
    keys: NDArray[np.uint64] | None = None
    costs: Floats | None = None
    target_weights: Floats | None = None

    def __post_init__(self) -> None:
        _check_sources(self.sources, self.available)
        _check_shapes(self)
        if self.direction not in (HIGHER, LOWER):
            raise ValueError(f"the direction is {self.direction!r}; expected {HIGHER!r} or {LOWER!r}")
        if self.budget < 1:
            raise InputError(f"the budget is {self.budget} rows; give at least 1")
        _check_runs(self)

    @property
    def r(self) -> int:
        return len(self.values)

    @property
    def mixtures(self) -> Floats:
        """(r, s) shares of the runs, also where there are none."""
        return np.zeros((0, len(self.sources))) if self.shares is None else self.shares

    @property
    def failed(self) -> int:
        """How many runs have no value."""
        return int(np.isnan(self.values).sum())

    def completed(self) -> "Evidence":
        """The same without the runs that failed."""
        kept = ~np.isnan(self.values)
        return replace(
            self,
            sizes=self.sizes[kept],
            shares=self.mixtures[kept],
            values=self.values[kept],
            seeds=None if self.seeds is None else self.seeds[kept],
            distances=None if self.distances is None else self.distances[kept],
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """The rows (k,) of one training stage, and how many each source gives."""

    name: str
    rows: Rows
    per_source: Mapping[str, int]

    def __post_init__(self) -> None:
        if sum(self.per_source.values()) != len(self.rows):
            raise ValueError(f"manifest {self.name!r} has {len(self.rows)} rows but counts {dict(self.per_source)}")


@dataclass(frozen=True, slots=True)
class Remark:
    """Why something was refused or is doubtful: a reason from the closed list, and the numbers behind it."""

    reason: Reason
    detail: str

    def __post_init__(self) -> None:
        if self.reason not in get_args(Reason):
            raise ValueError(f"unknown reason {self.reason!r}; known reasons: {', '.join(get_args(Reason))}")


@dataclass(frozen=True, slots=True)
class Advice:
    """What an advisor says: at least one of shares, manifests, forecasts and refusals.

    says         one sentence for a person
    shares       of every source, each with its interval; the values sum to 1
    manifests    training stages, in the order to train them
    forecasts    of the metric, or differences of it, by what they are of
    refusals     what was asked and is not answered
    warnings     what makes the answer doubtful
    diagnostics  what the advisor measured about itself, JSON-able
    """

    says: str
    shares: Mapping[str, Estimate] = field(default_factory=dict)
    manifests: Sequence[Manifest] = ()
    forecasts: Mapping[str, Estimate] = field(default_factory=dict)
    refusals: Sequence[Remark] = ()
    warnings: Sequence[Remark] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.shares or self.manifests or self.forecasts or self.refusals):
            raise ValueError("advice must hold shares, manifests, forecasts or refusals")
        total = math.fsum(share.value for share in self.shares.values())
        if self.shares and (abs(total - 1) > ON_THE_SIMPLEX or any(e.value < 0 for e in self.shares.values())):
            raise ValueError(f"the shares of an advice must not be below 0 and must sum to 1; they sum to {total}")
        canonical(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """All of it in dictionaries, lists, numbers and texts."""
        return {
            "says": self.says,
            "shares": {name: asdict(share) for name, share in self.shares.items()},
            "manifests": [
                {"name": each.name, "rows": each.rows.tolist(), "per_source": dict(each.per_source)}
                for each in self.manifests
            ],
            "forecasts": {name: asdict(forecast) for name, forecast in self.forecasts.items()},
            "refusals": [asdict(remark) for remark in self.refusals],
            "warnings": [asdict(remark) for remark in self.warnings],
            "diagnostics": dict(self.diagnostics),
        }


class Advisor(Protocol):
    """A frozen dataclass of hyper-parameters: evidence in, advice out; the same evidence gives the same advice."""

    def __call__(self, evidence: Evidence) -> Advice: ...


def interval(value: float, draws: Floats, n: int) -> Estimate:
    """`value` with the middle 95 % of `draws` (b,) around it, widened to hold the value; n items stand behind it."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def widened(residuals: Floats, free: float) -> Floats:
    """`residuals` (r,) of a fit that leaves `free` degrees of freedom, scaled to be drawn from.

    By √(r / free) for what the fit took up, and by the 97.5 % point of Student's t over that of the normal: a few
    residuals know little of the noise, and a 95 % interval must say so.
    """
    return np.asarray(residuals * np.sqrt(len(residuals) / free) * _few(free))


def seed_shifts(effects: Floats, count: int, rng: np.random.Generator) -> Floats:
    """(count,) draws of how far the mean `effects` (S,) of S seeds is from that of all seeds; 0 for fewer than two.

    They are `count` evenly spaced quantiles of a normal distribution, shuffled, as wide at 97.5 % as Student's t for
    S - 1 degrees of freedom.
    """
    if len(effects) < 2:
        return np.zeros(count)
    wide = effects.std(ddof=1) / np.sqrt(len(effects)) * _few(len(effects) - 1)
    levels = np.clip(np.linspace(0, 1, count), 0.5 / count, 1 - 0.5 / count)
    return np.asarray(wide * rng.permutation(ndtri(levels)))


def of_one_seed(runs: Evidence, told_apart: bool) -> list[Remark]:
    """The warning that seeds are not in the intervals: where runs share a seed and seeds cannot be told apart."""
    if runs.seeds is None or told_apart or len(np.unique(runs.seeds)) == runs.r > 1:  # else they are noise of the runs
        return []
    each = np.unique(runs.seeds).tolist()
    found = f"all runs have seed {each[0]}" if len(each) == 1 else f"the runs do not tell the seeds {each} apart"
    detail = "by how much another seed would move the forecasts is not known and not in their intervals"
    return [Remark("one_seed", f"{found}: {detail}; give every size and mixture the same two seeds or more")]


def _few(free: float) -> float:
    """By how much the 97.5 % point of Student's t for `free` degrees of freedom is above the normal's, as a factor."""
    return float(stdtrit(free, 0.975) / ndtri(0.975))


def _check_sources(sources: tuple[str, ...], available: Rows) -> None:
    if not sources or len(set(sources)) != len(sources):
        raise InputError(f"evidence needs sources with names of their own, found {list(sources)}")
    if available.shape != (len(sources),):
        raise ValueError(f"{len(sources)} sources need as many sizes, found {available.shape}")
    if available.min() < 1:
        raise InputError(f"source {sources[int(available.argmin())]!r} has {available.min()} rows: leave it out")


def _check_shapes(evidence: Evidence) -> None:
    r, s = len(evidence.values), len(evidence.sources)
    found = {
        "sizes": (evidence.sizes.shape, (r,)),
        "shares": (evidence.mixtures.shape, (r, s)),
        "seeds": ((r,) if evidence.seeds is None else evidence.seeds.shape, (r,)),
        "distances": ((r,) if evidence.distances is None else evidence.distances.shape, (r,)),
    }
    if wrong := {name: ours for name, (ours, expected) in found.items() if ours != expected}:
        raise ValueError(f"{r} runs over {s} sources have arrays of other shapes: {wrong}")
    if (evidence.source_of is None) != (evidence.keys is None):
        raise ValueError("the sources of the pool's rows and their keys come together")
    if evidence.source_of is not None and evidence.keys is not None and len(evidence.source_of) != len(evidence.keys):
        raise ValueError(f"{len(evidence.source_of)} rows have a source but {len(evidence.keys)} a key")
    _check_costs(evidence)


def _check_costs(evidence: Evidence) -> None:
    rows = 0 if evidence.source_of is None else len(evidence.source_of)
    if evidence.costs is not None and evidence.costs.shape[1:] != (rows,):
        raise ValueError(f"costs are {evidence.costs.shape} for {rows} rows with a source")
    m = 0 if evidence.costs is None else len(evidence.costs)
    if evidence.target_weights is not None and evidence.target_weights.shape != (m,):
        raise ValueError(f"{m} targets have costs but {evidence.target_weights.shape} weights")


def _check_runs(evidence: Evidence) -> None:
    if np.isinf(evidence.values).any():
        run = int(np.isinf(evidence.values).argmax())
        raise InputError(f"run {run} has an infinite {evidence.metric}: give NaN for a run that failed")
    if not (np.isfinite(evidence.sizes).all() and (evidence.sizes > 0).all()):
        raise InputError(f"runs have sizes {evidence.sizes.tolist()}: each must be above 0")
    off = np.abs(evidence.mixtures.sum(axis=1) - 1) > ON_THE_SIMPLEX
    if wrong := np.flatnonzero(off | ~(evidence.mixtures >= 0).all(axis=1)).tolist():
        shares = evidence.mixtures[wrong[0]].tolist()
        raise InputError(f"run {wrong[0]} has shares {shares}: they must not be below 0 and must sum to 1")
    if evidence.distances is not None and not np.isfinite(evidence.distances).all():
        run = int(np.isfinite(evidence.distances).argmin())
        raise InputError(f"run {run} has distance {evidence.distances[run]}: measure it again")

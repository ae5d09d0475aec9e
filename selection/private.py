"""Differential privacy for target sets: what may be told about examples that must not be seen.

A release is a number or a vector about all m targets with noise on it. What is computed from it and from the pool,
which is public, tells nothing more: scores, order and choice are free (Dwork and Roth 2014, proposition 2.1). Every
further release about the same targets, of another seed or method, adds its epsilon and delta to what was spent.

The noise comes from the generator that is passed in. It must be as secret as the targets: who knows its seed subtracts
the noise. And Gaussian noise in floating point leaves traces in the low bits of the sum (Mironov 2012): where someone
could look at the released vector itself and not only at the rows chosen, use a snapped or discrete sampler such as
OpenDP's. Counts get discrete noise here, which has no low bits.
"""

import math
from dataclasses import dataclass
from operator import add
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import chi2

from selection.cosine import GRID, TILE_NUMBERS, TILE_ROWS, cosines, unit_rows
from selection.problem import Block, Problem
from selection.survey import survey
from selection.targets import target_signal
from warehouse.errors import InputError
from warehouse.records import Floats, Rows

Neighbours: TypeAlias = Literal["replace_one", "add_remove"]
SAMPLE = 1024  # rows of the pool that stand for it
CERTAIN = 0.99
ROUNDING = 1e-12  # the multiplier is rounded up by this share, so that its delta is never above the one asked for


@dataclass(frozen=True, slots=True)
class Privacy:
    """What a release promises: the targets of one contributor change the odds of any answer by at most e^epsilon, but
    for a probability of delta.

    neighbours  `replace_one`: one contributor's targets are others; `add_remove`: they are there or not, while the
                number of targets that a mean is divided by is public either way
    group_size  the most targets that one contributor gave
    """

    epsilon: float
    delta: float
    neighbours: Neighbours
    group_size: int

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon is {self.epsilon}; give a number above 0: 1 is strong, 8 is weak")
        if not 0 <= self.delta < 1:
            raise InputError(f"delta is {self.delta}; give a probability far below 1 over the number of targets")
        if self.neighbours not in get_args(Neighbours):
            raise InputError(f"neighbours is {self.neighbours!r}; give one of {', '.join(get_args(Neighbours))}")
        if self.group_size < 1:
            raise InputError(f"group_size is {self.group_size}; give the most targets of one contributor, at least 1")

    @property
    def changes(self) -> int:
        """How far a sum over targets, each of length 1 at most, can move: noise in proportion hides a whole group."""
        return self.group_size * (2 if self.neighbours == "replace_one" else 1)

    def facts(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "unit": "one target example" if self.group_size == 1 else "the target examples of one contributor",
            "neighbours": self.neighbours,
            "group_size": self.group_size,
            "releases": 1,
        }


def gaussian_delta(c: float, epsilon: float) -> float:
    """The least delta for which Gaussian noise of standard deviation `c` times the sensitivity is private.

    The hockey-stick divergence of two such Gaussians, Phi(1/2c - epsilon c) - e^epsilon Phi(-1/2c - epsilon c)
    (Balle and Wang 2018, theorem 8).
    """
    first, second = log_ndtr(0.5 / c - epsilon * c), epsilon + log_ndtr(-0.5 / c - epsilon * c)
    return float(-math.exp(first) * math.expm1(min(second - first, 0.0)))


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """c: the standard deviation that (epsilon, delta) needs, in units of the sensitivity; 4.22468 for (1, 1e-6).

    The analytic Gaussian mechanism (Balle and Wang 2018), tight for every epsilon, found by bisection.
    """
    low, high = 1.0, 1.0
    while gaussian_delta(low, epsilon) <= delta:
        low /= 2
    while gaussian_delta(high, epsilon) > delta:
        high *= 2

    def excess(log_c: float) -> float:
        return gaussian_delta(math.exp(log_c), epsilon) - delta

    return math.exp(brentq(excess, math.log(low), math.log(high), xtol=1e-13)) * (1 + ROUNDING)


def discrete_laplace(scale: float, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(size,) whole numbers z drawn in proportion to exp(-|z| / scale); epsilon is sensitivity / scale."""
    falls = -math.expm1(-1 / scale)
    return np.asarray(rng.geometric(falls, size) - rng.geometric(falls, size), np.int64)


def discrete_laplace_variance(scale: float) -> float:
    """Of one of these numbers: 2 q / (1 - q)² with q = exp(-1 / scale)."""
    return 2 * math.exp(-1 / scale) / math.expm1(-1 / scale) ** 2


def frequencies(d: int, count: int, bandwidth: float, rng: np.random.Generator) -> Floats:
    """(count, d) random frequencies of the kernel exp(-|x - y|² / bandwidth²): normal, of variance 2 / bandwidth²."""
    return np.asarray(rng.standard_normal((count, d)) * (math.sqrt(2) / bandwidth))


def fourier(angles: Floats) -> Floats:
    """(n, 2 D) features [cos, sin] / sqrt(D) of `angles` (n, D), rows times frequencies: each of length 1 exactly.

    Their dot products estimate the kernel of the frequencies, with an error of the order of D^(-1/2) (Rahimi and Recht
    2007).
    """
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(angles.shape[1])


def clipped(vectors: Floats) -> Floats:
    """`vectors` (m, f), those longer than 1 cut to length 1."""
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, 1.0))


@dataclass(frozen=True, slots=True)
class Release:
    """A private mean: `value` (f,), the standard deviation `sd` of its noise in every direction, `sensitivity`."""

    value: Floats
    sd: float
    sensitivity: float


def private_mean(vectors: Floats, privacy: Privacy, rng: np.random.Generator) -> Release:
    """The mean of `vectors` (m, f), clipped to length 1, with Gaussian noise: sd = c(epsilon, delta) · changes / m.

    A dot product with a vector of length 1 carries noise of that sd, whatever f. Raises `InputError` for a delta of 1/m
    or more, which would allow to publish a target outright.
    """
    m = len(vectors)
    if not 0 < privacy.delta < 1 / m:
        raise InputError(f"delta is {privacy.delta}; for {m} targets give one above 0 and far below {1 / m:.2g}")
    sensitivity = privacy.changes / m
    sd = gaussian_multiplier(privacy.epsilon, privacy.delta) * sensitivity
    noise = rng.normal(0.0, sd, vectors.shape[1])
    return Release(clipped(vectors).mean(axis=0) + noise, sd, sensitivity)


class Features(Protocol):
    """Vectors (b, f) of length 1, or 0, for rows (b, d): a function of each row and of what is public alone."""

    def __call__(self, rows: NDArray[Any]) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Centred:
    """Rows brought to unit length, less `centre` (d,), brought to unit length again.

    Language models' vectors all point one way; without it the noise drowns what little parts them.
    """

    centre: Floats

    def __call__(self, rows: NDArray[Any]) -> Floats:
        units = unit_rows(rows)
        away = np.asarray(units.values) / GRID - self.centre
        away[units.zero | ~units.finite] = 0.0
        return np.asarray(unit_rows(away).values) / GRID


@dataclass(frozen=True, slots=True)
class Fourier:
    """Random Fourier features, by `waves` (D, d), of the rows' `centred` vectors."""

    centred: Centred
    waves: Floats

    def __call__(self, rows: NDArray[Any]) -> Floats:
        waves, lengths = unit_rows(self.waves), np.sqrt(np.square(self.waves).sum(axis=1))
        # on the grid, so that an angle is the same in whatever block its row stands
        return fourier(cosines(waves.values, unit_rows(self.centred(rows)).values).T * lengths)


def pool_centre(problem: Problem, signal: str) -> Floats:
    """(d,) the mean of the pool's vectors, each of unit length. Raises `InputError` where one is not finite."""
    return np.asarray(survey(problem, signal).total / (problem.n * GRID))


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool under a release: `scores` (n,), and what the noise in it adds to their variance.

    noise_variance  on average over draws of the noise
    noise_at_most   in all but 1 of 100 draws
    """

    scores: Floats
    noise_variance: float
    noise_at_most: float

    @property
    def variance(self) -> float:
        return float(np.sort(self.scores).var())  # sorted, so that the pool's order does not show in the last bit


def scored(problem: Problem, signal: str, features: Features, release: Release) -> Scored:
    """Dot products of all candidates' features with the release, to the last bit a function of each row alone.

    Noise of sd s adds s² (mean |f|² - |mean f|²) to the variance of a pool's scores on average, which is public.
    """
    length = float(np.sqrt(np.square(release.value).sum()))
    parts = problem.reduce(_Scores(signal, features, np.asarray(unit_rows(release.value[None, :]).values), length), add)
    scores = np.concatenate([part.scores for part in parts])
    mean = sum((part.total for part in parts), np.zeros(len(release.value))) / (problem.n * GRID)
    share = sum(part.there for part in parts) / problem.n
    noise = release.sd**2 * max(share - float(np.square(mean).sum()), 0.0)
    return Scored(scores, noise, noise * _worst_draw(problem, signal, features))


def _worst_draw(problem: Problem, signal: str, features: Features) -> float:
    """How many times its average the variance that noise adds can be, but for 1 of 100 draws.

    It is a sum of squares, one for every direction the pool's features spread in; as many as count, (tr S)² / tr S² for
    their covariance S, taken from a sample of the pool, make a chi-squared of so many degrees (Satterthwaite 1946).
    """
    rows = sample_by_key(problem, SAMPLE)
    some = features(np.asarray(problem.candidates[signal][rows]))
    some -= some.mean(axis=0)
    products = some @ some.T
    squares = float(np.square(products).sum())
    degrees = float(np.trace(products)) ** 2 / squares if squares > 0 else 1.0
    return float(chi2.ppf(CERTAIN, degrees) / degrees)


def refuse_noise(found: Scored, sd: float, m: int) -> None:
    """Raises `InputError` unless noise makes up at most half of the variance of the released scores, 99 times in 100.

    The order of the rows would otherwise say more about the noise than about the targets. All numbers follow from the
    release and the pool, so the refusal tells nothing more about the targets.
    """
    if 0 < found.variance < 2 * found.noise_at_most:  # equal scores have no order that noise could change
        raise InputError(
            f"the noise on every score has standard deviation {sd:.3g} for {m} targets and may make up more than half "
            f"of the variance of the released scores ({found.noise_at_most:.3g} of {found.variance:.3g}): the order "
            "would be noise. Give more targets or a larger epsilon; this release counts as spent"
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """Of a block: `scores` (b,), `total` (f,) of the features on the grid, and how many rows have features."""

    scores: Floats
    total: Floats
    there: int


@dataclass(frozen=True, slots=True)
class _Scores:
    signal: str
    features: Features
    direction: Floats
    length: float

    def __call__(self, block: Block) -> list[_Part]:
        rows = np.asarray(block.signals[self.signal])
        parts = []
        for at in _tiles(rows, max(rows.shape[1], self.direction.shape[1])):
            units = unit_rows(self.features(rows[at]))
            scores = cosines(self.direction, units.values)[0] * self.length
            parts.append(_Part(scores, np.asarray(units.values).sum(axis=0), int((~units.zero).sum())))
        return parts


def _tiles(rows: NDArray[Any], width: int) -> list[slice]:
    """`rows` in pieces of which `width` numbers a row fit the cache."""
    step = max(TILE_ROWS, TILE_NUMBERS // width)
    return [slice(at, at + step) for at in range(0, len(rows), step)]


def target_rows(problem: Problem, signal: str) -> NDArray[Any]:
    """(m, d) the targets; raises `InputError` without any, and for one that is not finite, without naming it."""
    if not np.isfinite(rows := np.asarray(target_signal(problem, signal))).all():
        raise InputError("some targets hold NaN or infinity: measure them again")
    return rows


def sample_by_key(problem: Problem, most: int) -> Rows:
    """Up to `most` rows, those of the lowest keys: keys are hashes, so they are a random sample of the pool."""
    return problem.by_key[:most]

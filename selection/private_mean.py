"""`private_mean`: rows that point the way a private target set points on average."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.answer import HIGHER, selection, summary
from selection.histogram import histogram
from selection.private import (
    Centred,
    Features,
    Neighbours,
    Privacy,
    Release,
    pool_centre,
    private_mean,
    refuse_noise,
    scored,
    target_rows,
)
from selection.problem import Problem
from selection.topk import ranked
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class PrivateMean:
    """Rows ranked by their dot product with one private release of the targets' mean direction.

    representation  the signal to compare in; vectors have the mean of the pool taken off and unit length
    epsilon, delta  what one release may tell
    neighbours, group_size  see `selection.private.Privacy`

    Scores carry Gaussian noise of the same standard deviation each, in diagnostics as `noise_sd`; higher is better.
    Raises `InputError` without targets, for vectors that are not finite, and where noise may make up more than half of
    the variance of the scores. Read `selection.private` on seeds and floating point before trusting it with secrets.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    epsilon: float = 1.0
    delta: float = 1e-6
    neighbours: Neighbours = "replace_one"
    group_size: int = 1

    def __post_init__(self) -> None:
        _ = self.privacy

    @property
    def privacy(self) -> Privacy:
        return Privacy(self.epsilon, self.delta, self.neighbours, self.group_size)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = target_rows(problem, "representation")
        features, facts = self._features(problem, rng)
        release = private_mean(features(targets), self.privacy, rng)
        return _answer(problem, features, release, self.privacy, len(targets), facts)

    def _features(self, problem: Problem, rng: np.random.Generator) -> tuple[Features, Mapping[str, Any]]:
        """The space that rows are compared in, and what diagnostics tell of it."""
        return Centred(pool_centre(problem, "representation")), {}


def _answer(
    problem: Problem, features: Features, release: Release, privacy: Privacy, m: int, facts: Mapping[str, Any]
) -> Selection:
    """The budget's rows by their dot product with a `release` about m targets, in the space of `features`."""
    found = scored(problem, "representation", features, release)
    refuse_noise(found, release.sd, m)
    rows = ranked(found.scores, problem.keys, problem.budget)
    scores = found.scores[rows]
    return selection(
        rows,
        scores,
        [f"similarity={score:.4g} noise_sd={release.sd:.3g}" for score in scores.tolist()],
        HIGHER,
        **privacy.facts(),
        mechanism="analytic Gaussian",
        targets=m,
        sensitivity=release.sensitivity,
        noise_sd=release.sd,
        noise_share_at_most=found.noise_at_most / found.variance if found.variance else 0.0,
        **facts,
        **summary(scores, HIGHER),
        pool_scores=histogram(found.scores),
    )

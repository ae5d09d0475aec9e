"""`private_kernel`: rows where a private target set is dense, by a kernel estimate over random Fourier features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.cosine import GRID, cosines
from selection.private import (
    SAMPLE,
    Centred,
    Fourier,
    Neighbours,
    Privacy,
    frequencies,
    pool_centre,
    private_mean,
    sample_by_key,
    target_rows,
)
from selection.private_mean import by_release
from selection.problem import Problem
from warehouse.errors import InputError
from warehouse.records import Selection, Spec


@dataclass(frozen=True, slots=True)
class PrivateKernel:
    """Rows ranked by the mean over targets of exp(-|x - y|² / h²), from one private release of their mean features.

    representation  the signal to compare in; vectors have the mean of the pool taken off and unit length
    features        D, of cosines and of sines each; the error of a score is about D^(-1/2), beside the noise
    bandwidth       h; by default the median distance between rows of the pool
    epsilon, delta, neighbours, group_size  as for `private_mean`

    Scores estimate the mean kernel, so they may be a little below 0; higher is better. Raises `InputError` as
    `private_mean` does.
    """

    compares: ClassVar[bool] = True

    representation: Spec
    features: int = 1024
    bandwidth: float | None = None
    epsilon: float = 1.0
    delta: float = 1e-6
    neighbours: Neighbours = "replace_one"
    group_size: int = 1

    def __post_init__(self) -> None:
        _ = self.privacy
        if self.features < 1:
            raise InputError(f"features is {self.features}; give at least 1, such as 1024")
        if self.bandwidth is not None and not 0 < self.bandwidth < np.inf:
            raise InputError(f"the bandwidth is {self.bandwidth}; give a distance above 0 (unit vectors: up to 2)")

    @property
    def privacy(self) -> Privacy:
        return Privacy(self.epsilon, self.delta, self.neighbours, self.group_size)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"representation": self.representation}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        targets = target_rows(problem, "representation")
        centred = Centred(pool_centre(problem, "representation"))
        bandwidth = self.bandwidth or typical_distance(problem, centred)
        features = Fourier(centred, frequencies(targets.shape[1], self.features, bandwidth, rng))
        release = private_mean(features(targets), self.privacy, rng)
        facts = {"random_features": self.features, "bandwidth": bandwidth}
        return by_release(problem, features, release, self.privacy, len(targets), **facts)


def typical_distance(problem: Problem, centred: Centred) -> float:
    """The median distance between rows of the public pool, from a sample of it; 1 where they are all the same."""
    rows = np.sort(sample_by_key(problem, SAMPLE))
    vectors = np.rint(centred(np.asarray(problem.candidates["representation"][rows])) * GRID)
    products = cosines(vectors, vectors)[np.triu_indices(len(rows), 1)]
    median = float(np.sqrt(np.maximum(2 - 2 * np.median(products), 0.0))) if len(products) else 0.0
    return median or 1.0

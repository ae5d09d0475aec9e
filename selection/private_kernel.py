"""`private_kernel`: rows where a private target set is dense, by a kernel estimate over random Fourier features."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.cosine import GRID, cosines
from selection.private import SAMPLE, Centred, Features, Fourier, frequencies, pool_centre, sample_by_key
from selection.private_mean import PrivateMean
from selection.problem import Problem
from warehouse.errors import InputError


@dataclass(frozen=True, slots=True)
class PrivateKernel(PrivateMean):
    """Rows ranked by the mean over targets of exp(-|x - y|² / h²), from one private release of their mean features.

    representation, epsilon, delta, neighbours, group_size  as for `private_mean`
    features   D, of cosines and of sines each; the error of a score is about D^(-1/2), beside the noise
    bandwidth  h; by default the median distance between rows of the pool

    Scores estimate the mean kernel, so they may be a little below 0; higher is better. Raises `InputError` as
    `private_mean` does.
    """

    features: int = 1024
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        PrivateMean.__post_init__(self)
        if self.features < 1:
            raise InputError(f"features is {self.features}; give at least 1, such as 1024")
        if self.bandwidth is not None and not 0 < self.bandwidth < np.inf:
            raise InputError(f"the bandwidth is {self.bandwidth}; give a distance above 0 (unit vectors: up to 2)")

    def _features(self, problem: Problem, rng: np.random.Generator) -> tuple[Features, Mapping[str, Any]]:
        centred = Centred(pool_centre(problem, "representation"))
        bandwidth = self.bandwidth or typical_distance(problem, centred)
        waves = frequencies(len(centred.centre), self.features, bandwidth, rng)
        return Fourier(centred, waves), {"random_features": self.features, "bandwidth": bandwidth}


def typical_distance(problem: Problem, centred: Centred) -> float:
    """The median distance between rows of the public pool, from a sample of it; 1 where they are all the same."""
    rows = np.sort(sample_by_key(problem, SAMPLE))
    vectors = np.rint(centred(np.asarray(problem.candidates["representation"][rows])) * GRID)
    products = cosines(vectors, vectors)[np.triu_indices(len(rows), 1)]
    median = float(np.sqrt(np.maximum(2 - 2 * np.median(products), 0.0))) if len(products) else 0.0
    return median or 1.0

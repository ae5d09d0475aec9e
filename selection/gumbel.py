"""Noise that follows rows, not their places: stored in another order, a pool draws the same noise for each row."""

import numpy as np

from selection.problem import Problem
from warehouse.records import Floats


def gumbel(problem: Problem, rng: np.random.Generator, lists: int = 1) -> Floats:
    """(lists, n) draws of the standard Gumbel distribution, dealt to the rows by ascending key, then row number.

    The k rows of largest log w + noise are an exact sample of k rows without replacement, each drawn in proportion to
    the w of those that are left (Gumbel-top-k; Kool, van Hoof and Welling 2019). Takes 8 bytes a row and list.
    """
    noise = np.empty((lists, problem.n))
    noise[:, problem.by_key] = rng.gumbel(size=(lists, problem.n))
    return noise

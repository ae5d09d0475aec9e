"""pass@k: the chance that at least one of k tries is right, estimated from n tries (Chen et al. 2021, §2.1)."""

import numpy as np

from warehouse.errors import InputError


def pass_at_k(n: int, right: int, k: int) -> float:
    """1 - C(n - right, k) / C(n, k) of one item: unbiased, and computed as a product that does not overflow.

    The metric `pass@k` is its mean over items. Raises `InputError` where fewer than k tries were made: the chance is
    then not known.
    """
    if not 0 <= right <= n or k < 1:
        raise ValueError(f"{right} right tries of {n} and k = {k} do not fit")
    if k > n:
        raise InputError(f"pass@{k} needs at least {k} tries of every item; found {n}: ask for more tries")
    if n - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - right + 1, n + 1)))

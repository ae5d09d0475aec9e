"""How much of every source: shares by size with a cap, and whole numbers of rows that add up.

Shares in proportion to the number of examples, with a cap on that number, are those of T5 and FLAN; shares fixed per
benchmark and by size inside it are those of OPT-IML.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.records import Floats, Rows

Exhausted: TypeAlias = Literal["redistribute", "repeat"]

NEAR_WHOLE = 1e-9  # a quota this close below a whole number is that number


def capped_shares(sizes: NDArray[Any], cap: int, temperature: float = 1.0) -> Floats:
    """(s,) shares min(e_i, cap) / Σ_j min(e_j, cap) of sources of `sizes` (s,), to the power 1/temperature, sum 1.

    A temperature above 1 brings shares nearer to each other. Sizes 1000, 3000 and 30000 with a cap of 3000 give 1/7,
    3/7 and 3/7.
    """
    if cap < 1:
        raise InputError(f"the cap is {cap} rows; give at least 1")
    if not temperature > 0:
        raise InputError(f"the temperature is {temperature}; give a number above 0")
    counted = np.minimum(np.asarray(sizes, np.float64), cap)
    if len(counted) == 0 or counted.min() < 0 or counted.max() <= 0:
        raise InputError(f"sources have {np.asarray(sizes).tolist()} rows: give at least one with rows, none below 0")
    weights = (counted / counted.max()) ** (1 / temperature)
    return np.asarray(weights / weights.sum())


def grouped_shares(
    sizes: NDArray[Any], group: Rows, group_shares: Floats, cap: int, temperature: float = 1.0
) -> Floats:
    """(s,) shares of sources of `sizes`: those of their groups (g,) as given, by `capped_shares` inside each.

    `group` (s,) indexes `group_shares`, which need not sum to 1. Raises `InputError` for a share below 0 and for a
    group with a share but no rows.
    """
    if (group_shares < 0).any() or group_shares.sum() <= 0:
        raise InputError(f"groups have shares {group_shares.tolist()}: none may be below 0, one must be above")
    shares = np.zeros(len(sizes))
    for at in np.flatnonzero(group_shares > 0):
        inside = group == at
        if not np.asarray(sizes)[inside].sum():
            raise InputError(f"group {at} has a share of {group_shares[at]:g} but no rows")
        shares[inside] = group_shares[at] * capped_shares(np.asarray(sizes)[inside], cap, temperature)
    return np.asarray(shares / group_shares.sum())


def largest_remainder(shares: Floats, total: int) -> Rows:
    """(s,) whole numbers that sum to `total` and are each less than 1 away from their part of it.

    `shares` (s,) need not sum to 1. What the whole parts leave goes to the largest remainders, ties to the first:
    100 by 0.3, 0.1 and 0.05 are 67, 22 and 11. Raises `InputError` where no share is above 0.
    """
    if not (len(shares) and shares.min() >= 0 and shares.sum() > 0):
        raise InputError(f"shares are {shares.tolist()}: none may be below 0, one must be above")
    quotas = shares / shares.sum() * total
    counts: Rows = np.floor(quotas + NEAR_WHOLE).astype(np.int64)
    first = np.argsort(counts - quotas, kind="stable")[: total - int(counts.sum())]
    counts[first] += 1
    return counts


def poured(shares: Floats, capacity: Rows, total: int) -> Rows:
    """(s,) whole numbers that sum to `total`, none above its `capacity`: by `largest_remainder` as far as that goes.

    What a full source cannot take goes to the others by their shares; when all that have a share are full, to the rest
    by what they hold. Raises `InputError` where the capacities do not hold the total.
    """
    if total > capacity.sum():
        raise InputError(f"{total} rows are wanted but the sources hold {capacity.sum()}: lower it or repeat rows")
    counts, still = np.zeros(len(shares), np.int64), capacity > 0
    while (left := total - int(counts.sum())) > 0:
        weights = np.where(still, shares, 0.0)
        if weights.sum() == 0:
            weights = np.where(still, capacity, 0).astype(np.float64)
        full = still & (weights / weights.sum() * left >= capacity) & (weights > 0)
        if not full.any():
            return np.asarray(counts + largest_remainder(weights, left))
        counts[full], still = capacity[full], still & ~full
    return counts


def counts_of(shares: Floats, sizes: Rows, total: int, exhausted: Exhausted) -> Rows:
    """(s,) rows to take of sources of `sizes` (s,) so that they sum to `total`.

    A source that runs out leaves its rest to the others (`redistribute`), or its rows are taken more than once
    (`repeat`): then a count may be above its size. Raises `InputError` where there is nothing to repeat or too little.
    """
    if exhausted == "redistribute":
        return poured(shares, sizes, total)
    if ((shares > 0) & (sizes == 0)).any():
        raise InputError(f"source {int(((shares > 0) & (sizes == 0)).argmax())} has a share but no row to repeat")
    return largest_remainder(shares, total)


def in_proportion(shares: Floats, group: Rows, turn: Sequence[int] | Rows) -> Rows:
    """The order (n,) of rows of the groups `group` (n,) whose every beginning is about in proportion to `shares` (g,).

    The i-th row of a group, from 1, comes at time (i - ½) / share (the divisors of Webster and Sainte-Laguë); rows of a
    group keep their order, ties go by the groups' places in `turn` (g,). A group out of rows leaves its time to the
    others; one without a share comes after all others.
    """
    together = np.argsort(group, kind="stable")
    firsts = np.searchsorted(group[together], group[together], side="left")
    places = np.empty(len(group), np.int64)
    places[together] = np.arange(len(group)) - firsts
    with np.errstate(divide="ignore"):
        times = (places + 0.5) / np.asarray(shares)[group]
    return np.lexsort((places, np.asarray(turn)[group], times)).astype(np.int64)

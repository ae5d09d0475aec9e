"""How many trials each query gets: targets, how many draws should reach them, and shares of a budget.

Difficulty-aware rejection sampling (DART-Math, Tong et al. 2024, arXiv 2407.13690, §3): targets of correct replies that
are the same for all queries, or grow with their fail rate. How trials are spent to reach them is our own.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Literal

Strategy = Literal["vrt", "uniform", "prop2diff"]
MOST_DRAWS = 64  # of one query in one round


def target(strategy: Strategy, k: int, correct: int, answered: int) -> int | None:
    """How many correct replies a query should have, after `correct` of `answered` pilot trials were.

    `vrt` has no target (None: all that are correct), `uniform` has `k`. `prop2diff` has `k` times the fail rate,
    rounded up, and at least 1, so the hardest queries get `k` and no query goes without.
    """
    if strategy == "vrt":
        return None
    if strategy == "uniform":
        return k
    return max(1, ceil(Fraction(k * (answered - correct), answered)))


def draws(need: int, kept: int, trials: int) -> int:
    """How many trials a query that needs `need` more replies gets next, after `trials` gave `kept`: 1 to 64.

    Half of what should do it at the expected rate, but `need` at least, which cannot be too many. The rate is the mean
    of its posterior Beta(1 + kept, 1 + trials - kept), which is never below 1 / (trials + 2). The whole of what should
    do it would end in fewer rounds, and pay for a tenth to a quarter more trials.
    """
    return min(MOST_DRAWS, max(need, ceil(Fraction(need * (trials + 2), 2 * (kept + 1)))))


def shares(wants: Sequence[int], keys: Sequence[str], left: int) -> list[int]:
    """What each query gets where they want `wants` trials and `left` are left: never more, never more than `left`.

    Where it is not enough for all, each gets one first, and the rest in proportion to what it wants further, by largest
    remainders. Ties go by `keys`, so the order of the queries changes nothing.
    """
    if sum(wants) <= left:
        return list(wants)
    order = sorted((i for i, want in enumerate(wants) if want > 0), key=lambda i: keys[i])
    given = [0] * len(wants)
    for i in order[:left]:
        given[i] = 1
    rest = left - sum(given)
    further = sum(want - one for want, one in zip(wants, given, strict=True))
    exact = [Fraction(rest * (want - one), further) for want, one in zip(wants, given, strict=True)]
    for i, share in enumerate(exact):
        given[i] += floor(share)
    for i in sorted(order, key=lambda i: floor(exact[i]) - exact[i])[: left - sum(given)]:
        given[i] += 1
    return given

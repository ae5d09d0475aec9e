"""Lists take turns: each in a fixed order takes its best row, until the budget is filled (RDS+, algorithm 1).

Two readings of what happens when the best row is gone already, both from Ivison et al. 2025:

retry    the list goes on to its next row in the same turn ("this point will not get chosen again", algorithm 1)
consume  the duplicate uses up the turn (the released code)

Scores [[.9, .8, .7, .1], [.95, .2, .6, .5]] give rows 0, 2, 1, 3 by `retry` and 0, 1, 2, 3 by `consume`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from warehouse.records import Rows

Policy: TypeAlias = Literal["retry", "consume"]


@dataclass(frozen=True, slots=True)
class Turns:
    """Who took what, in order: `lists` (n,) and the place of the row in its list, `places` (n,), both from 0.

    rounds   (n,) from 1
    skipped  rows that a list had to pass by (`retry`) or turns it lost (`consume`) because another list had the row
    """

    lists: Rows
    places: Rows
    rounds: Rows
    skipped: int


def retry(rows: Rows, n: int) -> Turns | None:
    """Turns over `rows` (l, k), best first, until n are taken; None if a list ran out before that."""
    lists, depth = [memoryview(ranking) for ranking in np.ascontiguousarray(rows)], rows.shape[1]
    taken: set[int] = set()
    nexts, places = [0] * len(lists), []
    for turn in range(n):
        at = turn % len(lists)
        ranking, place = lists[at], nexts[at]
        while place < depth and ranking[place] in taken:
            place += 1
        if place == depth:
            return None
        taken.add(ranking[place])
        places.append(place)
        nexts[at] = place + 1
    turns = np.arange(n)
    return Turns(turns % len(lists), np.array(places, np.int64), turns // len(lists) + 1, sum(nexts) - n)


def consume(rows: Rows, n: int) -> Turns | None:
    """Turns over `rows` (l, k), best first, until n are taken; None if the lists ran out before that."""
    in_turn = rows.T.ravel()
    firsts = np.sort(np.unique(in_turn, return_index=True)[1])[:n]
    if len(firsts) < n:
        return None
    places, lists = np.divmod(firsts, len(rows))
    return Turns(lists, places, places + 1, int(firsts[-1]) + 1 - n)


POLICIES: dict[Policy, Callable[[Rows, int], Turns | None]] = {"retry": retry, "consume": consume}

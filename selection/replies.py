"""What a language model thought of each row's reply: the signals `response` and `response_alone`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selection.problem import Problem
from warehouse.errors import InputError
from warehouse.records import Floats

FIT, CUT, NO_REPLY = range(3)
WHY = {CUT: "cut", NO_REPLY: "no_reply"}
"""Why a reply is not judged, in the order in which such rows come after all others."""


@dataclass(frozen=True, slots=True)
class Replies:
    """Of n rows: `nll` (n,) nats per reply token, 0 for a row without one; `tokens` (n,); `state` (n,).

    `state` is FIT, CUT where the row did not fit the model (what is left of the reply says nothing of the whole), or
    NO_REPLY.
    """

    nll: Floats
    tokens: NDArray[np.int64]
    state: NDArray[np.int8]

    @property
    def fit(self) -> NDArray[np.bool_]:
        return np.asarray(self.state == FIT)


def replies_of(problem: Problem, signal: str) -> Replies:
    """Signal (n, 3): mean NLL, reply tokens, 1 where cut. Raises `InputError` where a reply's NLL is not finite."""
    values: NDArray[Any] = np.asarray(problem.candidates[signal][0 : problem.n], np.float64)
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"signal {signal!r} must be (n, 3), found {values.shape}")
    readable = np.isfinite(values[:, 1:]).all(axis=1) & (np.isfinite(values[:, 0]) | (values[:, 1] <= 0))
    if len(broken := np.flatnonzero(~readable)):
        raise InputError(
            f"{len(broken)} of {problem.n} rows have a reply whose {signal!r} is NaN or infinite, "
            f"the first is row {broken[0]}: measure them again"
        )
    state = np.select([values[:, 2] > 0, values[:, 1] <= 0], [CUT, NO_REPLY], FIT).astype(np.int8)
    nll = np.where(values[:, 1] > 0, values[:, 0], 0.0)
    return Replies(nll, values[:, 1].astype(np.int64), state)


def counted(state: NDArray[np.int8], names: Mapping[int, str] = WHY) -> dict[str, int]:
    """How many of some rows are in each of the states that `names` has a name for."""
    return {name: int((state == number).sum()) for number, name in names.items()}

"""The question every selection method answers: which rows, for these targets, within this budget."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from warehouse.records import Selection, Spec

T = TypeVar("T")
Signal = NDArray[Any] | csr_matrix
BLOCK_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start` to `stop` of the candidates: `signals[name]` has stop - start rows."""

    start: int
    stop: int
    signals: Mapping[str, Signal]


class Reducer(Protocol):
    """Runs `per_block` over all blocks of rows and folds the answers with the associative `merge`, in row order."""

    def __call__(
        self, candidates: Mapping[str, Signal], n: int, per_block: Callable[[Block], T], merge: Callable[[T, T], T]
    ) -> T: ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """The default reducer: one block after the other in this process; memory is bounded by the block."""

    block_rows: int = BLOCK_ROWS

    def blocks(self, candidates: Mapping[str, Signal], n: int) -> Iterator[Block]:
        for start in range(0, n, self.block_rows):
            stop = min(start + self.block_rows, n)
            yield Block(start, stop, {name: signal[start:stop] for name, signal in candidates.items()})

    def __call__(
        self, candidates: Mapping[str, Signal], n: int, per_block: Callable[[Block], T], merge: Callable[[T, T], T]
    ) -> T:
        blocks = self.blocks(candidates, n)
        answer = per_block(next(blocks))
        for block in blocks:
            answer = merge(answer, per_block(block))
        return answer


@dataclass(frozen=True, slots=True)
class Problem:
    """Choose `budget` of n candidates.

    keys         (n,) uint64, a function of each row's `sample_id`: ties are broken by ascending key, then row number
    candidates   signal name to (n,), (n, d) or sparse (n, d), as the method's `reads` asked for
    targets      signal name to (m, d), in the same spaces
    target_task  (m,) int64, the task each target belongs to
    groups       group name to (n,) labels: "source" is always there
    costs        (n,) tokens of each row, where a budget in tokens needs them
    """

    budget: int
    keys: NDArray[np.uint64]
    candidates: Mapping[str, Signal] = field(default_factory=dict)
    targets: Mapping[str, Signal] = field(default_factory=dict)
    target_task: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    task_names: tuple[str, ...] = ()
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    costs: NDArray[np.int64] | None = None
    reducer: Reducer = field(default_factory=InProcess)

    @property
    def n(self) -> int:
        return len(self.keys)

    def reduce(self, per_block: Callable[[Block], T], merge: Callable[[T, T], T]) -> T:
        """Fold `per_block` over all candidates; one process, many cores and many nodes give the same answer."""
        return self.reducer(self.candidates, self.n, per_block, merge)


class Method(Protocol):
    """A frozen dataclass of hyper-parameters. `reads` names the signals that the flow must fetch first."""

    @property
    def reads(self) -> Mapping[str, Spec]: ...

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection: ...

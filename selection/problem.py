"""The question every selection method answers: which rows, for these targets, within this budget."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from warehouse.errors import InputError
from warehouse.records import Rows, Selection, Spec

T = TypeVar("T")
Signal = NDArray[Any] | csr_matrix


class Sliced(Protocol):
    """A signal too large for memory: some rows of it are an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Rows) -> Signal: ...


BLOCK_ROWS = 16_384

KEYS: Final = "keys"
"""The name under which a block carries the keys of its rows; no signal may have it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start` to `stop` of the candidates: `signals[name]` has stop - start rows, `signals[KEYS]` their keys."""

    start: int
    stop: int
    signals: Mapping[str, Signal]


class Reducer(Protocol):
    """Runs `per_block` over all blocks of rows and folds the answers with the associative `merge`, in row order."""

    def __call__(
        self,
        candidates: Mapping[str, Signal | Sliced],
        n: int,
        per_block: Callable[[Block], T],
        merge: Callable[[T, T], T],
    ) -> T: ...


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class InProcess:
    """The default reducer: the blocks in threads of this process; memory is bounded by a few blocks per thread.

    Each thread runs the linear-algebra library on one core: faster than one block at a time on all cores, and on a busy
    machine many times so, because no product waits for a core that another process has.
    """

    block_rows: int = BLOCK_ROWS
    threads: int = field(default_factory=cores)

    def blocks(self, candidates: Mapping[str, Signal | Sliced], n: int) -> Iterator[Block]:
        for start in range(0, n, self.block_rows):
            stop = min(start + self.block_rows, n)
            yield Block(start, stop, {name: signal[start:stop] for name, signal in candidates.items()})

    def __call__(
        self,
        candidates: Mapping[str, Signal | Sliced],
        n: int,
        per_block: Callable[[Block], T],
        merge: Callable[[T, T], T],
    ) -> T:
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(self.threads) as threads:
            return reduce(merge, _in_order(threads, per_block, self.blocks(candidates, n), ahead=self.threads))


def _in_order(
    threads: ThreadPoolExecutor, work: Callable[[Block], T], blocks: Iterator[Block], ahead: int
) -> Iterator[T]:
    """The answers in the order of the blocks; at most `ahead` of them wait, beside the one in hand."""
    waiting: deque[Future[T]] = deque()
    for block in blocks:
        waiting.append(threads.submit(work, block))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class Problem:
    """Choose `budget` of n candidates.

    keys         (n,) uint64, a function of each row's `sample_id`: ties are broken by ascending key, then row number
    candidates   signal name to (n,), (n, d) or sparse (n, d), as the method's `reads` asked for; one that is too large
                 for memory can only be sliced, as `reduce` does
    targets      signal name to (m, d), in the same spaces
    target_task  (m,) int64, the task each target belongs to: an index into `task_names`, where there are names
    groups       group name to (n,) labels: "source" is always there
    costs        (n,) tokens of each row, where a budget in tokens needs them

    Raises `InputError` for a budget that is not between 1 and n, `ValueError` for arrays that do not fit together.
    """

    budget: int
    keys: NDArray[np.uint64]
    candidates: Mapping[str, Signal | Sliced] = field(default_factory=dict)
    targets: Mapping[str, Signal] = field(default_factory=dict)
    target_task: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    task_names: tuple[str, ...] = ()
    groups: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    costs: NDArray[np.int64] | None = None
    reducer: Reducer = field(default_factory=InProcess)

    def __post_init__(self) -> None:
        _check_keys(self.keys)
        _check_budget(self.budget, self.n)
        aligned = {**self.candidates, **{f"group {name}": labels for name, labels in self.groups.items()}}
        _check_rows(aligned if self.costs is None else {**aligned, "costs": self.costs}, self.n, "candidates")
        _check_rows(self.targets, len(self.target_task), "targets")
        _check_widths(self.candidates, self.targets)
        _check_tasks(self.target_task, self.task_names)

    @property
    def n(self) -> int:
        return len(self.keys)

    @property
    def by_key(self) -> Rows:
        """All rows by ascending key, then row number: an order that does not depend on how the pool is stored."""
        return np.argsort(self.keys, kind="stable").astype(np.int64)

    def reduce(self, per_block: Callable[[Block], T], merge: Callable[[T, T], T]) -> T:
        """Fold `per_block` over all candidates; one process, many cores and many nodes give the same answer."""
        return self.reducer({**self.candidates, KEYS: self.keys}, self.n, per_block, merge)


class Method(Protocol):
    """A frozen dataclass of hyper-parameters. `reads` names the signals that the flow must fetch first.

    The selection's `diagnostics["direction"]` is "higher is better", "lower is better" or "none".
    """

    @property
    def compares(self) -> bool:
        """Whether it compares rows with a target set, and so needs one."""
        ...

    @property
    def reads(self) -> Mapping[str, Spec]: ...

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection: ...


@runtime_checkable
class ReadsTargetsOtherwise(Protocol):
    """A method whose targets are measured in another way than its candidates: by the same names, other specs."""

    @property
    def target_reads(self) -> Mapping[str, Spec]: ...


@dataclass(frozen=True, slots=True)
class Reads:
    """The signals of candidates and of targets that a method reads, by name."""

    candidates: Mapping[str, Spec]
    targets: Mapping[str, Spec]


def signals_of(method: Method) -> Reads:
    """What must be measured before `method` is asked; of targets nothing where it compares with none."""
    if not method.compares:
        return Reads(method.reads, {})
    return Reads(method.reads, method.target_reads if isinstance(method, ReadsTargetsOtherwise) else method.reads)


def _check_keys(keys: NDArray[np.uint64]) -> None:
    if keys.ndim != 1 or keys.dtype != np.uint64:
        raise ValueError(f"keys must be (n,) uint64, found {keys.shape} {keys.dtype}")


def _check_budget(budget: int, n: int) -> None:
    if budget <= 0:
        raise InputError(f"the budget is {budget} rows; give at least 1")
    if n == 0:
        raise InputError("the pool is empty: there is nothing to choose from")
    if budget > n:
        raise InputError(f"the budget is {budget} rows but the pool has {n}; give at most {n}")


def _check_rows(arrays: Mapping[str, Signal | Sliced], n: int, what: str) -> None:
    if KEYS in arrays:
        raise ValueError(f"{KEYS!r} is the name of the rows' keys and cannot name a signal")
    if wrong := {name: array.shape for name, array in arrays.items() if array.shape[0] != n}:
        raise ValueError(f"there are {n} {what}, but these arrays have other lengths: {wrong}")


def _check_widths(candidates: Mapping[str, Signal | Sliced], targets: Mapping[str, Signal]) -> None:
    for name in candidates.keys() & targets.keys():
        ours, theirs = candidates[name].shape[1:], targets[name].shape[1:]
        if ours != theirs:
            raise ValueError(f"signal {name!r}: candidates have {ours} numbers per row, targets {theirs}")


def _check_tasks(target_task: NDArray[np.int64], task_names: tuple[str, ...]) -> None:
    if len(target_task) and target_task.min() < 0:
        raise ValueError("target_task names a negative task")
    if task_names and len(target_task) and target_task.max() >= len(task_names):
        raise ValueError(f"target_task names task {target_task.max()}, but there are names for {len(task_names)} tasks")

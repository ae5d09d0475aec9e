"""Many calls of one function over the workers, a few at a time, answers in the order asked."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

from flows.workers import HereWorkers, Workers

T = TypeVar("T")

FEW = 4  # calls that are not worth starting Ray for


def spread(workers: Workers, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """`function(*call)` for every call. `calls` is consumed as they are made, so it may hold more than memory does."""
    waiting = iter(calls)
    head = list(islice(waiting, FEW))
    chosen = workers if len(head) == FEW else HereWorkers()
    if chosen.width == 1:
        for call in chain(head, waiting):
            yield chosen.call(function, *call)
        return
    with ThreadPoolExecutor(chosen.width) as threads:
        running: deque[Future[T]] = deque()
        for call in chain(head, waiting):
            if len(running) == chosen.width + 1:  # one is ready for the worker that is free next
                yield running.popleft().result()
            running.append(threads.submit(chosen.call, function, *call))
        while running:
            yield running.popleft().result()

"""Work done ahead by a few threads of this process: for what leaves Python while it runs (hashing, unpacking)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(function: Callable[..., T], calls: Iterable[tuple[Any, ...]], width: int) -> Iterator[T]:
    """`function(*call)` for every call, in their order, `width` at a time.

    `calls` is consumed as answers are: at most `width` + 1 calls and answers are held besides the one handed out.
    """
    with ThreadPoolExecutor(width) as threads:
        running: deque[Future[T]] = deque()
        for call in calls:
            running.append(threads.submit(function, *call))
            if len(running) > width:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

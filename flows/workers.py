"""Who does the heavy work of a stage: this process, or Ray workers on one machine or many."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parent.parent
OBJECT_STORE_BYTES = 256 * 2**20  # work moves as keys and files, so the object store only carries arguments
NOT_SHIPPED = [".git", ".venv", "winnow-home", "**/__pycache__", "tests", "docs"]


class Workers(Protocol):
    """Runs one function to its end and returns its answer; callers may be threads."""

    def start(self) -> None:
        """Be ready to be called, for who asks the cluster itself."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @property
    def width(self) -> int:
        """How many calls run at a time."""


class HereWorkers:
    """Runs everything in this process."""

    width = 1

    def start(self) -> None:
        pass

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)


class RayWorkers:
    """Runs calls as Ray tasks; Ray starts at the first call, so a run that finds all in the cache never starts it.

    `address` names a cluster; without one Ray is started on this machine with `width` single-threaded workers. A worker
    that dies costs its call, which is run again.
    """

    def __init__(self, address: str | None, width: int | None) -> None:
        self.address = address
        self.width = width or os.cpu_count() or 1
        self._lock = Lock()
        self._keeper: ThreadPoolExecutor | None = None

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        import ray

        self.start()
        task: Any = ray.remote(num_cpus=1, num_gpus=_gpus_per_call(self.width), max_retries=3)(function)
        answer: T = ray.get(task.remote(*args, **kwargs))
        return answer

    def start(self) -> None:
        import ray

        with self._lock:
            if self._keeper is None and not ray.is_initialized():
                # the kernel kills a local Ray with the thread that started it, and the thread of a step is short-lived
                self._keeper = ThreadPoolExecutor(1, thread_name_prefix="ray")
                self._keeper.submit(self._init).result()

    def _init(self) -> None:
        import ray

        shared: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address:
            shipped = {"working_dir": str(CHECKOUT), "excludes": NOT_SHIPPED}
            ray.init(address=self.address, runtime_env=shipped, **shared)
        else:
            ray.init(
                "local",  # never a cluster that happens to run on this machine
                num_cpus=self.width,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **shared,
            )

    def close(self) -> None:
        """Stop the local Ray, where this object started one."""
        if self._keeper is not None:
            import ray

            ray.shutdown()
            self._keeper.shutdown()
            self._keeper = None


def _gpus_per_call(width: int) -> float:
    """A share of an accelerator for every call, where the cluster has any."""
    import ray

    if not ray.is_initialized():
        return 0.0
    cluster: Any = ray
    gpus = float(cluster.cluster_resources().get("GPU", 0))
    return min(1.0, gpus / width) if gpus else 0.0

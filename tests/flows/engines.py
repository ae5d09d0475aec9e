"""The real engines that the session's tests share: one Prefect server, one local Ray."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import server
from flows.workers import RayWorkers


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The API address of a server of `home`, stopped at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        server.ensure(home, None, lambda text: None)
        api = os.environ["PREFECT_API_URL"]
        patch.setenv("PREFECT_API_URL", api)
    try:
        yield api
    finally:
        stop(home)


def stop(home: Path) -> None:
    """Kill the server of `home`."""
    os.kill(int((home / "prefect" / "server.pid").read_text()), signal.SIGKILL)


@contextmanager
def local_ray() -> Iterator[RayWorkers]:
    """A local Ray with two workers, stopped at the end."""
    workers = RayWorkers(None, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # workers import test functions
        try:
            yield workers
        finally:
            workers.close()

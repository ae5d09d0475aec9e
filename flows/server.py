"""The Prefect server a run reports to: the one in PREFECT_API_URL, else the home's own, started when it is not up.

Without a shared server every worker would start one of its own and time out, so it is up before the flow begins.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from warehouse.errors import InputError
from warehouse.store import write_atomically

FIRST_PORT = 4200
ANSWER_S = 10  # a busy machine answers late; a dead server refuses at once
WAIT_S = 180  # a first start migrates the database: about 15 s on two idle cores, several times that on busy ones


def ensure(home: Path, port: int | None, say: Callable[[str], None]) -> str:
    """The UI's address of a healthy server, with PREFECT_API_URL set for this process and all it starts.

    Raises `InputError` where the server in PREFECT_API_URL does not answer, or `port` is taken.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if not healthy(given):
            raise InputError(f"PREFECT_API_URL is {given}, but no Prefect server answers there; start it or unset it")
        return _ui(given)
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    with _one_at_a_time(home / "prefect" / "server.lock"):
        url = known(home) or _start(home, port, say)
    os.environ["PREFECT_API_URL"] = url
    if "prefect" in sys.modules:  # it read its settings when it was imported
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    return _ui(url)


def known(home: Path) -> str | None:
    """The API address of the home's own server, where it answers."""
    try:
        url = str(json.loads(_note(home).read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None
    return url if healthy(url) else None


def healthy(url: str) -> bool:
    """Whether a Prefect API answers at `url`."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=ANSWER_S) as reply:
            return bool(reply.read().strip() == b"true")
    except (OSError, ValueError, urllib.error.URLError):
        return False


def taken(port: int) -> bool:
    """Whether something listens on `port` of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _start(home: Path, port: int | None, say: Callable[[str], None]) -> str:
    if port is not None and taken(port):
        raise InputError(f"port {port} is taken by another program; free it or set WINNOW_PREFECT_PORT to another")
    # a server binds its port long after it was chosen
    with _one_at_a_time(Path(tempfile.gettempdir()) / f"winnow-{os.getuid()}.lock"):
        port = port or next(p for p in range(FIRST_PORT, FIRST_PORT + 100) if not taken(p))
        url = f"http://127.0.0.1:{port}/api"
        say(f"starting a Prefect server at {_ui(url)} (once; it stays up for later runs)")
        process = _spawn(home, port)
        until = time.monotonic() + WAIT_S
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError(f"the Prefect server did not come up at {url}; it says why in {_log(home)}")
            time.sleep(0.2)
    write_atomically(_note(home), json.dumps({"url": url}).encode())
    return url


def _spawn(home: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of its own session, so that it outlives its starter and Ctrl-C passes it by.

    Not `--background`: that server writes to a pipe which its starter closes, and dies of its first error message.
    """
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    # the pages ask the server they came from; left alone they ask port 4200, whoever listens there
    environment = os.environ | {"PREFECT_UI_API_URL": "/api"}
    with _log(home).open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # where `prefect server stop` looks
    write_atomically(home / "prefect" / "server.pid", str(process.pid).encode())
    return process


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two runs that begin together share one server of their home: two on one database would be in each other's way.

    Servers of two homes start one after the other, so that they do not choose the same port.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _log(home: Path) -> Path:
    return home / "prefect" / "server.log"


def _note(home: Path) -> Path:
    return home / "prefect" / "server.json"


def _ui(url: str) -> str:
    return url.removesuffix("/api")

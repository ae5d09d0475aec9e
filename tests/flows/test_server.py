"""Finding, starting and refusing Prefect servers."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engines import stop

from flows import server
from warehouse.errors import InputError


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ensure` sets both; what it set is undone after the test."""
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def port() -> Iterator[int]:
    """A port that something else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quiet(text: str) -> None:
    pass


def test_a_named_server_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(InputError, match=f"{url}, but no Prefect server answers"):
        server.ensure(tmp_path, None, quiet)
    assert not (tmp_path / "prefect").exists()


def test_a_taken_port_is_an_error(tmp_path: Path, port: int) -> None:
    with pytest.raises(InputError, match=f"port {port} is taken"):
        server.ensure(tmp_path, port, quiet)


def test_a_note_of_a_server_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{free_port()}/api"}))
    assert server.known(tmp_path) is None
    (tmp_path / "prefect" / "server.json").write_text("{")
    assert server.known(tmp_path) is None


def test_two_homes_that_start_together_choose_two_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    up: set[int] = set()
    both = threading.Event()

    def spawn(home: Path, port: int) -> None:
        begun.append(port)
        if len(begun) == 2:
            both.set()
        both.wait(0.2)  # a port is not taken until its server has come up

    def healthy(url: str) -> bool:
        up.add(int(url.removesuffix("/api").rsplit(":", 1)[1]))
        return True

    monkeypatch.setattr(server, "_spawn", spawn)
    monkeypatch.setattr(server, "healthy", healthy)
    monkeypatch.setattr(server, "taken", lambda port: port in up)
    for name in "ab":
        (tmp_path / name / "prefect").mkdir(parents=True)
    with ThreadPoolExecutor(2) as threads:
        urls = list(threads.map(lambda name: server._start(tmp_path / name, None, quiet), "ab"))
    assert len(set(urls)) == len(set(begun)) == 2


@pytest.mark.engine
def test_a_server_that_is_up_is_found_again(server_home: Path, session_api: str) -> None:
    said: list[str] = []
    assert server.ensure(server_home, None, said.append) == session_api.removesuffix("/api")
    assert os.environ["PREFECT_API_URL"] == session_api
    assert said == []


@pytest.mark.engine
def test_the_pages_ask_the_server_they_came_from(session_api: str) -> None:
    with urllib.request.urlopen(f"{session_api.removesuffix('/api')}/ui-settings") as reply:
        assert json.load(reply)["api_url"] == "/api"


@pytest.mark.engine
def test_a_killed_server_is_started_again_and_outlives_its_own_errors(tmp_path: Path) -> None:
    folder = tmp_path / "prefect"
    folder.mkdir()
    (folder / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{free_port()}/api"}))
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (folder / "server.pid").write_text(str(dead.pid))
    said: list[str] = []
    url = server.ensure(tmp_path, None, said.append)
    assert said == [f"starting a Prefect server at {url} (once; it stays up for later runs)"]
    running = (folder / "server.pid").read_text()
    assert os.readlink(f"/proc/{running}/fd/2") == str(folder / "server.log"), "a pipe would kill it at its first error"
    stop(tmp_path)

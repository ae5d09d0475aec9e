"""Leases: what a living process noted counts, until it dies; while the gate is shut nobody can note more."""

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from warehouse import leases

HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from warehouse import leases
    print("started", flush=True)
    for line in sys.stdin:
        leases.hold(Path(sys.argv[1]), *line.split())
        print("held", flush=True)
""")


class Holder:
    """Another process that relies on what it is told to."""

    def __init__(self, home: Path, process: subprocess.Popen[str]) -> None:
        self.home, self.process = home, process

    def ask(self, *keys: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(keys) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def another(home: Path) -> Iterator[Holder]:
    words = [sys.executable, "-c", HOLDER, str(home)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        holder = Holder(home, process)
        assert holder.answer() == "started"
        yield holder
        process.kill()


def held(home: Path) -> set[str]:
    with leases.closed(home) as keys:
        return set(keys)


def test_what_a_living_process_holds_counts_until_it_dies(tmp_path: Path) -> None:
    assert held(tmp_path) == set()
    with another(tmp_path) as one, another(tmp_path) as two:
        for holder, keys in ((one, ("a", "b")), (two, ("b", "c")), (one, ("d",)), (one, ("a",))):
            holder.ask(*keys)
            assert holder.answer() == "held"
        assert held(tmp_path) == {"a", "b", "c", "d"}
        one.kill()
        assert held(tmp_path) == {"b", "c"}
    assert held(tmp_path) == set()
    assert [path.name for path in (tmp_path / leases.FOLDER).iterdir()] == [leases.GATE]


def test_what_this_process_holds_does_not_bind_it(tmp_path: Path) -> None:
    leases.hold(tmp_path, "mine")
    assert held(tmp_path) == set()


def test_nobody_holds_more_while_the_gate_is_shut(tmp_path: Path) -> None:
    with another(tmp_path) as holder:
        with leases.closed(tmp_path) as keys:
            holder.ask("late")
            assert "late" not in keys
            assert not any("late" in note.read_text() for note in (tmp_path / leases.FOLDER).glob("*-*"))
        assert holder.answer() == "held"
        assert held(tmp_path) == {"late"}


def test_a_reader_keeps_the_gate_open(tmp_path: Path) -> None:
    shut = threading.Event()

    def shutter() -> None:
        with leases.closed(tmp_path):
            shut.set()

    thread = threading.Thread(target=shutter)
    with leases.undisturbed(tmp_path), leases.undisturbed(tmp_path):
        thread.start()
        assert not shut.is_set()
    thread.join()
    assert shut.is_set()


def test_who_may_only_read_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(leases.os, "open", refuse)
    with leases.undisturbed(tmp_path):
        pass
    with pytest.raises(PermissionError):
        leases.closed(tmp_path).__enter__()


@pytest.mark.parametrize(("age", "counts"), [(0.5, True), (2.0, False)])
def test_a_note_of_another_machine_counts_for_a_day(tmp_path: Path, age: float, counts: bool) -> None:
    assert held(tmp_path) == set()
    note = tmp_path / leases.FOLDER / f"another-than-{socket.gethostname()}-1-0123"
    note.write_text("far\n")
    written = note.stat().st_mtime - age * leases.ELSEWHERE_S
    os.utime(note, (written, written))
    assert held(tmp_path) == ({"far"} if counts else set())
    assert note.exists() == counts

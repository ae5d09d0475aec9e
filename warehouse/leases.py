"""Leases: what the processes of this moment rely on, so that pruning beside them is safe.

A process notes a key in a file of its own before it looks whether the artifact or signal is there, and locks that file
for as long as it lives; the kernel lets go of the lock when the process dies, however it dies. Whoever removes things
shuts a gate that noting must pass, reads all notes, and moves away what nobody noted. So what was found stays until
the process that found it ends, and who looks for what was moved away finds nothing and makes it again.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

FOLDER = "leases"
GATE = "gate"
ELSEWHERE_S = 86_400.0  # a note of another machine counts for a day even where the file system shares no locks


@dataclass(slots=True)
class _Note:
    """The file of one process and one home: open and locked until the process ends."""

    file: BinaryIO
    keys: set[str] = field(default_factory=set)


_notes: dict[tuple[Path, int], _Note] = {}
_noting = Lock()


def hold(home: Path, *keys: str) -> None:
    """Rely on `keys` (of artifacts or signals of `home`) until this process ends."""
    with _noting:
        note = _notes.get((home, os.getpid()))
        if note is not None and note.keys.issuperset(keys):
            return
        with undisturbed(home):
            if note is None:
                note = _notes[home, os.getpid()] = _open(home)
            note.file.write("".join(f"{key}\n" for key in keys).encode())
            note.file.flush()
        note.keys.update(keys)


@contextlib.contextmanager
def undisturbed(home: Path) -> Iterator[None]:
    """Nothing of `home` is removed while the block runs; for readers of many files at once.

    Who may not write to the home reads all the same, but keeps nobody waiting where there is no gate yet.
    """
    try:
        gate = _gate(home)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield
        return
    with _locked(gate, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def closed(home: Path) -> Iterator[frozenset[str]]:
    """The keys that other processes rely on; while the block runs nobody can rely on more. Keep it short."""
    with _locked(_gate(home), fcntl.LOCK_EX):
        yield frozenset(key for note in (home / FOLDER).glob("*-*") for key in _keys(note))


def _open(home: Path) -> _Note:
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    file = (home / FOLDER / name).open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return _Note(file)


def _keys(note: Path) -> list[str]:
    """What a living process noted; the note of a dead one is removed, and this process's own does not count."""
    host, pid, _ = note.name.rsplit("-", 2)
    here = host == socket.gethostname()
    if here and int(pid) == os.getpid():
        return []
    with note.open() as file:
        if _let_go(file.fileno()) and (here or time.time() - note.stat().st_mtime > ELSEWHERE_S):
            note.unlink()
            return []
        return file.read().split()


def _let_go(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _gate(home: Path) -> int:
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    return os.open(home / FOLDER / GATE, os.O_RDONLY | os.O_CREAT, 0o666)


@contextlib.contextmanager
def _locked(gate: int, how: int) -> Iterator[None]:
    try:
        fcntl.flock(gate, how)
        yield
    finally:
        os.close(gate)

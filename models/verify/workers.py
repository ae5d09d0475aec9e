"""Processes that answer a line with a line, and are killed and replaced when they are late."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal

STARTING_SECONDS = 120.0
READY = b"ready"


@dataclass(frozen=True, slots=True)
class Answered:
    """The line that a worker answered, or why it did not: it was late, or it died."""

    line: str = ""
    fault: Literal["", "timeout", "crashed"] = ""


@dataclass(eq=False)
class Workers:
    """At most `count` processes of `command`, started when first needed and kept for the next questions.

    Each writes "ready" once it has started, then one line for every line it is sent. One that has not answered after
    `seconds` is killed, whatever it is doing, and its question is answered by `timeout`.
    """

    command: tuple[str, ...]
    count: int
    seconds: float
    _idle: "SimpleQueue[_Worker]" = field(default_factory=SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, lines: Sequence[str]) -> list[Answered]:
        """The answers to `lines`, in order. A line must not hold a line break."""
        if not lines:
            return []
        with ThreadPoolExecutor(min(self.count, len(lines))) as threads:
            return list(threads.map(self._ask, lines))

    def close(self) -> None:
        """End the processes that wait for questions."""
        while not self._idle.empty():
            self._idle.get().kill()

    def _ask(self, line: str) -> Answered:
        worker = self._taken()
        answered = worker.ask(line, self.seconds)
        if answered.fault:
            worker.kill()
        else:
            self._idle.put(worker)
        return answered

    def _taken(self) -> "_Worker":
        with self._lock:
            if not self._idle.empty():
                return self._idle.get()
        return _Worker(self.command)


class _Worker:
    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        if self._line(STARTING_SECONDS) != READY:
            self.kill()
            raise RuntimeError(f"{' '.join(command)} does not start: run it by hand to see why")

    def ask(self, line: str, seconds: float) -> Answered:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            return Answered(fault="crashed")
        answer = self._line(seconds)
        if answer is None:
            return Answered(fault="timeout" if self.process.poll() is None else "crashed")
        return Answered(answer.decode())

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self, seconds: float) -> bytes | None:
        """The next line, or None where it is late or the process has ended."""
        assert self.process.stdout is not None
        pipe, end, heard = self.process.stdout.fileno(), time.monotonic() + seconds, b""
        while not heard.endswith(b"\n"):
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            more = os.read(pipe, 65536) if ready else b""
            if not more:
                if ready:
                    self.process.wait()
                return None
            heard += more
        return heard.rstrip(b"\n")

"""Running code that nobody has read: each text in a jail of its own.

What is guaranteed on Linux with user namespaces: the code sees no environment variable, no file but the interpreter's
and the system's libraries, no network device, and no process but its own. It can write only to an empty directory in
memory, up to `file_mb`. Time, memory and processes are limited, and when it is over everything it started is dead. It
runs as a user without rights, also where the caller is root. A hole in the kernel is out of scope, and so is what the
code prints: whoever reads `output` must not believe it.

With `weak`, which must be asked for, only the limits hold (as root not that of processes): the code can read and write
whatever the caller can, and reach the network. That is right on a machine that is a jail itself.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from models.verify.jail import NO_JAIL, TIMED_OUT
from warehouse.errors import InputError

JAIL = Path(__file__).with_name("jail.py")
GRACE_SECONDS = 30.0  # for setting up and taking down a jail on a busy machine
OUTPUT_CHARS = 1_000_000
DETAIL_CHARS = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use: seconds of wall clock and of processor, megabytes of memory and of files, processes."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 5
    memory_mb: int = 512
    file_mb: int = 16
    processes: int = 16

    def __post_init__(self) -> None:
        if wrong := {name: value for name, value in asdict(self).items() if value <= 0}:
            raise InputError(f"limits must be above 0, not {wrong}")


@dataclass(frozen=True, slots=True)
class Jailed:
    """What a verifier that runs code lets it use: the limits of one run, and whether it runs `weak`, without a jail
    where the machine has none."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 5
    memory_mb: int = 512
    file_mb: int = 16
    processes: int = 16
    weak: bool = False

    def __post_init__(self) -> None:
        _ = self.limits  # checks them

    @property
    def limits(self) -> Limits:
        return Limits(self.wall_seconds, self.cpu_seconds, self.memory_mb, self.file_mb, self.processes)

    @property
    def bounds(self) -> list[float]:
        """All of it, as it stands in a fingerprint."""
        return [*asdict(self.limits).values(), self.weak]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended, the beginning of what it wrote to standard output, and the end of its standard error."""

    ended: Literal["finished", "timeout", "crashed"]
    output: str = ""
    detail: str = ""


def run_all(
    program: str, given: Sequence[str], limits: Limits | None = None, weak: bool = False, parallel: int | None = None
) -> list[Ran]:
    """Run `program`, Python source that uses the standard library alone, once for each of `given`, its standard input.

    At most `parallel` (as many as there are processors) run at once. Raises `InputError` where this machine has no
    jail and `weak` is not set.
    """
    if not given:
        return []
    with ThreadPoolExecutor(min(parallel or os.cpu_count() or 1, len(given))) as threads:
        return list(threads.map(lambda text: _run(program, text, limits or Limits(), weak), given))


def _run(program: str, given: str, limits: Limits, weak: bool) -> Ran:
    settings = json.dumps([asdict(limits), program, weak])
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryDirectory() as place,
    ):
        asked.write(given.encode("utf-8", "replace"))
        asked.seek(0)
        command = [python, "-I", "-S", "-B", str(JAIL), settings]
        process = subprocess.Popen(
            command, stdin=asked, stdout=output, stderr=errors, cwd=place, env={}, start_new_session=True
        )
        try:
            status = process.wait(limits.wall_seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait() and TIMED_OUT
        said = _read(errors)[-DETAIL_CHARS:].strip()
        if status == NO_JAIL:
            raise InputError(_no_jail(said))
        if status == TIMED_OUT:
            return Ran("timeout", _read(output)[:OUTPUT_CHARS], f"after {limits.wall_seconds:g} s")
        return Ran("finished" if status == 0 else "crashed", _read(output)[:OUTPUT_CHARS], said)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(16 * OUTPUT_CHARS).decode("utf-8", "replace")


def _no_jail(said: str) -> str:
    return (
        f"code of models cannot be jailed on this machine ({said}): user namespaces are missing or forbidden. Allow "
        "them (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container: a seccomp profile "
        "that allows unshare and mount), or give the verifier `weak: true` where that code may harm the machine itself"
    )

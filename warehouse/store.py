"""The artifact store: immutable results under their content key.

A result is written into `<home>/tmp` (same file system, outside every glob), fsynced, given its manifest last, and
renamed to `<home>/artifacts/<stage>/<key>` in one step. A process killed at any instant leaves either the whole
artifact or none of it. Two runs that compute one key at once both succeed and one copy is kept.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from warehouse.errors import InputError
from warehouse.leases import hold
from warehouse.records import canonical, digest

MANIFEST = "manifest.json"
TRAINED_ON = "data"  # of the facts of what can be trained on, and of the inputs of training: the key of its rows
ROWS_FROM = "rows_from"  # of the facts of a training run: the key of the artifact whose rows they were
# of an artifact, smallest files first; the rest is checked by size on a hit, by hash in `winnow cache ls --verify`
HASH_ON_HIT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Work:
    """What a result is a function of. `key` changes iff one of these changes.

    `version` is the stage's own: it is bumped when the stage's code changes its output. `inputs` maps a role ("pool",
    "target") to the key of what fills it. `model` is a content fingerprint, never a path.
    """

    stage: str
    version: int
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    seed: int | None = None

    def parts(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "version": self.version,
            "params": dict(self.params),
            "inputs": dict(self.inputs),
            "model": self.model,
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        return digest(canonical(self.parts()))


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished result: its folder and its manifest."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(int(entry["bytes"]) for entry in self.manifest["files"].values())

    def faults(self, *, hash_up_to: float = HASH_ON_HIT_BYTES) -> list[str]:
        """What is missing or differs from the manifest; `hash_up_to` bytes are hashed, all other files sized."""
        found = []
        for name, entry in sorted(self.manifest["files"].items(), key=lambda item: int(item[1]["bytes"])):
            hash_up_to -= entry["bytes"]
            if fault := _fault(self.folder / name, entry, hashed=hash_up_to >= 0):
                found.append(f"{name}: {fault}")
        return found


@dataclass(slots=True)
class Draft:
    """A result being written: put files into `folder`, and anything worth knowing into `facts`."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    _sealed: dict[tuple[int, int], Mapping[str, Any]] = field(default_factory=dict)

    def shares(self, artifact: Artifact) -> None:
        """Files of the draft that are hard links to those of `artifact` are on the disk and hashed: not so again."""
        for name, entry in artifact.manifest["files"].items():
            self._sealed[_inode(artifact.folder / name)] = entry

    def entry(self, path: Path) -> Mapping[str, Any]:
        """Size and hash of a file of the draft, which is on the disk then."""
        if (known := self._sealed.get(_inode(path))) is not None:
            return known
        _fsync(path)
        return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


@dataclass(frozen=True, slots=True)
class Store:
    """The artifacts of one home. `Store.open` makes and checks the folders."""

    home: Path

    @classmethod
    def open(cls, home: Path) -> "Store":
        """Raises `InputError` where the home cannot be made or written."""
        store = cls(Path(os.path.abspath(home.expanduser())))
        try:
            for name in ("artifacts", "signals", "runs", "tmp"):
                (store.home / name).mkdir(parents=True, exist_ok=True)
            probe = store.home / "tmp" / f"probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"the home {store.home} cannot be written ({error.strerror}); free space there or choose another with "
                "--home or WINNOW_HOME"
            ) from error
        store._sweep()
        return store

    def folder(self, stage: str, key: str) -> Path:
        return self.home / "artifacts" / stage / key

    def find(self, work: Work, hash_up_to: float = HASH_ON_HIT_BYTES) -> Artifact | None:
        """The finished result of `work`, verified against its manifest; None where it is missing or damaged.

        Who looks for many parts of one whole hashes no more of them together than of one artifact.
        """
        hold(self.home, work.key)  # first: what is found from here on is not pruned while this process lives
        artifact = load_artifact(self.folder(work.stage, work.key))
        return artifact if artifact is not None and not artifact.faults(hash_up_to=hash_up_to) else None

    @contextlib.contextmanager
    def write(self, work: Work) -> Iterator[Draft]:
        """A draft that becomes the artifact of `work` when the block ends well, and leaves nothing when it does not."""
        hold(self.home, work.key)
        folder = self.scratch()
        started = time.monotonic()
        try:
            draft = Draft(folder)
            yield draft
            _seal(draft, work, time.monotonic() - started)
            self._publish(folder, self.folder(work.stage, work.key))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OSError(
                    errno.ENOSPC,
                    f"no space left under {self.home} while writing {work.stage} {work.key[:12]}; nothing half-written "
                    "was kept. Free space (`winnow cache prune`) and run the same command again",
                ) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def receive(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Make `folder` (from `scratch`), whose files are known to be as `manifest` says, the artifact it describes."""
        hold(self.home, manifest["key"])
        for name in manifest["files"]:
            _fsync(folder / name)
        _close(folder, manifest)
        self._publish(folder, self.folder(manifest["stage"], manifest["key"]))

    def artifacts(self) -> Iterator[Artifact]:
        """Every artifact that has a manifest, by stage and key."""
        for manifest in sorted((self.home / "artifacts").glob(f"*/*/{MANIFEST}")):
            artifact = load_artifact(manifest.parent)
            if artifact is not None:
                yield artifact

    def scratch(self) -> Path:
        """A new folder of this process's own; the next process that opens the home removes it once this one is dead."""
        folder = self.home / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def _publish(self, draft: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                os.rename(draft, final)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                other = load_artifact(final)
                if other is not None and not other.faults():
                    return  # another run finished first: its copy is the same by construction
                with contextlib.suppress(FileNotFoundError):
                    os.rename(final, self.scratch() / "damaged")
            else:
                _fsync(final.parent)
                return

    def _sweep(self) -> None:
        """Remove what killed processes of this host left under tmp."""
        for folder in (self.home / "tmp").glob("*-*-*"):
            host, pid, _ = folder.name.rsplit("-", 2)  # a host's name may hold hyphens
            if host == socket.gethostname() and pid.isdigit() and not alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def load_artifact(folder: Path) -> Artifact | None:
    """The artifact in `folder`, unverified; None where there is no readable manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return Artifact(folder, manifest) if "files" in manifest else None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old bytes or the new ones, never a part."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _seal(draft: Draft, work: Work, seconds: float) -> None:
    paths = sorted(path for path in draft.folder.rglob("*") if path.is_file())
    files = {path.relative_to(draft.folder).as_posix(): draft.entry(path) for path in paths}
    manifest = {
        **work.parts(),
        "key": work.key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "facts": draft.facts,
        "files": files,
    }
    _close(draft.folder, manifest)


def _inode(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _close(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    _fsync(folder)


def _fault(path: Path, entry: Mapping[str, Any], hashed: bool) -> str:
    try:
        size = path.stat().st_size
    except OSError:
        return "missing"
    if size != entry["bytes"]:
        return f"{size} bytes, expected {entry['bytes']}"
    if hashed and sha256_file(path) != entry["sha256"]:
        return "its content differs from what was written"
    return ""


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    """Whether this host has a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""A place that homes share, a folder or an object store: whatever fsspec opens, reached by many threads at once.

Content lies there as `blobs/<first two digits>/<SHA-256>`, once. Credentials come from the environment or the
configuration of the store's own tools, never from a URL.
"""

import contextlib
import hashlib
import os
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from warehouse.errors import InputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

THREADS = 8
CHUNK_BYTES = 2**20
EXTRAS = {"s3": "s3", "s3a": "s3"}  # protocol to the extra of this project that installs its driver
# a file there appears whole, and needs no folder
ATOMIC = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory")


class DamagedError(OSError):
    """What lies at a shared place, or in this home, is not what its manifest or its name says."""


@dataclass(frozen=True, slots=True)
class Remote:
    """`Remote.open` checks the URL. Paths are relative to it, with slashes."""

    fs: "AbstractFileSystem"
    root: str
    url: str
    atomic: bool

    @classmethod
    def open(cls, url: str) -> "Remote":
        """Raises `InputError` for a URL with a password, of an unknown protocol, or of one whose driver is missing."""
        import fsspec
        from fsspec.core import url_to_fs

        protocol = url.partition("://")[0] if "://" in url else "file"
        _refuse_secrets(url)
        try:
            fs, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            how = f"pip install 'winnow[{EXTRAS[protocol]}]'" if protocol in EXTRAS else str(error)
            raise InputError(f"{protocol}:// needs a driver that is not installed here: {how}") from error
        except ValueError as error:
            known = ", ".join(sorted(fsspec.available_protocols()))
            raise InputError(f"{url}: {error}. Give a folder, or a URL of one of: {known}") from error
        return cls(fs, root.rstrip("/"), url, protocol in ATOMIC)

    def sizes(self, under: str) -> dict[str, int]:
        """Bytes of every file below `under`, by path."""
        found = self.fs.find(self._at(under), detail=True)
        return {path[len(self.root) + 1 :]: int(entry["size"]) for path, entry in found.items()}

    def read(self, path: str) -> bytes:
        data: bytes = self.fs.cat_file(self._at(path))
        return data

    def put(self, path: str, source: Path | bytes) -> None:
        """Write one file, whole or not at all: where the place cannot promise that, beside it and then renamed."""
        final = self._at(path)
        target = final if self.atomic else f"{final}.{uuid.uuid4().hex}.part"
        if not self.atomic:
            self.fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        if isinstance(source, bytes):
            self.fs.pipe_file(target, source)
        else:
            self.fs.put_file(str(source), target)
        if not self.atomic:
            self.fs.mv(target, final)

    def fetch(self, sha256: str, size: int, target: Path) -> None:
        """Read one blob into the new file `target`. Raises `DamagedError` where it is missing or something else."""
        path, hashed, held = blob(sha256), hashlib.sha256(), 0
        try:
            with self.fs.open(self._at(path), "rb") as remote, target.open("xb") as local:
                while chunk := remote.read(CHUNK_BYTES):
                    hashed.update(chunk)
                    held += local.write(chunk)
                local.flush()
                os.fsync(local.fileno())
        except FileNotFoundError as error:
            raise DamagedError(f"{self.url} lacks {path}; push again from a home that has it") from error
        if (hashed.hexdigest(), held) != (sha256, size):
            target.unlink()
            raise DamagedError(
                f"{self.url}: {path} is damaged: its content is not what its name says. Delete it there and push again "
                "from a home that has it; nothing of what it belongs to was kept here"
            )

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"


def blob(sha256: str) -> str:
    """Where content lies."""
    return f"blobs/{sha256[:2]}/{sha256}"


@contextlib.contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for transfers; where the block fails, what has not begun does not begin."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def os_errors(url: str) -> Iterator[None]:
    """What the S3 driver raises on its own account (no credentials, no connection), as `OSError`."""
    try:
        yield
    except OSError:
        raise
    except BaseException as error:
        driver = sys.modules.get("botocore.exceptions")
        if driver is None or not isinstance(error, driver.BotoCoreError | driver.ClientError):
            raise
        raise OSError(f"{url}: {error}") from error


def _refuse_secrets(url: str) -> None:
    """No password, access key or token may be in what shells, logs and schedules keep."""
    parts = urlsplit(url)
    if "://" in url and (
        ("@" in parts.netloc and ":" in parts.netloc.rpartition("@")[0]) or parts.query or "::" in url
    ):
        raise InputError(
            f"the URL {parts.scheme}://...{parts.path} holds more than a place; leave passwords, keys and options out: "
            "credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ~/.aws)"
        )


def is_sha256(text: Any) -> bool:
    """Whether `text` is 64 hexadecimal digits."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")

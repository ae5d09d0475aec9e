"""Resuming a killed run: which checkpoint is whole, and whether it belongs to this run.

A checkpoint folder holds weights, optimizer, schedule and generator states, written one after the other; a process can
die between any two. A marker is written last, and a folder without it does not count.
"""

import json
import shutil
from pathlib import Path

from warehouse.records import digest

FOLDER = "checkpoints"
MARKER = "whole"
IDENTITY = "run.json"


def prepare(out: Path, identity: str) -> Path | None:
    """Make `out`/checkpoints ready for the run known by `identity`: its newest whole checkpoint, or None to start.

    Half-written checkpoints are removed, and everything where the folder holds another run.
    """
    folder = out / FOLDER
    if not _holds(folder, identity):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / IDENTITY).write_text(json.dumps({"identity": identity}), encoding="utf-8")
    found = {int(path.name.removeprefix("checkpoint-")): path for path in folder.glob("checkpoint-*")}
    for path in found.values():
        if not (path / MARKER).exists():
            shutil.rmtree(path)
    whole = [step for step, path in found.items() if path.exists()]
    return found[max(whole)] if whole else None


def mark_whole(checkpoint: Path) -> None:
    """Call when all files of a checkpoint are written."""
    (checkpoint / MARKER).touch()


def clear(out: Path) -> None:
    """Remove the checkpoints of a finished run."""
    shutil.rmtree(out / FOLDER)


def identity_of(*parts: str) -> str:
    """What makes two runs the same run: trainer, base weights, data, seed and versions, as one digest."""
    return digest("\n".join(parts))


def _holds(folder: Path, identity: str) -> bool:
    try:
        return bool(json.loads((folder / IDENTITY).read_text(encoding="utf-8"))["identity"] == identity)
    except (OSError, ValueError, KeyError):  # missing, or cut off while it was written
        return False

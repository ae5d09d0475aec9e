"""Resuming a killed run: which checkpoint is whole, and whether it belongs to this run.

A checkpoint folder holds weights, optimizer, schedule and generator states, written one after the other; a process can
die between any two, and a machine before what was written is on the disk. A marker with the size of every file is
written last, and a folder does not count without it, or where a file is not as it says. Loads no torch.
"""

import json
import os
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from models.fingerprint import fingerprint
from training.dpo import Dpo
from training.sft import Sft
from warehouse.records import Dataset, canonical, digest

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
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
    for path in folder.glob("checkpoint-*"):
        if not is_whole(path):
            shutil.rmtree(path)
    return newest(folder)


def newest(checkpoints: Path) -> Path | None:
    """The last checkpoint in a folder of them that was written whole."""
    whole = [path for path in checkpoints.glob("checkpoint-*") if is_whole(path)]
    return max(whole, key=step_of, default=None)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file that the marker names is there in its size."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):  # no marker, a cut one, or a file that is gone
        return False


def step_of(checkpoint: Path) -> int:
    """The number of optimizer steps before a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def steps_done(checkpoint: Path | None) -> int:
    """Optimizer steps before a checkpoint, whatever its folder is called; 0 without one. It may be removed later."""
    if checkpoint is None:
        return 0
    done: int = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    return done


def mark_whole(checkpoint: Path) -> None:
    """Call when all files of a checkpoint are written: they are on the disk before the marker is."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != MARKER]
    for path in files:
        _flush(path)
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    (checkpoint / MARKER).write_text(json.dumps(sizes), encoding="utf-8")
    _flush(checkpoint / MARKER)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def clear(out: Path) -> None:
    """Remove the checkpoints of a finished run."""
    shutil.rmtree(out / FOLDER)


def identity_of(trainer: Sft | Dpo, base: str, data: Dataset, seed: int, *more: str) -> str:
    """What makes two calls the same run, of which the second goes on where the first was killed."""
    known = canonical(dict(trainer.spec.params)), fingerprint(base, trainer.template), data.key, str(seed)
    return digest("\n".join((*known, *versions(), *more)))


def versions(libraries: Sequence[str] = LIBRARIES) -> list[str]:
    """The libraries that a run's last bits depend on, without loading them."""
    return [f"{name} {version(name)}" for name in libraries]


def _holds(folder: Path, identity: str) -> bool:
    try:
        return bool(json.loads((folder / IDENTITY).read_text(encoding="utf-8"))["identity"] == identity)
    except (OSError, ValueError, KeyError):  # missing, or cut off while it was written
        return False

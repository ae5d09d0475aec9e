"""A training run that several workers share, through Ray Train.

The optimizer steps are those of one process (`training.world`), so the number of workers is no part of a result's key.
"""

import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from flows.scale_recipe import Scale
from flows.settings import Settings
from flows.workers import RayWorkers
from training import resume
from training.protocol import Trainer
from training.sft import Sft, check_alone
from training.world import shares
from warehouse.errors import InputError
from warehouse.records import Dataset

SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray's list of the checkpoints that count
REFUSED = "refused.json"
HALVED = "rows_at_once"
TRAIN_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a checkpoint counts once it was polled, and the run waits for that
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # workers import torch, and may wait for other stages to end
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same on a worker
}

_STARTING = Lock()
_STARTED: list[RayWorkers] = []


class WorkersLost(ChildProcessError):
    """Workers died more often than the run may go on; its last checkpoint is kept."""


@dataclass(frozen=True, slots=True)
class Shared:
    """One training run as each of its workers is told it. `checkpoints` is this run's folder on shared storage."""

    sft: Sft
    base: str
    data: Dataset
    out: Path
    seed: int
    checkpoints: Path

    @property
    def refused(self) -> Path:
        """Where a worker writes why the run cannot be made, so that nobody tries again."""
        return self.checkpoints / REFUSED

    @property
    def halved(self) -> Path:
        """Where a worker whose memory ran out writes how many rows at once the next one may try."""
        return self.checkpoints / HALVED

    @property
    def rows_at_once(self) -> int:
        """The most rows that a worker has in memory at once."""
        return int(self.halved.read_text(encoding="utf-8")) if self.halved.exists() else self.sft.batch_size

    def scratch(self, rank: int) -> Path:
        """A worker's own folder on its machine: known by name, so that what a killed one left is found."""
        return Path(tempfile.gettempdir()) / f"winnow-{self.checkpoints.name}" / str(rank)


def scaled(trainer: Trainer, base: str, data: Dataset, out: Path, seed: int, scale: Scale) -> None:
    """What `trainer(base, data, out, seed)` does, made by the workers that `scale` asks for.

    To be called in the process that drives the run, where it holds no core while the workers train; on the Ray that
    this process is connected to, else on the one that the settings name. A run that lost workers, or its driver, goes
    on from its last checkpoint when it is called again with the same arguments, whatever the number of workers.

    Raises `InputError` as the trainer does, and where the cluster is too small; `WorkersLost` where too many died.
    """
    sft = scalable(trainer, scale)
    for name, value in TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    shared = Shared(sft, base, data, out, seed, _folder(sft, base, data, out, seed, scale))
    out.mkdir(parents=True, exist_ok=True)
    settle(shared.checkpoints)
    _connect()
    _check_room(scale)
    _fit(shared, scale)
    shutil.rmtree(shared.checkpoints if scale.storage else out / resume.FOLDER)


def scalable(trainer: Trainer, scale: Scale) -> Sft:
    """The trainer, where workers can share what it does. Raises `InputError` where they cannot, or are too many."""
    if not isinstance(trainer, Sft):
        raise InputError(
            f"trainer {trainer.spec.name!r} runs in one process; take out `scale`, or use supervised tuning"
        )
    check_shared(trainer, scale)
    return trainer


def check_shared(sft: Sft, scale: Scale | None) -> None:
    """Raise `InputError` where the workers of `scale`, or without one this process, cannot do what `sft` asks for."""
    if scale is not None:
        shares(sft.step_rows, sft.batch_size, scale.sizes[1])
    if scale is None or scale.sizes[1] == 1:
        check_alone(sft)


def settle(folder: Path) -> None:
    """Leave in `folder` the checkpoints that Ray's snapshot names: what else is there was never finished.

    Where the snapshot was cut short, or names what is gone, nothing is left.
    """
    listed = _listed(folder)
    for path in folder.glob("checkpoint_*"):
        if path.is_dir() and path.name not in listed:
            shutil.rmtree(path)
    if not listed:
        (folder / SNAPSHOT).unlink(missing_ok=True)


def _listed(folder: Path) -> set[str]:
    try:
        found = json.loads((folder / SNAPSHOT).read_text(encoding="utf-8"))["checkpoint_results"]
        names = {str(result["checkpoint_dir_name"]) for result in found}
    except (OSError, ValueError, KeyError):
        return set()
    return names if all((folder / name).is_dir() for name in names) else set()


def _folder(sft: Sft, base: str, data: Dataset, out: Path, seed: int, scale: Scale) -> Path:
    identity = resume.identity_of(sft, base, data, seed, str(out), *resume.versions(["ray"]))
    return (Path(scale.storage) if scale.storage else out / resume.FOLDER) / identity[:24]


def _connect() -> None:
    """Ray as the settings name it, where this process has none yet; it stays until the process ends.

    Other threads may have begun to use it, and a local Ray ends with the thread that started it, so it is held.
    """
    import ray

    with _STARTING:
        if not ray.is_initialized():
            settings = Settings()
            workers = RayWorkers(settings.ray_address, settings.workers)
            workers.start()
            _STARTED.append(workers)


def _check_room(scale: Scale) -> None:
    """Ray would wait for ever."""
    import ray

    cluster: Any = ray
    there: Mapping[str, float] = cluster.cluster_resources()
    fewest = scale.sizes[0]
    for kind, each in _resources(scale).items():
        if there.get(kind, 0) < each * fewest:
            raise InputError(
                f"{fewest} workers with {each:g} {kind} each need {each * fewest:g} {kind} together, and Ray "
                f"has {there.get(kind, 0):g}; ask for fewer in `scale`, or give Ray more (WINNOW_WORKERS)"
            )


def _resources(scale: Scale) -> dict[str, float]:
    cores: dict[str, float] = {"CPU": scale.cpus}
    return cores | ({"GPU": scale.gpus} if scale.gpus else {})


def _fit(shared: Shared, scale: Scale) -> None:
    from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.v2.torch.torch_trainer import TorchTrainer

    workers = TorchTrainer(
        worker,
        train_loop_config={"shared": shared},
        scaling_config=ScalingConfig(
            num_workers=scale.elastic or scale.sizes[1],
            use_gpu=bool(scale.gpus),
            resources_per_worker=_resources(scale),
        ),
        run_config=RunConfig(
            name=shared.checkpoints.name,
            storage_path=str(shared.checkpoints.parent),
            failure_config=FailureConfig(max_failures=scale.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig("ERROR"),
        ),
    )
    try:
        with _interruptible():
            workers.fit()
    except TrainingFailedError as error:
        _raise_refusal(shared)
        raise WorkersLost(_lost(error, shared.checkpoints, scale.retries)) from error
    finally:
        shutil.rmtree(shared.scratch(0).parent, ignore_errors=True)
    _raise_refusal(shared)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ray leaves a handler for Ctrl-C in the main thread, which would end the process as if all went well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def worker(given: dict[str, Shared]) -> None:
    """What each worker runs. The libraries of training load there."""
    from flows.scaled import take_part

    take_part(given["shared"])


def _raise_refusal(shared: Shared) -> None:
    if shared.refused.exists():
        reason = json.loads(shared.refused.read_text(encoding="utf-8"))["reason"]
        shared.refused.unlink()  # another call may try again
        kept = _last(shared.checkpoints)
        raise InputError(reason + (f"; the last checkpoint is kept in {kept}" if kept else ""))


def _last(folder: Path) -> Path | None:
    return max((folder / name for name in _listed(folder)), default=None)  # they are named by time


def _lost(error: Any, folder: Path, retries: int) -> str:
    kept = _last(folder)
    return f"training lost a worker more often than `retries: {retries}` allows ({_causes(error)}). " + (
        f"The last checkpoint is kept in {kept}; run the same command again to go on from there"
        if kept
        else "There was no checkpoint yet; lower `save_every`, and run the same command again"
    )


def _causes(error: Any) -> str:
    """What became of the workers that died, else of all: the others failed because they waited for those."""
    from ray.exceptions import RayActorError

    failures: Mapping[int, Exception] = getattr(error, "worker_failures", {})
    found = {rank: getattr(failure, "health_check_failure", failure) for rank, failure in failures.items()}
    dead = [rank for rank, failure in found.items() if isinstance(failure, RayActorError)]
    if dead:
        return "; ".join(f"worker {rank}: its process was killed, or crashed" for rank in sorted(dead))
    said = {rank: str(failure).strip().splitlines() for rank, failure in sorted(failures.items())}
    return "; ".join(f"worker {rank}: {lines[-1]}" for rank, lines in said.items() if lines) or str(error)

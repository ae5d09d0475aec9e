"""Training runs that several Ray workers share, with workers that die."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fragile import HARM_AT, Fragile
from pydantic import ValidationError
from safetensors.torch import load_file

from flows.scale import REFUSED, SNAPSHOT, Shared, WorkersLost, scaled, settle
from flows.scale_recipe import Scale
from flows.workers import RayWorkers
from training import resume
from training.sft import Sft
from training.warmup import Warmup
from warehouse.errors import InputError
from warehouse.records import Dataset

engine = pytest.mark.engine
ROWS, STEPS, SEED = 48, 6, 5
TWO = Scale(workers=2, retries=0)


def sft(folder: Path) -> Sft:
    return Sft(
        tuning=Fragile(str(folder)), learning_rate=1e-3, epochs=1, batch_size=8, gradient_accumulation=1,
        max_length=64, precision="float32", save_every=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    said = [(f"What is {n} plus {n * 7 % 31}?", f"The answer is {n + n * 7 % 31}.") for n in range(ROWS)]
    rows = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in said]
    pq.write_table(pa.table({"messages": rows}), path)
    return Dataset(path, "rows")


Run = Callable[..., Path]


@pytest.fixture(scope="module")
def tuned(
    tiny_model_dir: Path, data: Dataset, ray_workers: RayWorkers, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Tunes the tiny model on a scale, on the session's Ray; the folder of the result."""
    ray_workers.call(call_here, dict)

    def run(scale: Scale, folder: Path | None = None, harm: str = "", call: Callable[..., Any] = call_here) -> Path:
        folder = folder or tmp_path_factory.mktemp("run")
        if harm:
            (folder / "harm").write_text(harm)
        call(scaled, sft(folder), str(tiny_model_dir), data, folder / "out", SEED, scale)
        return folder / "out"

    return run


def call_here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture(scope="module")
def unharmed(tuned: Run, ray_workers: RayWorkers) -> Path:
    """A run on all cores of a Ray, made inside a task that holds one of them."""
    return tuned(TWO, call=ray_workers.call)


@pytest.fixture(scope="module")
def alone(tiny_model_dir: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    sft(folder)(str(tiny_model_dir), data, folder / "out", SEED)
    return folder / "out"


def apart(one: Path, other: Path) -> float:
    """The largest difference between two weights of the same place."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return max(float((first[name] - second[name]).abs().max()) for name in first.keys() | second.keys())


def steps(out: Path, rank: int = 0) -> list[int]:
    """The steps that a worker began, by the number of steps before."""
    return [int(line) for line in (out.parent / f"steps-{rank}").read_text().split()]


@engine
def test_workers_make_the_run_of_one_process(unharmed: Path, alone: Path) -> None:
    assert 0 < apart(unharmed, alone) < 1e-5  # sums of gradients are rounded in another order
    assert steps(unharmed) == steps(unharmed, 1) == list(range(STEPS))
    assert {path.name for path in unharmed.iterdir()} == {path.name for path in alone.iterdir()}


@engine
def test_lost_workers_cost_the_steps_since_the_last_checkpoint(tuned: Run, unharmed: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    died = r"`retries: 1` allows \(worker 1: its process was.*\). The last checkpoint is kept in .*checkpoint_"
    with pytest.raises(WorkersLost, match=died):
        tuned(Scale(workers=2, retries=1, storage=str(storage)), folder=tmp_path, harm="dies")
    assert steps(tmp_path / "out", 1) == [*range(HARM_AT + 1), HARM_AT]  # from the checkpoint just before
    (tmp_path / "harm").unlink()
    out = tuned(Scale(elastic=(1, 8), storage=str(storage)), folder=tmp_path)  # there is room for two
    assert steps(out, 1) == [*range(HARM_AT + 1), HARM_AT, *range(HARM_AT, STEPS)]
    assert apart(out, unharmed) == 0
    curves = [pq.read_table(side / "loss.parquet").drop_columns("seconds") for side in (out, unharmed)]
    assert curves[0] == curves[1]
    assert not list(storage.iterdir())


@engine
def test_one_worker_without_a_loss_ends_the_run(tuned: Run, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"number at step {HARM_AT + 1}, in the batch of rows \d+, .*kept in.*checkpoint_"
    ):
        tuned(TWO, folder=tmp_path, harm="breaks")
    kept = tmp_path / "out" / resume.FOLDER
    assert len(list(kept.glob("*/checkpoint_2*"))) == 1
    assert not list(kept.glob(f"*/{REFUSED}"))


@engine
def test_a_cluster_that_is_too_small(tuned: Run) -> None:
    with pytest.raises(InputError, match=r"3 workers with 1 CPU each need 3 CPU together, and Ray has 2"):
        tuned(Scale(workers=3))


def test_a_worker_without_memory_leaves_the_next_half_the_rows(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.train
    import torch

    from flows import scaled as on_workers

    tried: list[int] = []

    def full(*_: Any, rows_at_once: int, **__: Any) -> None:
        tried.append(rows_at_once)
        raise torch.OutOfMemoryError

    second = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2)
    monkeypatch.setattr(ray.train, "get_context", lambda: second)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(on_workers, "carry_out", full)
    shared = Shared(sft(tmp_path), "base", data, tmp_path, SEED, tmp_path)
    for expected in (torch.OutOfMemoryError, torch.OutOfMemoryError, InputError):
        with pytest.raises(expected):
            on_workers.take_part(shared)
    on_workers.take_part(shared)  # finds that there is nothing to try
    assert tried == [8, 2, 1]  # of steps of 8 rows, each of two workers had 4 at once, then 2, then 1
    assert "one row at a time does not fit into memory" in shared.refused.read_text()


def test_more_workers_than_rows_of_a_step(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(InputError, match="16 workers would share optimizer steps of 8 rows"):
        scaled(sft(tmp_path), "winnow-tiny", data, tmp_path, SEED, Scale(elastic=(2, 16)))


def test_a_trainer_of_one_process(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(InputError, match="'warmup' runs in one process"):
        scaled(Warmup(), "winnow-tiny", data, tmp_path, SEED, TWO)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either `workers`, a number, or `elastic`"),
        ({"workers": 2, "elastic": [1, 8]}, "either `workers`, a number, or `elastic`"),
        ({"elastic": [8, 1]}, "the fewest come first"),
        ({"workers": 0}, "greater than 0"),
        ({"workers": 2, "gpus": 2}, "0 or 1"),
        ({"workers": 2, "storage": "here"}, "an absolute path"),
        ({"workers": 2, "wrokers": 2}, "Extra inputs"),
    ],
)
def test_a_scale_that_makes_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Scale(**given)


def snapshot(folder: Path, *names: str) -> None:
    import json

    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in names]
    (folder / SNAPSHOT).write_text(json.dumps({"checkpoint_results": results}))


def test_checkpoints_that_do_not_count_are_removed(tmp_path: Path) -> None:
    for name in ("checkpoint_1", "checkpoint_2"):
        (tmp_path / name).mkdir()
    snapshot(tmp_path, "checkpoint_1")
    settle(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_1", SNAPSHOT}


@pytest.mark.parametrize("text", ["", '{"checkpoint_res', '{"checkpoint_results": [{"checkpoint_dir_name": "gone"}]}'])
def test_a_list_of_checkpoints_that_cannot_be_right(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoint_1").mkdir()
    (tmp_path / SNAPSHOT).write_text(text)
    settle(tmp_path)
    assert not list(tmp_path.iterdir())

"""However many processes share an optimizer step, it is the step of one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from training.loop import carry_out
from training.sft import Sft
from training.world import World, filled, shares
from warehouse.errors import InputError
from warehouse.records import Dataset

SIZE = 2
ROWS = 42  # twice 42 rows are 10 steps of 8 and a part of one
WEIGHTS = np.linspace(0.5, 2.0, ROWS)
PLAIN: dict[str, Any] = {
    "learning_rate": 1e-3, "epochs": 2, "batch_size": 8, "gradient_accumulation": 1, "max_length": 64,
    "precision": "float32",
}  # fmt: skip
# Steps of 7 rows leave one of the two processes with a filler in each.
RUNS: dict[str, dict[str, Any]] = {
    "even": PLAIN,
    "packed": PLAIN | {"packing": True, "epochs": 8},
    "uneven": PLAIN | {"batch_size": 7},
    "uneven packed": PLAIN | {"batch_size": 3, "packing": True, "epochs": 4},
    "weighted": PLAIN | {"batch_size": 2, "gradient_accumulation": 4},
    "no gradients": PLAIN | {"tuning": "mezo", "learning_rate": 1e-3},
    "adapter": PLAIN | {"tuning": {"name": "lora", "rank": 4}},
    "layers in turn": PLAIN | {"tuning": {"name": "lisa", "layers": 1, "interval": 2}},
}
# One of the processes: every run; one that stops after a checkpoint; one whose weights stop being numbers in the second
# process only.
PROCESS = """
import json, os, sys
from pathlib import Path
import numpy as np
import torch
import transformers
from training.loop import carry_out
from training.sft import Sft
from training.world import World
from warehouse.errors import InputError
from warehouse.records import Dataset

base, data, out, runs, weights = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(json.loads, sys.argv[4:])
world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
meeting = f"file://{out}/meeting"
torch.distributed.init_process_group("gloo", init_method=meeting, rank=world.rank, world_size=world.size)

class Breaks(transformers.TrainerCallback):
    def on_step_begin(self, args, state, control, model, **_):
        if state.global_step == 2 and world.rank == 1:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))

class Stops(transformers.TrainerCallback):
    def on_save(self, args, state, control, **_):
        control.should_training_stop = True

def run(name, params, callbacks=()):
    weighted = np.array(weights) if name == "weighted" else None
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    carry_out(Sft(**params), base, Dataset(data, "rows", weights=weighted), folder, 5,
              checkpoints=out / "checkpoints" / name / str(world.rank), start=None, callbacks=callbacks, world=world)

for name, params in runs.items():
    run(name, params)
run("stopped", runs["even"] | {"save_every": 4}, [Stops()])
try:
    run("broken", runs["even"], [Breaks()])
except InputError as error:
    (out / f"broken.{world.rank}").write_text(str(error))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", sums(ROWS))


@pytest.fixture(scope="module")
def shared(tiny_model_dir: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs that two processes shared."""
    out = tmp_path_factory.mktemp("shared")
    given = [str(tiny_model_dir), str(data.path), str(out), json.dumps(RUNS), json.dumps(WEIGHTS.tolist())]
    places = {"WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *given],
            env=os.environ | places | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(SIZE)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * SIZE, said
    return out


@pytest.fixture(scope="module")
def alone(tiny_model_dir: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same runs, each by one process."""
    out = tmp_path_factory.mktemp("alone")
    for name, params in RUNS.items():
        weighted = Dataset(data.path, data.key, weights=WEIGHTS) if name == "weighted" else data
        Sft(**params)(str(tiny_model_dir), weighted, out / name, 5)
    return out


def apart(one: Path, other: Path) -> float:
    """The largest difference between two weights of the same place."""
    first, second = (load_file(next(folder.glob("*model.safetensors"))) for folder in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first.keys() | second.keys())


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_make_the_steps_of_one(name: str, alone: Path, shared: Path) -> None:
    assert apart(alone / name, shared / name) < 1e-5
    one, two = (pq.read_table(side / name / "loss.parquet") for side in (alone, shared))
    for column in ("step", "learning_rate", "tokens"):
        assert one[column] == two[column]
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-4)


@pytest.mark.parametrize("name", sorted(RUNS.keys() - {"adapter"}))
def test_weights_moved_much_further(name: str, tiny_model_dir: Path, alone: Path) -> None:
    assert apart(alone / name, tiny_model_dir) > 1e-3


def test_part_of_a_step_is_a_step(alone: Path) -> None:
    assert facts(alone / "even")["steps"] == 11


def test_what_was_read_and_spent_is_that_of_all_processes(alone: Path, shared: Path) -> None:
    one, two = facts(alone / "even"), facts(shared / "even")
    assert (one["processes"], two["processes"]) == (1, SIZE)
    for name in ("tokens", "steps", "flops", "funnel", "trainer"):
        assert one[name] == two[name]


def test_accumulated_batches_make_the_same_step(
    tiny_model_dir: Path, data: Dataset, alone: Path, tmp_path: Path
) -> None:
    params = PLAIN | {"batch_size": 4, "gradient_accumulation": 2}
    Sft(**params)(str(tiny_model_dir), data, tmp_path, 5)
    assert apart(alone / "even", tmp_path) < 1e-5


def test_one_process_goes_on_where_two_stopped(
    tiny_model_dir: Path, data: Dataset, alone: Path, shared: Path, tmp_path: Path
) -> None:
    for rank in range(SIZE):  # as Ray merges them
        saved = shared / "checkpoints" / "stopped" / str(rank) / "checkpoint-4"
        shutil.copytree(saved, tmp_path / "merged", dirs_exist_ok=True)
    sft = Sft(**PLAIN | {"save_every": 4})
    carry_out(sft, str(tiny_model_dir), data, tmp_path, 5, checkpoints=tmp_path / "own", start=tmp_path / "merged")
    assert pq.read_table(tmp_path / "loss.parquet").num_rows == 11
    assert apart(alone / "even", tmp_path) < 1e-5


def test_all_processes_stop_where_one_diverged(shared: Path) -> None:
    said = {(shared / f"broken.{rank}").read_text() for rank in range(SIZE)}
    assert len(said) == 1
    assert "the loss stopped being a number at step 3, in the batch of rows" in said.pop()


STEPS = st.integers(1, 64)
SIZES = st.integers(1, 9)


@given(STEPS, STEPS, SIZES)
def test_shares_hold_a_step_and_no_more_than_they_must(step_rows: int, batch_size: int, size: int) -> None:
    if size > step_rows:
        with pytest.raises(InputError, match=f"use {step_rows} workers at most"):
            shares(step_rows, batch_size, size)
        return
    batch, accumulation = shares(step_rows, batch_size, size)
    assert batch <= batch_size
    assert batch * accumulation * size >= step_rows
    assert (batch - 1) * accumulation * size < step_rows


@given(STEPS, STEPS)
def test_one_process_keeps_its_batches(batch_size: int, accumulation: int) -> None:
    assert shares(batch_size * accumulation, batch_size, 1) == (batch_size, accumulation)


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 5))
def test_each_step_keeps_its_rows(n: int, step_rows: int, spare: int) -> None:
    plan = np.arange(n)
    whole = filled(plan, step_rows, step_rows + spare, filler=-1).reshape(-1, step_rows + spare)
    assert len(whole) == -(-n // step_rows)
    for number, step in enumerate(whole):
        assert step[step >= 0].tolist() == plan[number * step_rows : (number + 1) * step_rows].tolist()


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 1)])
def test_a_process_outside_its_world(rank: int, size: int) -> None:
    with pytest.raises(InputError, match=f"process {rank} of {size}"):
        World(rank, size)

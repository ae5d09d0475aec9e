"""One fine-tune of winnow-tiny by one process and by one and two Ray workers: seconds, and how far apart weights end.

`run` is the whole call in a process that has loaded the libraries, Ray started before; `training` is the part of it
between the first step and the last.

python -m benchmarks.scale_workers [--rows 1000] [--rounds 3]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file

from flows.scale import scaled
from flows.scale_recipe import Scale
from flows.workers import RayWorkers
from training.sft import tiny
from warehouse.records import Dataset

CORES = 2
SFT = tiny(batch_size=32, precision="float32", learning_rate=1e-4)
Train = Callable[[Dataset, Path], object]


def one_process(data: Dataset, out: Path) -> object:
    return SFT("winnow-tiny", data, out, 0)


def by_workers(count: int) -> Train:
    return lambda data, out: scaled(SFT, "winnow-tiny", data, out, 0, Scale(workers=count))


def rows(n: int, path: Path) -> Dataset:
    """n additions with their sums."""
    pairs = np.random.default_rng(0).integers(0, 1000, (n, 2)).tolist()
    said = [(f"What is {a} plus {b}?", f"The answer is {a + b}.") for a, b in pairs]
    messages = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in said]
    pq.write_table(pa.table({"messages": messages}), path)
    return Dataset(path, "additions")


def measured(train: Train, data: Dataset, out: Path) -> tuple[float, float]:
    """Seconds of the run, and of training in it."""
    start = time.perf_counter()
    train(data, out)
    return time.perf_counter() - start, json.loads((out / "training.json").read_text())["seconds"]


def apart(one: Path, other: Path) -> float:
    """The largest difference of two weights in the same place."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ways = {"one process": one_process, "one worker": by_workers(1), "two workers": by_workers(2)}
    os.environ["OMP_NUM_THREADS"] = "1"  # Ray gives every worker one thread
    import torch

    torch.set_num_threads(1)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with TemporaryDirectory() as folder, closing(RayWorkers(None, CORES)) as ray:
        home = Path(folder)
        data = rows(asked.rows, home / "rows.parquet")
        ray.call(os.path.join, "Ray", "starts")
        one_process(rows(64, home / "few.parquet"), home / "loaded")
        for number in range(asked.rounds):
            for name, train in ways.items():
                spent[name].append(measured(train, data, home / f"{number} {name}"))
        print(f"| {asked.rows} rows, medians of {asked.rounds} | run, s | training, s | furthest weight |")
        print("|---|---|---|---|")
        for name, seconds in spent.items():
            run, training = (statistics.median(column) for column in zip(*seconds, strict=True))
            print(f"| {name} | {run:.1f} | {training:.1f} | {apart(home / '0 one process', home / f'0 {name}'):.1g} |")


if __name__ == "__main__":
    main()

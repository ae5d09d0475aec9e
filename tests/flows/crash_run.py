"""Run a recipe in one process, without Prefect and Ray: `python crash_run.py RECIPE HOME`. The crash tests kill it."""

import sys
from pathlib import Path

import torch

from flows import recipes
from flows.engine import PlainEngine
from flows.race import race
from flows.run import Silent
from flows.workers import HereWorkers

if __name__ == "__main__":
    torch.set_num_threads(1)  # as a Ray worker has: sums over two threads differ in the last bit
    recipe, home = map(Path, sys.argv[1:])
    outcome = race(
        recipes.load(recipe, ()), home, "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent()
    )
    sys.stdout.write(outcome.as_json())

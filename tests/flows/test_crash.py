"""A run that is killed and started again: finished stages are kept, and the result is an uninterrupted run's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.workers import RayWorkers
from warehouse.catalogue import query

pytestmark = pytest.mark.engine

DRIVER = Path(__file__).with_name("crash_run.py")
DEADLINE_S = 600
TABLES = {
    "selected": "SELECT method, budget, seed, rank, sample_id, score, reason FROM selected ORDER BY ALL",
    "eval_items": "SELECT * FROM eval_items ORDER BY ALL",
}
TIMED = ("seconds", "flops")


@pytest.fixture(scope="module")
def recipe(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small race with one method and two seeds, so that a test can stop it between two arms."""
    path = tmp_path_factory.mktemp("crash") / "crash.yaml"
    text = small_recipe.read_text()
    path.write_text(text.replace("methods: [random, balanced_random, rds_plus]", "methods: [balanced_random]"))
    return path


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The home and the outcome of a run that nobody killed."""
    home = tmp_path_factory.mktemp("unbroken") / "home"
    return home, finish([DRIVER, recipe, home])


def finish(words: list[Any]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def finished(home: Path) -> list[tuple[str, str]]:
    """Name and key of every stage some run of `home` has logged."""
    files = sorted(home.glob("runs/*/stage-*.parquet"))
    return [(row["name"], row["key"]) for file in files for row in pq.read_table(file).to_pylist()]


def kill_after(words: list[Any], home: Path, stage: str) -> list[tuple[str, str]]:
    """Start a run and kill -9 it once a stage whose name begins with `stage` is done; what was done by then."""
    run = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + DEADLINE_S
    while not any(name.startswith(stage) for name, _ in finished(home)):
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until, f"no stage {stage!r} in {DEADLINE_S} s"
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert run.stderr is not None
    run.stderr.close()
    return finished(home)


def timeless(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in outcome["results"]]


def check_same(home: Path, outcome: dict[str, Any], unbroken: tuple[Path, dict[str, Any]]) -> None:
    assert outcome["selections"] == unbroken[1]["selections"]
    assert timeless(outcome) == timeless(unbroken[1])
    for sql in TABLES.values():
        rows = query(home, sql).to_pylist()
        assert rows
        assert rows == query(unbroken[0], sql).to_pylist()


@pytest.mark.parametrize("stage", ["ingest", "select", "train"])
def test_a_killed_run_goes_on(stage: str, recipe: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]]) -> None:
    home = tmp_path / "home"
    done = kill_after([DRIVER, recipe, home], home, stage)
    outcome = finish([DRIVER, recipe, home])
    computed = {row["name"] for row in outcome["stages"] if row["computed"]}
    assert not computed & {name for name, _ in done}
    assert any(row["computed"] for row in outcome["stages"]), "it was killed before its end"
    assert set(done) <= {(row["name"], row["key"]) for row in outcome["stages"]}
    check_same(home, outcome, unbroken)
    assert list((home / "tmp").iterdir()) == []
    statuses = query(home, "SELECT status FROM runs ORDER BY started").to_pylist()
    assert statuses[-1]["status"] == "done"
    assert statuses[0]["status"] != "done"


def test_the_command_line_goes_on_and_prefect_hears_of_it(
    recipe: Path, tmp_path: Path, unbroken: tuple[Path, dict[str, Any]], prefect_api: str
) -> None:
    home = tmp_path / "home"
    words = ["-c", "from flows.cli import main; main()", "run", recipe, "--json", "--home", home]
    done = kill_after(words, home, "select")
    died = next((home / "running").iterdir()).name
    outcome = finish(words)
    assert not {row["name"] for row in outcome["stages"] if row["computed"]} & {name for name, _ in done}
    check_same(home, outcome, unbroken)
    assert list((home / "running").iterdir()) == []
    assert state_of(died) == "Crashed"


def state_of(flow_run: str) -> str | None:
    from uuid import UUID

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run)).state
    return state.name if state else None


def die_once(marker: str) -> int:
    """Kill the process that runs this the first time it is called; its process id the second time."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_killed_worker_costs_its_call(tmp_path: Path, ray_workers: RayWorkers) -> None:
    marker = tmp_path / "died"
    assert ray_workers.call(die_once, str(marker)) != os.getpid()
    assert marker.exists()

"""The race on its real engines: a Prefect server that shows it, a local Ray that does the work."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows import recipes
from flows.engine import PlainEngine, artifact_key
from flows.launch import launch
from flows.outcome import RaceOutcome
from flows.race import race
from flows.run import Silent
from flows.workers import HereWorkers, RayWorkers
from warehouse.catalogue import query

pytestmark = pytest.mark.engine

LIGHT = ("methods=[balanced_random]", "seeds=[0]")
HOSTILE = "<script>alert(1)</script> [x](javascript:alert(2)) | **b** |"
QUERIES_PER_S = 10
OUTLIVES = """
import threading
from flows.workers import RayWorkers

def negative(number):
    return -number

workers = RayWorkers(None, 1)
for number in (-1, -2):
    thread = threading.Thread(target=lambda: print(workers.call(negative, number), flush=True))
    thread.start()
    thread.join()
workers.close()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines") / "home"


@pytest.fixture(scope="module")
def hostile_recipe(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small race with rows, a row's source and a file name that try to be markup."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{"instruction": f"{HOSTILE} {i}", "output": HOSTILE, "source": HOSTILE} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "hostile.yaml"
    path.write_text(small_recipe.read_text().replace("pool:\n", "pool:\n  - path: rows.jsonl\n"))
    return path


class Readers:
    """Ten queries per second over `selected` while a run goes on, as an analyst's open shell would."""

    def __init__(self, home: Path) -> None:
        self.home, self.rows, self.stop = home, 0, threading.Event()
        self.asked = 0
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self.stop.wait(1 / QUERIES_PER_S):
            if (self.home / "winnow.duckdb").exists():
                self.rows = query(self.home, "SELECT count(*) AS n FROM selected").to_pylist()[0]["n"]
                self.asked += 1

    def __enter__(self) -> "Readers":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.thread.join()


@pytest.fixture(scope="module")
def outcomes(
    hostile_recipe: Path, home: Path, session_api: str, ray_workers: RayWorkers
) -> Iterator[tuple[RaceOutcome, RaceOutcome, Readers]]:
    """The race twice in one home, and who read from it meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", session_api)
        with Readers(home) as readers:
            first = launch(hostile_recipe, LIGHT, home, "run")
        yield first, launch(hostile_recipe, LIGHT, home, "run"), readers


@pytest.fixture
def api(prefect_api: str) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def flow_run(outcome: RaceOutcome) -> UUID:
    assert outcome.ui is not None
    return UUID(outcome.ui.rsplit("/", 1)[1])


def tasks(api: Any, outcome: RaceOutcome) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run(outcome)]))
    return {run.name: run.state.name for run in api.read_task_runs(flow_run_filter=mine)}


def artifacts(api: Any, outcome: RaceOutcome) -> dict[str, str]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run(outcome)]))
    return {found.key: str(found.data) for found in api.read_artifacts(artifact_filter=mine)}


def test_steps_end_computed_and_then_cached(outcomes: tuple[RaceOutcome, RaceOutcome, Readers], api: Any) -> None:
    first, second = tasks(api, outcomes[0]), tasks(api, outcomes[1])
    assert set(first) == set(second)
    assert {"prepare pool", "overlap", "select balanced_random", "base model", "compare", "report"} <= set(first)
    assert {state for name, state in first.items() if name != "report"} == {"Computed"}
    assert set(second.values()) == {"Cached"}
    assert api.read_flow_run(flow_run(outcomes[1])).state.name == "Completed"


def test_artifacts_say_what_happened(outcomes: tuple[RaceOutcome, RaceOutcome, Readers], api: Any) -> None:
    first, second = artifacts(api, outcomes[0]), artifacts(api, outcomes[1])
    steps = {artifact_key(name) for name in tasks(api, outcomes[0]) if name != "report"}
    assert set(first) == set(second) == steps | {"outcome", "results"}
    assert first["outcome"].startswith(f"**{len(outcomes[0].stages)} stages computed, 0 found")
    assert second["outcome"].startswith(f"**0 stages computed, {len(outcomes[1].stages)} found")
    assert str(outcomes[0].report) in first["outcome"]
    assert '"rows in": 300' in first["overlap"] or '"rows in": 320' in first["overlap"]


def test_row_text_is_no_markup_in_artifacts(outcomes: tuple[RaceOutcome, RaceOutcome, Readers], api: Any) -> None:
    for key, data in artifacts(api, outcomes[0]).items():
        assert "<script" not in data, key
        assert "javascript:" not in data, key


def test_reading_meanwhile_gets_in_nobodys_way(outcomes: tuple[RaceOutcome, RaceOutcome, Readers], home: Path) -> None:
    readers = outcomes[2]
    assert readers.asked > 0
    assert query(home, "SELECT count(*) AS n FROM selected").to_pylist() == [{"n": 24}]
    assert not [row for row in query(home, "SELECT error FROM runs").to_pylist() if row["error"]]


def test_engines_and_workers_change_no_answer(
    outcomes: tuple[RaceOutcome, RaceOutcome, Readers], hostile_recipe: Path, tmp_path: Path
) -> None:
    import torch

    recipe = recipes.load(hostile_recipe, LIGHT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a Ray worker has: sums over two threads differ in the last bit
    try:
        plain = race(recipe, tmp_path / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())
    finally:
        torch.set_num_threads(threads)
    assert plain.selections == outcomes[0].selections
    here = "SELECT * FROM eval_items ORDER BY ALL"
    assert query(tmp_path / "home", here).to_pylist() == query(Path(outcomes[0].home), here).to_pylist()


def double(number: int) -> int:
    return 2 * number


def wait_for(folder: str, mine: str, other: str) -> bool:
    """Whether the call named `other` runs at the same time as this one."""
    (Path(folder) / mine).touch()
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if (Path(folder) / other).exists():
            return True
        time.sleep(0.01)
    return False


def test_ray_answers_as_this_process_does(ray_workers: RayWorkers) -> None:
    assert ray_workers.call(double, 21) == HereWorkers().call(double, 21) == 42


def test_ray_outlives_the_thread_that_first_needed_it() -> None:
    """Every step has a thread of its own, and the kernel kills a child process together with its parent thread."""
    words = [sys.executable, "-c", OUTLIVES]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.split() == ["1", "2"], done.stderr[-2000:]


def test_calls_run_side_by_side(ray_workers: RayWorkers, tmp_path: Path) -> None:
    engine = PlainEngine(width=2)
    steps = [
        (mine, lambda mine=mine, other=other: ray_workers.call(wait_for, str(tmp_path), mine, other))
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    assert engine.map(steps) == [True, True]

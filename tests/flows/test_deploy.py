"""Deployments: what is refused, what is registered, and what runs when it is due."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.deploy import check_schedule, deploy_recipe, serve_deployments
from warehouse.catalogue import query
from warehouse.errors import InputError

DEADLINE_S = 600


@pytest.mark.parametrize("cron", ["61 * * * *", "nightly", "* * * *", ""])
def test_a_wrong_cron_line_is_refused_before_anything_is_made(cron: str, small_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no cron line; expected minute, hour"):
        deploy_recipe(small_recipe, (), cron, None, tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("zone", ["Mars/Phobos", "../etc/passwd"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match="unknown time zone"):
        check_schedule("0 3 * * *", zone)


def test_known_schedules_pass() -> None:
    check_schedule("0 3 * * *", None)
    check_schedule("*/5 * * * 1-5", "Europe/Berlin")


def test_serving_a_home_without_deployments_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is deployed"):
        serve_deployments(tmp_path)


@pytest.mark.engine
def test_a_due_run_is_run_elsewhere_and_serving_stops_cleanly(
    small_recipe: Path, tmp_path: Path, prefect_api: str
) -> None:
    home = tmp_path / "home"
    light = ["train=null", "tasks=[]", "methods=[random]", "seeds=[0]"]
    said = deploy_recipe(small_recipe, light, "0 3 * * *", "Europe/Berlin", home)
    assert f"winnow serve --home {home}" in said
    again = deploy_recipe(small_recipe, light, "0 4 * * *", "Europe/Berlin", home)
    assert said.splitlines()[1] == again.splitlines()[1], "the same deployment"
    order = json.loads((home / "deployments" / "small.json").read_text())
    assert (order["cron"], order["timezone"]) == ("0 4 * * *", "Europe/Berlin")
    _wait_for_planned_runs()
    runs = [_due_now(), _due_now()]
    states = _serve_until_done(home, tmp_path, runs)
    assert states == ["Completed", "Completed"]
    stages = query(home, "SELECT computed, count(*) AS n FROM stages GROUP BY ALL ORDER BY computed").to_pylist()
    assert [row["computed"] for row in stages] == [False, True]
    assert len({row["n"] for row in stages}) == 1, "the second run found every stage of the first"
    assert _schedules() == [("0 4 * * *", True)]


def _serve_until_done(home: Path, cwd: Path, runs: list[str]) -> list[str]:
    from prefect.client.orchestration import get_client

    words = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--home", str(home)]
    environment = os.environ | {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with (cwd / "serve.log").open("w") as log:
        serving = subprocess.Popen(words, cwd=cwd, env=environment, stderr=log, stdout=log, start_new_session=True)
    until = time.monotonic() + DEADLINE_S
    with get_client(sync_client=True) as client:
        while True:
            states = [client.read_flow_run(run).state for run in runs]  # type: ignore[arg-type]
            if all(state is not None and state.is_final() for state in states):
                break
            assert serving.poll() is None, (cwd / "serve.log").read_text()
            assert time.monotonic() < until, (cwd / "serve.log").read_text()
            time.sleep(0.2)
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(300) == 0
    said = (cwd / "serve.log").read_text()
    assert "0 stages computed" in said
    assert "Traceback" not in said
    assert "Warning" not in said
    return [state.name or "" for state in states if state is not None]


def _wait_for_planned_runs() -> None:
    """The server plans the runs of a schedule by itself, seconds after it was registered."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    small = DeploymentFilter(name=DeploymentFilterName(any_=["small"]))
    until = time.monotonic() + DEADLINE_S
    with get_client(sync_client=True) as client:
        while not any(run.auto_scheduled for run in client.read_flow_runs(deployment_filter=small)):
            assert time.monotonic() < until, "the server planned no run"
            time.sleep(0.2)


def _due_now() -> str:
    from prefect.deployments import run_deployment

    run = run_deployment("winnow/small", timeout=0, as_subflow=False)
    return str(run.id)  # type: ignore[union-attr]


def _schedules() -> list[tuple[str, bool]]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("winnow/small")
    return [(schedule.schedule.cron, schedule.active) for schedule in found.schedules]  # type: ignore[union-attr]

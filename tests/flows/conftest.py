"""A race small enough for a test: generated rows, the shipped tiny model, two methods, one epoch."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_home import build
from cli_world import Said, Winnow, alpaca, write_rows
from engines import local_ray, prefect_server

from flows.workers import RayWorkers

RECIPE = """\
name: small
pool:
  - synthesize: world
    params: {rows: 300, split: pool, skills: [reverse, lookup, units]}
target:
  - synthesize: world
    params: {rows: 8, split: target, skills: [reverse]}
test:
  - synthesize: world
    params: {rows: 12, split: test, skills: [reverse]}
methods: [random, balanced_random, rds_plus]
budgets: [24]
seeds: [0, 1]
train:
  base: winnow-tiny
  trainer: sft_tiny
  params: {epochs: 1}
tasks:
  - name: exact_match
    max_tokens: 12
"""


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the small race's recipe."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def asked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real home with all that a person asks about; ask it, never write to it."""
    return build(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def winnow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Winnow:
    """The command line's own entry, in this process: parses, runs, prints and exits as a shell sees it."""

    def call(*words: object) -> Said:
        from flows.cli import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["winnow", *map(str, words)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        assert isinstance(code, int | None)
        return Said(code or 0, said.out, said.err)

    return call


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pool.jsonl", alpaca(40))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "target.jsonl", alpaca(4, "word"))


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the session's Prefect server."""
    return tmp_path_factory.mktemp("server") / "home"


@pytest.fixture(scope="session")
def session_api(server_home: Path) -> Iterator[str]:
    with prefect_server(server_home) as api:
        yield api


@pytest.fixture
def prefect_api(session_api: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The API address of the session's Prefect server, in PREFECT_API_URL for one test."""
    monkeypatch.setenv("PREFECT_API_URL", session_api)
    return session_api


@pytest.fixture(scope="session")
def ray_workers() -> Iterator[RayWorkers]:
    """The session's local Ray."""
    with local_ray() as workers:
        yield workers

"""The command line as a shell sees it: exit codes, what goes to stdout and stderr, and every bad input by name."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli_world import Winnow, alpaca, write_rows

from flows import select
from selection.table import METHODS
from warehouse.catalogue import query
from warehouse.rejects import ROW_LIMIT

ENTRY = [sys.executable, "-c", "from flows.cli import main; main()"]
KEYS = {"run", "home", "report", "ui", "out", "stages", "selections", "results", "control", "notes"}


def shell(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """`winnow` in a process of its own."""
    command = [*ENTRY, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def half_written(home: Path) -> list[str]:
    """What a failed call left that is neither whole nor a log."""
    return [path.name for path in (home / "tmp").glob("*")] if home.exists() else []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_done_is_zero_and_the_last_line_of_stdout_is_one_json_object(
    pool: Path, target: Path, home: Path, tmp_path: Path
) -> None:
    words = ["select", pool, "--target", target, "--method", "lexical", "--budget", 5, "-o", tmp_path / "c.jsonl"]
    said = shell(*words, "--json", "--home", home)
    assert said.returncode == 0, said.stderr
    answer = json.loads(said.stdout.splitlines()[-1])
    assert len(said.stdout.splitlines()) == 1
    assert set(answer) == KEYS
    assert {frozenset(stage) for stage in answer["stages"]} == {
        frozenset({"name", "key", "computed", "seconds", "rows_in", "rows_out"})
    }
    selection = answer["selections"][0]
    assert (selection["method"], selection["budget"], selection["seed"], selection["rows"]) == ("lexical", 5, 0, 5)
    assert Path(answer["report"]).is_file()
    assert "ingest pool" in said.stderr
    assert len(lines(tmp_path / "c.jsonl")) == 5


def test_a_wrong_flag_is_two_and_loads_nothing_heavy() -> None:
    probe = (
        "import sys; from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'transformers', 'prefect', 'ray', 'pyarrow', 'duckdb', 'numpy'}\n"
        "    sys.exit(f'{stop.code} {sorted(heavy & set(sys.modules))}')"
    )
    for words, code in ((["select", "--nope"], 2), (["slect"], 2), (["version"], 0)):
        done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1] == f"{code} []"


def test_a_cached_selection_loads_no_engine_and_no_model(winnow: Winnow, pool: Path, target: Path, home: Path) -> None:
    words = ["select", str(pool), "--target", str(target), "--method", "lexical", "--budget", "5", "--home", str(home)]
    words += ["-o", str(home.parent / "c.jsonl")]
    assert winnow(*words).code == 0
    probe = (
        f"import sys; sys.argv = ['winnow', *{words!r}]\nfrom flows.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'prefect', 'ray', 'datasets', 'sentence_transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_same_question_computes_nothing_and_answers_the_same(
    winnow: Winnow, pool: Path, target: Path, home: Path, tmp_path: Path
) -> None:
    words = ("select", pool, "--target", target, "--method", "lexical", "--budget", 5, "--home", home, "--json")
    first = json.loads(winnow(*words, "-o", tmp_path / "a.jsonl").out)
    second = json.loads(winnow(*words, "-o", tmp_path / "b.jsonl").out)
    assert all(stage["computed"] for stage in first["stages"])
    assert not any(stage["computed"] for stage in second["stages"])
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("form", "column"), [("messages", "messages"), ("alpaca", "instruction"), ("sharegpt", "conversations")]
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_row_says_why(
    winnow: Winnow, pool: Path, home: Path, tmp_path: Path, form: str, column: str, suffix: str
) -> None:
    out = tmp_path / f"chosen.{suffix}"
    said = winnow(
        "select", pool, "--method", "random", "--budget", 7, "--format", form, "-o", out, "--home", home, "--seed", 3
    )
    assert said.code == 0, said.err
    rows = lines(out) if suffix == "jsonl" else pq.read_table(out).to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, 8))
    assert {row["source"] for row in rows} == {"pool"}
    assert all({column, "score", "reason", "weight"} <= set(row) and row["reason"] for row in rows)


def test_the_shipped_model_is_named_aloud(winnow: Winnow, pool: Path, target: Path, home: Path, tmp_path: Path) -> None:
    said = winnow("select", pool, "--target", target, "--budget", 5, "-o", tmp_path / "c.jsonl", "--home", home)
    assert said.code == 0, said.err
    assert "so winnow-tiny does it" in said.err
    assert "--encoder" in said.err


EARLY = {
    "missing file": (["nope.jsonl", "--method", "random"], ["no such file or folder: nope.jsonl"]),
    "missing target": (["pool.jsonl", "--target", "nope.jsonl"], ["no such file or folder: nope.jsonl"]),
    "a near name": (["pol.jsonl", "--method", "random"], ["Did you mean pool.jsonl"]),
    "unknown suffix": (["notes.txt", "--method", "random"], ["notes.txt", ".parquet"]),
    "unknown method": (["pool.jsonl", "--method", "rdsplus"], ["unknown method 'rdsplus'", *METHODS]),
    "unknown parameter": (["pool.jsonl", "--method", "lexical", "-p", "dim=3"], ["no parameter 'dim'", "dims"]),
    "parameter without value": (["pool.jsonl", "-p", "dims"], ["expected key=value"]),
    "parameter that is no YAML": (["pool.jsonl", "-p", "dims=["], ["not valid YAML"]),
    "no target": (["pool.jsonl", "--method", "rds_plus"], ["give --target"]),
    "model path": (["pool.jsonl", "--method", "random", "--model", "./gone"], ["./gone", "there is no such folder"]),
    "encoder path": (["pool.jsonl", "--target", "pool.jsonl", "--encoder", "/gone"], ["/gone"]),
    "hub model offline": (["pool.jsonl", "--target", "pool.jsonl", "--encoder", "no/such"], ["could not be fetched"]),
    "both models": (["pool.jsonl", "--model", "winnow-tiny", "--encoder", "x"], ["either --model or --encoder"]),
    "out suffix": (["pool.jsonl", "--method", "random", "-o", "c.txt"], ["c.txt", ".jsonl"]),
    "out is an input": (["pool.jsonl", "--method", "random", "-o", "pool.jsonl"], ["is an input"]),
    "out below a file": (["pool.jsonl", "--method", "random", "-o", "notes.txt/c.jsonl"], ["is a file, not a folder"]),
    "budget zero": (["pool.jsonl", "--method", "random", "--budget", "0"], ["--budget"]),
    "format": (["pool.jsonl", "--method", "random", "--format", "xml"], ["messages"]),
    "home below a file": (
        ["pool.jsonl", "--method", "random", "--home", "notes.txt/h"],
        ["cannot be written", "--home"],
    ),
}


@pytest.mark.parametrize("case", EARLY)
def test_what_can_be_known_is_said_before_the_home_exists(
    winnow: Winnow, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    words, expected = EARLY[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    monkeypatch.setenv("WINNOW_HOME", str(tmp_path / "home"))
    said = winnow("select", *words)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    for part in expected:
        assert part in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "pool.jsonl"]


FILES = {
    "empty file": ("", ["is empty"]),
    "no known format": ('{"a": 1}\n', ["no known format"]),
    "only malformed lines": ("{\n{\n", ["bad.jsonl:1", "malformed"]),
    "no reply at all": ('{"instruction": "a", "input": "", "output": ""}\n', ["none of 1 rows", "empty_reply 1"]),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("role", ["pool", "target"])
def test_a_file_without_rows_is_an_error_and_leaves_nothing(
    winnow: Winnow, pool: Path, target: Path, home: Path, tmp_path: Path, case: str, role: str
) -> None:
    text, expected = FILES[case]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(text)
    given = {"pool": pool, "target": target} | {role: bad}
    out = tmp_path / "c.jsonl"
    words = ("--method", "lexical", "--budget", 2, "-o", out, "--home", home)
    said = winnow("select", given["pool"], "--target", given["target"], *words)
    assert said.code == 2
    for part in expected:
        assert part in said.err
    assert not out.exists()
    assert half_written(home) == []
    assert query(home, "SELECT status FROM runs").to_pylist() == [{"status": "failed"}]
    assert query(home, "SELECT DISTINCT stage FROM stages").to_pylist() in ([], [{"stage": "ingest"}])


def test_a_row_that_cannot_be_kept_is_a_reject_with_its_place_and_reason(
    winnow: Winnow, home: Path, tmp_path: Path
) -> None:
    good = [json.dumps(row).encode() for row in alpaca(3)]
    bad = [
        b'{"instruction": "a", "output": ',
        b'{"text": "a", "label": 3}',
        b'{"instruction": "a", "input": "", "output": ""}',
        b'{"messages": [{"role": "user", "content": "hi"}]}',
        b'{"instruction": "a\xff", "input": "", "output": "b"}',
        b'{"instruction": "big", "input": "", "output": "' + b"x" * (20 * 10**6) + b'"}',
        b'{"id": 1, "instruction": "c", "input": "", "output": "d"}',
        b'{"id": 1, "instruction": "e", "input": "", "output": "f"}',
    ]
    assert len(bad[5]) > ROW_LIMIT
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(b"\n".join([*good, *bad]) + b"\n")
    said = winnow("select", path, "--method", "random", "--budget", 4, "-o", tmp_path / "c.jsonl", "--home", home)
    assert said.code == 0, said.err
    rejects = query(home, "SELECT location, reason FROM rejects ORDER BY location").to_pylist()
    assert {row["location"]: row["reason"] for row in rejects} == {
        "mixed.jsonl:4": "malformed",
        "mixed.jsonl:5": "unknown_columns",
        "mixed.jsonl:6": "empty_reply",
        "mixed.jsonl:7": "no_assistant_turn",
        "mixed.jsonl:8": "invalid_utf8",
        "mixed.jsonl:9": "too_large",
    }
    assert query(home, 'SELECT "row", other_row, reason FROM drops').to_pylist() == [
        {"row": 4, "other_row": 3, "reason": "duplicate_id"}
    ]
    assert "11 → 5 rows" in said.err
    for reason in ("1 malformed", "1 too_large", "1 duplicate_id"):
        assert reason in said.err


def test_a_budget_larger_than_the_pool_is_said_before_anything_is_measured(
    winnow: Winnow, pool: Path, target: Path, home: Path, tmp_path: Path
) -> None:
    words = ("--method", "lexical", "--budget", 41, "-o", tmp_path / "c.jsonl", "--home", home)
    said = winnow("select", pool, "--target", target, *words)
    assert said.code == 2
    assert "the pool has 40; give at most 40" in said.err
    assert query(home, "SELECT count(*) AS n FROM stages WHERE stage = 'measure'").to_pylist() == [{"n": 0}]
    ended = query(home, "SELECT status, error FROM runs").to_pylist()[0]
    assert ended["status"] == "failed"
    assert "give at most 40" in ended["error"]


def test_target_rows_in_the_pool_are_no_candidates(winnow: Winnow, pool: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    same = write_rows(tmp_path / "same.jsonl", alpaca(4))
    words = ("--method", "lexical", "--budget", 36, "-o", out, "--home", home)
    assert winnow("select", pool, "--target", same, *words).code == 0
    assert not {json.dumps(r["messages"]) for r in lines(out)[:36]} & {f"Reverse the river {i}" for i in range(4)}
    assert query(home, "SELECT filter, count(*) AS n FROM drops GROUP BY filter").to_pylist() == [
        {"filter": "overlap", "n": 4}
    ]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with hardly any room; root alone can make one."""
    place = tmp_path / "full"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)  # this process keeps its note in the home open


def test_a_full_disk_says_what_to_do_and_keeps_nothing_half(full_disk: Path, tmp_path: Path, winnow: Winnow) -> None:
    big = write_rows(tmp_path / "big.jsonl", [row | {"output": os.urandom(5000).hex()} for row in alpaca(1000)])
    out = tmp_path / "c.jsonl"
    said = winnow("select", big, "--method", "random", "--budget", 5, "-o", out, "--home", full_disk / "home")
    assert said.code == 1
    assert "no space left under" in said.err.lower()
    assert "Free space (`winnow cache prune`)" in said.err
    assert "Traceback" not in said.err
    assert not out.exists()
    assert not list((full_disk / "home").glob("artifacts/ingest/*/manifest.json"))
    assert half_written(full_disk / "home") == []


@pytest.mark.parametrize("kilobytes", [16, 128, 512, 1024])
def test_a_disk_that_is_full_from_the_start_is_no_traceback(
    full_disk: Path, pool: Path, tmp_path: Path, winnow: Winnow, kilobytes: int
) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", full_disk], check=True)
    words = ("--method", "random", "--budget", 5, "-o", tmp_path / "c.jsonl", "--home", full_disk / "home")
    said = winnow("select", pool, *words)
    if said.code:
        assert "no space" in said.err.lower()
        assert "free space" in said.err.lower()
        if (tmp_path / "c.jsonl").exists():  # the report came after it
            assert len(lines(tmp_path / "c.jsonl")) == 5


def test_a_read_only_place_is_said_before_work(full_disk: Path, pool: Path, home: Path, winnow: Winnow) -> None:
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    words = ("select", pool, "--method", "random", "--budget", 5)
    said = winnow(*words, "-o", full_disk / "new" / "c.jsonl", "--home", home)
    assert said.code == 2
    assert f"the folder {full_disk} is read-only" in said.err
    assert not home.exists()
    said = winnow(*words, "-o", home.parent / "c.jsonl", "--home", full_disk / "home")
    assert said.code == 2
    assert "cannot be written (Read-only file system)" in said.err


def test_a_full_disk_under_the_result_keeps_the_old_result(
    full_disk: Path, pool: Path, home: Path, winnow: Winnow, tmp_path: Path
) -> None:
    big = write_rows(tmp_path / "big.jsonl", [row | {"output": os.urandom(5000).hex()} for row in alpaca(1000)])
    out = full_disk / "c.jsonl"
    out.write_text("old")
    said = winnow("select", big, "--method", "random", "--budget", 900, "-o", out, "--home", home)
    assert said.code == 2
    assert f"cannot write {out}" in said.err
    assert [path.name for path in full_disk.iterdir()] == ["c.jsonl"]
    assert out.read_text() == "old"


def test_a_port_that_is_taken_is_said_before_work(
    winnow: Winnow, small_recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("WINNOW_PREFECT_PORT", str(port))
        said = winnow("run", small_recipe, "--home", home)
    assert said.code == 2
    assert f"port {port} is taken" in said.err
    assert "WINNOW_PREFECT_PORT" in said.err
    assert not list((home / "runs").iterdir())


@pytest.mark.parametrize(
    ("name", "value"), [("WINNOW_PREFECT_PORT", "http"), ("WINNOW_PREFECT_PORT", "70000"), ("WINNOW_WORKERS", "-1")]
)
def test_a_setting_that_is_no_number_is_named(
    winnow: Winnow, home: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = winnow("run", small_recipe, "--home", home)
    assert said.code == 2
    assert f"{name} is {value!r}" in said.err


def test_a_run_that_fails_for_another_reason_is_one(
    winnow: Winnow, pool: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(select, "select", broken)
    words = ("--method", "random", "--budget", 5, "-o", tmp_path / "c.jsonl", "--home", home)
    said = winnow("select", pool, *words)
    assert said.code == 1
    assert "Input/output error" in said.err
    assert query(home, "SELECT status FROM runs").to_pylist() == [{"status": "failed"}]


def test_sql_is_readable_and_read_only(winnow: Winnow, pool: Path, home: Path, tmp_path: Path) -> None:
    winnow("select", pool, "--method", "random", "--budget", 5, "-o", tmp_path / "c.jsonl", "--home", home)
    wide = winnow("sql", "SELECT *, repeat('x', 900) AS long FROM selected", "--home", home)
    assert wide.code == 0
    assert len(wide.out.splitlines()) == 6  # a heading and a line per row: nothing is folded
    assert "…" in wide.out
    many = winnow("sql", "SELECT * FROM range(1000)", "--home", home)
    assert "(960 more rows; add LIMIT or aggregate, or give --rows 0)" in many.out
    wrong = winnow("sql", "SELECT * FROM smples", "--home", home)
    assert wrong.code == 2
    assert "Tables: pools, samples" in wrong.err
    assert winnow("sql", "DROP VIEW samples", "--home", home).code == 2


def test_a_home_that_is_not_there_is_named(winnow: Winnow, tmp_path: Path) -> None:
    for words in (["sql", "SELECT 1"], ["report"], ["cache", "ls"], ["cache", "prune"]):
        said = winnow(*words, "--home", tmp_path / "none")
        assert said.code == 2
        assert f"there is no home at {tmp_path / 'none'}" in said.err
    assert not (tmp_path / "none").exists()


def test_report_writes_again(winnow: Winnow, pool: Path, home: Path, tmp_path: Path) -> None:
    words = ("--method", "random", "--budget", 5, "-o", tmp_path / "c.jsonl", "--home", home, "--json")
    first = json.loads(winnow("select", pool, *words).out)
    Path(first["report"]).unlink()
    assert winnow("report", "--home", home).out.strip() == first["report"]
    assert Path(first["report"]).is_file()


def test_secrets_of_the_environment_are_nowhere_in_the_home(
    winnow: Winnow, pool: Path, target: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {name: f"secret-of-{name.lower()}-93" for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    words = ("--budget", 5, "-o", tmp_path / "c.jsonl", "--home", home, "--json")
    said = winnow("select", pool, "--target", target, *words)
    assert said.code == 0, said.err
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    everywhere = b"".join(path.read_bytes() for path in files) + (said.out + said.err).encode()
    for value in secrets.values():
        assert value.encode() not in everywhere


def test_schema_is_json(winnow: Winnow) -> None:
    assert "budgets" in json.loads(winnow("schema").out)["properties"]

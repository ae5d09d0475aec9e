"""The response store: commits, leases, several processes, kills, and files that cannot be used."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import ask, echo, serving

from models.endpoint import exchange, ledger
from models.endpoint.client import EndpointModel
from models.endpoint.prices import Prices, Tokens
from models.endpoint.store import ResponseStore
from models.endpoint.wire import key_of
from warehouse.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "responses.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[ResponseStore]:
    with ResponseStore(path) as opened:
        yield opened


def tried(name: str, body: bytes | None = b"{}", owner: str = "host:1 1 a") -> ledger.Try:
    request = json.dumps({"request": name})
    return ledger.Try(key_of(request), request, 1, owner, time.time(), 0.1, 200, {"server": "s"}, body)


def keep(connection: sqlite3.Connection, one: ledger.Try, judged: ledger.Judged) -> None:
    attempt = ledger.receive(connection, one)
    ledger.settle(connection, attempt, judged)
    ledger.answer(connection, one.key, attempt)
    ledger.keep_parsed(connection, one.key, "p", 1, f'"{one.request}"')


OK = ledger.Judged("ok", tokens=Tokens(10, 5, 2, 1), cost="0.25")


def test_what_was_written_is_found_byte_for_byte(store: ResponseStore) -> None:
    body = b'{"a": "\xff\x00\\ud800"}  \n'
    one = tried("x", body)
    store.write(lambda connection: keep(connection, one, OK)).result()
    found = store.find(one.key, "p", 1)
    assert found is not None
    assert (found.body, found.status, found.headers, found.outcome) == (body, 200, {"server": "s"}, "ok")
    assert found.parsed == f'"{one.request}"'
    other = store.find(one.key, "p", 2)
    assert other is not None
    assert (other.body, other.parsed) == (body, None)
    assert store.find("0" * 64, "p", 1) is None
    assert store.totals() == type(store.totals())(1, 1, 1, 0, 10, 5, Decimal("0.25"))


def test_an_unread_try_is_found_until_it_is_read(store: ResponseStore) -> None:
    one = tried("x", b"raw")
    attempt = store.write(lambda connection: ledger.receive(connection, one)).result()
    found = store.find(one.key, "p", 1)
    assert found is not None
    assert (found.attempt, found.outcome, found.body) == (attempt, "", b"raw")
    store.write(lambda connection: ledger.settle(connection, attempt, ledger.Judged("anomaly"))).result()
    assert store.find(one.key, "p", 1) is None


def test_a_newer_answer_takes_the_place_and_both_are_kept(store: ResponseStore) -> None:
    for body in (b"first", b"second"):
        store.write(partial(keep, one=tried("x", body), judged=OK)).result()
    found = store.find(tried("x").key, "p", 1)
    assert found is not None
    assert found.body == b"second"
    bodies = store.read(lambda c: c.execute("SELECT body FROM attempts ORDER BY id").fetchall())
    assert bodies == [(b"first",), (b"second",)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), max_size=120))
def test_a_group_commits_what_is_right_and_refuses_what_is_not(rights: list[bool]) -> None:
    """Work that fails fails alone, whatever shares its commit, and in the order it was given."""

    def wrong(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO meta VALUES ('half', 'done')")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with tempfile.TemporaryDirectory() as folder, ResponseStore(Path(folder) / "r.sqlite") as store:
        waiting: list[Future[Any]] = []
        for number, right in enumerate(rights):
            one = tried(str(number))
            waiting.append(store.write(partial(ledger.receive, tried=one) if right else wrong))
        wait(waiting, 120)
        assert [done.exception() is None for done in waiting] == rights
        ids = [done.result() for done, right in zip(waiting, rights, strict=True) if right]
        assert ids == sorted(ids)
        assert store.read(lambda c: c.execute("SELECT count(*) FROM meta WHERE name = 'half'").fetchone()) == (0,)


def test_closing_commits_what_waits(path: Path) -> None:
    with ResponseStore(path) as store:
        waiting = [store.write(partial(ledger.receive, tried=tried(str(n)))) for n in range(200)]
    assert all(done.done() for done in waiting)
    with ResponseStore(path) as store:
        assert store.totals().attempts == 200
    with pytest.raises(InputError, match="closed"):
        store.write(lambda c: None).result()
    with pytest.raises(InputError, match="closed"):
        store.totals()


# ---- leases


def claim(store: ResponseStore, key: str, owner: str) -> ledger.Claim:
    return store.write(lambda connection: ledger.claim(connection, key, owner)).result()


def test_one_of_two_may_ask(store: ResponseStore) -> None:
    one, other = ledger.new_owner(), ledger.new_owner()
    assert [claim(store, "k", one), claim(store, "k", other), claim(store, "k", one)] == ["mine", "held", "mine"]
    store.write(lambda connection: ledger.release(connection, other, "k")).result()  # not its own
    assert claim(store, "k", other) == "held"
    store.write(lambda connection: ledger.release(connection, one, "k")).result()
    assert claim(store, "k", other) == "mine"
    answered = tried("x")
    store.write(lambda connection: keep(connection, answered, OK)).result()
    assert claim(store, answered.key, one) == "answered"
    again = store.write(lambda connection: ledger.claim(connection, answered.key, one, again=True)).result()
    assert again == "mine"


@pytest.mark.parametrize("jump", [-10 * ledger.LEASE_S, 2 * ledger.LEASE_S, -10_000_000])
def test_leases_outlive_no_clock_that_jumps(store: ResponseStore, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim(store, "k", "elsewhere:1 1 a") == "mine"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert claim(store, "k", "elsewhere:2 1 b") == "mine"


def test_leases_are_kept_by_renewing_them(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    claim(store, "k", "elsewhere:1 1 a")
    for _ in range(5):
        now[0] += ledger.LEASE_S / 2
        store.write(lambda connection: ledger.renew(connection, "elsewhere:1 1 a")).result()
        assert claim(store, "k", "elsewhere:2 1 b") == "held"
    now[0] += ledger.LEASE_S + 1
    assert claim(store, "k", "elsewhere:2 1 b") == "mine"


def test_leases_that_could_not_be_given_back_bind_nobody(store: ResponseStore) -> None:
    one = ledger.new_owner()
    claim(store, "k", one)
    ledger.retire(one)
    assert claim(store, "k", ledger.new_owner()) == "mine"


def test_leases_of_the_dead_are_taken_over_at_once(store: ResponseStore) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    machine, _, name = ledger.new_owner().rsplit(" ", 2)
    claim(store, "k", f"{machine} {child.pid} {name}")
    assert claim(store, "k", ledger.new_owner()) == "mine"


# ---- several processes, and their deaths

JOB = """
import os, sys
from pathlib import Path
from models.endpoint import ledger
from models.endpoint.client import EndpointModel
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.protocol import Prompt
from warehouse.records import Message

path, url, count, die_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
received = [0]
receive = ledger.receive

def counted(connection, tried):
    found = receive(connection, tried)
    received[0] += 1
    if received[0] == die_at:
        connection.execute("COMMIT")  # what shares this commit is kept, what comes after it is not
        os.kill(os.getpid(), 9)
    return found

ledger.receive = counted
prompts = [Prompt((Message("user", f"text {n}"),)) for n in range(count)]
spec = EndpointSpec(name="e", base_url=url, model="m", max_concurrency=4)
with ResponseStore(path) as store, EndpointModel(spec, store) as model:
    print([one.text for one in model.complete(prompts)] == [f"TEXT {n}" for n in range(count)])
"""


def job(path: Path, url: str, count: int, die_at: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", JOB, str(path), url, str(count), str(die_at)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_on_one_store_buy_nothing_twice(path: Path) -> None:
    with serving(lambda body, n: echo(body, n)) as asked:
        jobs = [job(path, asked.url, 60) for _ in range(2)]
        assert [one.communicate(timeout=300)[0].strip() for one in jobs] == ["True", "True"]
        assert len(asked.bodies) == 60
    with ResponseStore(path) as store:
        assert (store.totals().answers, store.totals().attempts, store.totals().unread) == (60, 60, 0)
        assert store.read(lambda c: c.execute("SELECT count(*) FROM leases").fetchone()) == (0,)


@pytest.mark.parametrize("commit", [1, 17])
def test_a_kill_costs_at_most_what_was_under_way(path: Path, commit: int) -> None:
    with serving() as asked:
        killed = job(path, asked.url, 30, commit)
        assert killed.communicate(timeout=300)[0] == ""
        assert killed.returncode == -signal.SIGKILL
        resumed = job(path, asked.url, 30)
        assert resumed.communicate(timeout=300)[0].strip() == "True"
        assert 30 <= len(asked.bodies) <= 30 + 4  # what had left and was in no commit
        assert sum(asked.texts().count(f"text {n}") == 1 for n in range(30)) >= commit
    with ResponseStore(path) as store:
        assert (store.totals().answers, store.totals().unread) == (30, 0)


def needs_root(what: str) -> None:
    if os.geteuid() == 0 and shutil.which("mount"):
        return
    message = f"{what} needs root"
    if os.environ.get("WINNOW_TESTS_STRICT") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    needs_root("a disk of 1 MB")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        message = f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}"
        if os.environ.get("WINNOW_TESTS_STRICT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    prompts = [ask(f"{n} " + "x" * 4000) for n in range(150)]
    with serving() as asked:
        with (
            ResponseStore(small_disk / "r.sqlite") as store,
            EndpointModel(asked.spec(max_concurrency=4), store) as model,
        ):
            with pytest.raises(OSError, match="response store"):
                model.complete(prompts)
            kept, sent = store.totals().attempts, len(asked.bodies)
        assert 0 < kept <= sent < 150
        shutil.copytree(small_disk, tmp_path / "large")
        with ResponseStore(tmp_path / "large" / "r.sqlite") as store, EndpointModel(asked.spec(), store) as model:
            assert store.totals().attempts >= kept
            assert {one.failure for one in model.complete(prompts)} == {""}
        assert len(asked.bodies) - sent <= 150 - kept


AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from models.endpoint.store import ResponseStore
from warehouse.errors import InputError
os.setgid(65534); os.setuid(65534)
with ResponseStore(sys.argv[1], read_only=True) as store:
    print(store.totals().answers)
try:
    ResponseStore(sys.argv[1])
except InputError as error:
    print(error)
"""


def test_a_store_that_may_not_be_written_can_be_read() -> None:
    needs_root("becoming nobody")
    folder = Path(tempfile.mkdtemp())
    path = folder / "r.sqlite"
    try:
        with ResponseStore(path) as store:
            store.write(lambda connection: keep(connection, tried("x"), OK)).result()
        path.chmod(0o444)
        folder.chmod(0o555)
        found = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path), str(ROOT)], cwd="/", capture_output=True, text=True, timeout=60
        )
        assert found.stdout.splitlines()[:1] == ["1"], found.stderr
        assert "cannot be written" in found.stdout, found.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


# ---- files that are no response store


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to be looked at as one" * 100)
    before = {path: path.read_bytes() for path in (foreign, text)}
    for path, message in ((foreign, "something else"), (text, "no response store"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=message):
            ResponseStore(path)
    assert {path: path.read_bytes() for path in (foreign, text)} == before
    with pytest.raises(InputError, match="no response store at"):
        ResponseStore(tmp_path / "none.sqlite", read_only=True)
    assert not (tmp_path / "none.sqlite").exists()


def test_a_store_of_another_version_is_refused(store: ResponseStore, path: Path) -> None:
    store.write(lambda c: c.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'") and None).result()
    with pytest.raises(InputError, match="schema version 99, this Winnow reads 1"):
        ResponseStore(path)


def test_a_damaged_store_says_so(path: Path) -> None:
    with ResponseStore(path) as store:
        for n in range(50):
            store.write(partial(keep, one=tried(str(n), b"x" * 2000), judged=OK)).result()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(bytes(data))
    with pytest.raises((InputError, OSError), match=r"damaged|cannot be used"):
        used(path)


def used(path: Path) -> None:
    with ResponseStore(path) as store:
        for n in range(50):
            store.find(tried(str(n)).key, "p", 1)
        store.write(lambda c: keep(c, tried("new"), OK)).result()


# ---- sharing


def test_what_is_exported_answers_elsewhere_without_a_network(path: Path, tmp_path: Path) -> None:
    prompts = [ask(f"text {n}") for n in range(5)]
    prices = Prices(Decimal(1), Decimal(1))
    with serving() as asked, ResponseStore(path) as store, EndpointModel(asked.spec(prices=prices), store) as model:
        first = model.complete(prompts)
        spec = asked.spec(prices=prices)
        assert exchange.export(store, tmp_path / "shared.jsonl") == 5
        assert exchange.load(store, tmp_path / "shared.jsonl") == 0
        assert store.totals().attempts == 5
    with ResponseStore(tmp_path / "other.sqlite") as other:
        assert exchange.load(other, tmp_path / "shared.jsonl") == 5
        with EndpointModel(spec, other) as model:
            assert model.complete(prompts) == first
            assert model.progress().requests == 0
        assert (other.totals().attempts, other.totals().cost) == (0, Decimal(0))  # paid for elsewhere
        exchange.export(other, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "shared.jsonl").read_bytes()


@pytest.mark.parametrize("line", ["{}", "nonsense", '["a"]', '{"request": 1}'])
def test_what_is_no_export_is_refused_by_line(store: ResponseStore, tmp_path: Path, line: str) -> None:
    store.write(lambda connection: keep(connection, tried("x"), OK)).result()
    file = tmp_path / "shared.jsonl"
    exchange.export(store, file)
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2 is no response"):
        exchange.load(store, file)
    with pytest.raises(InputError, match="cannot be read"):
        exchange.load(store, tmp_path / "none.jsonl")

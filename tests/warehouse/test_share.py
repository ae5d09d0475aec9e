"""Sharing: what arrives is what was sent, once and whole, however often a push or a pull is broken off."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from warehouse import catalogue, remote, share
from warehouse.errors import InputError
from warehouse.ids import as_ids
from warehouse.records import Spec, digest
from warehouse.remote import DamagedError, Remote
from warehouse.runs import RunLog, StageRecord
from warehouse.share import Moved
from warehouse.signals import SignalStore
from warehouse.store import Artifact, Store, Work

SPEC = Spec("representation", {"model": "m"})
IDS = as_ids([digest(str(i)) for i in range(4)])
RUN = "20260101T000000-0123abcd"


def add(store: Store, stage: str, files: dict[str, bytes], **parts: Any) -> Artifact:
    work = Work(stage, 1, parts.pop("params", {}), **parts)
    with store.write(work) as draft:
        for name, content in files.items():
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_bytes(content)
        draft.facts.update(rows_in=1, rows_out=1, dropped={})
    found = store.find(work)
    assert found is not None
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A home with a pool, a selection made from it and a signal, another pool, and a finished and an unfinished run."""
    store = Store.open(tmp_path / "home")
    pool = add(store, "ingest", {"rows.txt": b"rows", "same.txt": b"shared"}, params={"n": 1})
    for part in (IDS[:2], IDS[2:]):
        SignalStore(store.home).append(SPEC, part, np.ones((len(part), 3), np.float32))
    inputs = {"pool": pool.key, "signals": {"vectors": SPEC.key}}
    chosen = add(store, "select", {"data/chosen.txt": b"chosen", "same.txt": b"shared"}, inputs=inputs)
    add(store, "ingest", {"rows.txt": b"other"}, params={"n": 2})
    for run, status in ((RUN, "done"), ("20260102T000000-0123abcd", None)):
        log = RunLog(store.home, run)
        log.start(recipe="r", command="run", recipe_text="", version="1")
        log.stage(StageRecord("select", "select", chosen.key, True, datetime.now(UTC), 0.1, 1, 1, {}))
        if status:
            log.end(status)
    return store


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def push(store: Store, url: str, *wanted: str) -> Moved:
    return share.push(store.home, url, wanted, quiet)


def pull(home: Path, url: str, *wanted: str) -> Moved:
    return share.pull(home, url, wanted, quiet)


def one(store: Store, stage: str) -> Artifact:
    return next(artifact for artifact in store.artifacts() if artifact.stage == stage)


def tree(home: Path) -> dict[str, bytes]:
    """Every file that belongs to an artifact, a signal or a run."""
    files = [path for part in ("artifacts", "signals", "runs") for path in (home / part).rglob("*") if path.is_file()]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files if "empty" not in path.parts}


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "shared")
    else:
        yield f"memory://{uuid.uuid4().hex}/deep"


def blobs(url: str) -> dict[str, bytes]:
    place = Remote.open(url)
    return {path: place.read(path) for path in place.sizes("blobs")}


def test_everything_arrives_as_it_was(store: Store, url: str, tmp_path: Path) -> None:
    sent = push(store, url)
    got = pull(tmp_path / "other", url)
    unfinished = {name: data for name, data in tree(store.home).items() if "20260102" not in name}
    assert tree(tmp_path / "other") == unfinished
    assert (sent.artifacts, sent.shards, sent.runs, sent.whole) == (3, 2, 1, 0)
    assert (got.artifacts, got.shards, got.runs) == (3, 2, 1)
    assert sent.bytes == got.bytes == sum(map(len, blobs(url).values()))
    assert [fault for a in Store(tmp_path / "other").artifacts() for fault in a.faults()] == []
    assert np.array_equal(SignalStore(tmp_path / "other").read(SPEC, IDS[::-1]), np.ones((4, 3)))
    assert catalogue.query(tmp_path / "other", "SELECT run, status FROM runs").to_pylist() == [
        {"run": RUN, "status": "done"}
    ]
    assert list((tmp_path / "other" / "tmp").iterdir()) == []


def test_content_lies_there_once_under_its_own_hash(store: Store, url: str) -> None:
    push(store, url)
    found = blobs(url)
    assert {f"blobs/{(h := hashlib.sha256(data).hexdigest())[:2]}/{h}" for data in found.values()} == set(found)
    assert list(found.values()).count(b"shared") == 1


def test_what_is_there_is_not_moved_again(store: Store, url: str, tmp_path: Path) -> None:
    push(store, url)
    pull(tmp_path / "other", url)
    sent, got = push(store, url), pull(tmp_path / "other", url)
    assert (sent.files, sent.bytes, sent.artifacts, got.files, got.bytes, got.artifacts) == (0,) * 6
    assert sent.whole == got.whole == 3 + 1 + 2 + 1
    add(store, "ingest", {"rows.txt": b"rows", "more.txt": b"more"}, params={"n": 3})
    again = push(store, url)
    assert (again.artifacts, again.files, again.bytes, again.files_there, again.bytes_there) == (1, 1, 4, 1, 4)
    here = pull(tmp_path / "other", url)
    assert (here.artifacts, here.files, here.bytes, here.files_there, here.bytes_there) == (1, 1, 4, 1, 4)


def test_a_key_brings_what_it_needs_and_no_more(store: Store, url: str, tmp_path: Path) -> None:
    chosen = one(store, "select")
    assert push(store, url, chosen.key[:10]).artifacts == 2
    other = add(store, "evaluate", {"e.txt": b"e"})
    assert push(store, url, other.key).artifacts == 1
    got = pull(tmp_path / "other", url, chosen.key[:10])
    assert (got.artifacts, got.shards, got.runs) == (2, 2, 0)
    assert {a.key for a in Store(tmp_path / "other").artifacts()} == {chosen.key, chosen.manifest["inputs"]["pool"]}


def test_a_checkpoint_brings_the_selection_that_it_was_trained_on(store: Store, url: str, tmp_path: Path) -> None:
    """Its key knows the rows alone; of two selections that chose them one is enough."""
    tuned = Work("train", 1, {}, {"data": digest("rows")})
    first, second = (add(store, "select", {"n.txt": b"n"}, params={"n": n}) for n in (1, 2))
    with store.write(tuned) as draft:
        draft.facts.update(rows_in=1, rows_out=1, dropped={}, rows_from=second.key)
    assert push(store, url, tuned.key).artifacts == 2
    pull(tmp_path / "other", url, tuned.key)
    assert {artifact.key for artifact in Store(tmp_path / "other").artifacts()} == {second.key, tuned.key}
    assert push(store, url, first.key).artifacts == 1


def test_a_run_brings_its_log_and_its_stages(store: Store, url: str, tmp_path: Path) -> None:
    assert (push(store, url, RUN[:12]).artifacts, push(store, url).artifacts) == (2, 1)
    got = pull(tmp_path / "other", url, RUN)
    assert (got.artifacts, got.shards, got.runs) == (2, 2, 1)
    assert [row["key"] for row in RunLog(tmp_path / "other", RUN).stages()] == [one(store, "select").key]


def test_files_of_one_content_share_it_after_a_pull(store: Store, url: str, tmp_path: Path) -> None:
    push(store, url)
    pull(tmp_path / "other", url)
    files = sorted((tmp_path / "other").glob("artifacts/*/*/same.txt"))
    assert len(files) == 2
    assert len({file.stat().st_ino for file in files}) == 1


def test_names_that_are_not_one_thing_are_refused(store: Store, url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is shared at"):
        pull(tmp_path / "other", url)
    push(store, url, one(store, "select").key)
    for move in (lambda text: push(store, url, text), lambda text: pull(tmp_path / "other", url, text)):
        for text in ("zz", "", "../..", "20260102"):  # the last one has not finished
            with pytest.raises(InputError, match="no artifact, signal or finished run begins with"):
                move(text)
    log = RunLog(store.home, "20260103T000000-0123abcd")
    log.start(recipe="r", command="run", recipe_text="", version="1")
    log.end("done")
    with pytest.raises(InputError, match="2 things begin with '20260'"):
        push(store, url, "20260")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_blob_is_named_and_nothing_half_written(store: Store, url: str, tmp_path: Path, damage: str) -> None:
    push(store, url)
    place, chosen = Remote.open(url), one(store, "select")
    bad = remote.blob(chosen.manifest["files"]["data/chosen.txt"]["sha256"])
    if damage == "gone":
        place.fs.rm(f"{place.root}/{bad}")
    else:
        place.fs.pipe_file(f"{place.root}/{bad}", b"chosem" if damage == "flipped" else b"cho")
    with pytest.raises(DamagedError, match=bad):
        pull(tmp_path / "other", url)
    home = Store(tmp_path / "other")
    assert chosen.key not in {a.key for a in home.artifacts()}
    assert [fault for a in home.artifacts() for fault in a.faults()] == []
    assert list((home.home / "tmp").iterdir()) == []
    if damage == "flipped":  # as the message says: a push cannot know, until it is deleted
        place.fs.rm(f"{place.root}/{bad}")
    push(store, url)
    pull(tmp_path / "other", url)
    assert chosen.key in {a.key for a in home.artifacts()}


def test_a_damaged_home_is_not_shared(store: Store, url: str, tmp_path: Path) -> None:
    chosen = one(store, "select")
    (chosen.folder / "data/chosen.txt").write_bytes(b"chosem")
    with pytest.raises(DamagedError, match=r"chosen\.txt is not what its manifest says"):
        push(store, url)
    assert f"artifacts/select/{chosen.key}/manifest.json" not in Remote.open(url).sizes("artifacts")
    assert all(hashlib.sha256(data).hexdigest() == path[-64:] for path, data in blobs(url).items())


def test_damage_in_the_home_is_repaired_by_a_pull(store: Store, url: str, tmp_path: Path) -> None:
    push(store, url)
    chosen = one(store, "select")
    (chosen.folder / "data/chosen.txt").write_bytes(b"chosem")
    (chosen.folder / "same.txt").unlink()
    assert pull(store.home, url).artifacts == 1
    assert chosen.faults() == []


HOSTILE = {
    "out of the folder": lambda card: card["files"].update({"../../evil.txt": card["files"]["same.txt"]}),
    "absolute": lambda card: card["files"].update({"/tmp/evil.txt": card["files"]["same.txt"]}),
    "the manifest itself": lambda card: card["files"].update({"manifest.json": card["files"]["same.txt"]}),
    "not a hash": lambda card: card["files"]["same.txt"].update(sha256="../../x"),
    "another key": lambda card: card.update(key="0" * 32),
    "other parameters": lambda card: card["params"].update(more=1),
    "no files": lambda card: card.pop("files"),
    "files of another kind": lambda card: card.update(files=[1]),
    "facts of another kind": lambda card: card.update(facts=["rows_from"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_card_that_lies_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    url = str(tmp_path / "shared")
    push(store, url)
    card = next(Path(url).glob("artifacts/select/*/manifest.json"))
    said = json.loads(card.read_text())
    HOSTILE[name](said)
    card.write_text(json.dumps(said))
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        pull(tmp_path / "other", url)
    assert [path for path in tmp_path.rglob("evil.txt")] == []
    assert not (tmp_path / "other").exists() or list(Store(tmp_path / "other").artifacts()) == []


@pytest.mark.parametrize("kind", ["signals/*/shard-*.json", "signals/*/spec.json", "runs/*/files.json"])
def test_other_cards_that_lie_are_refused(store: Store, tmp_path: Path, kind: str) -> None:
    url = str(tmp_path / "shared")
    push(store, url)
    card = next(Path(url).glob(kind))
    said = json.loads(card.read_text())
    if "files" in said:
        said["files"]["../evil.txt"] = next(iter(said["files"].values()))
    else:
        said["params"] = {"model": "another"}
    card.write_text(json.dumps(said))
    with pytest.raises(DamagedError, match=card.name):
        pull(tmp_path / "other", url)
    assert [path for path in tmp_path.rglob("evil.txt")] == []


def test_two_pushes_at_once_are_one(store: Store, url: str, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            push(store, url)
        except (OSError, ValueError) as error:
            failures.append(error)

    both = [threading.Thread(target=work) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert failures == []
    assert all(hashlib.sha256(data).hexdigest() == path[-64:] for path, data in blobs(url).items())
    assert pull(tmp_path / "other", url).artifacts == 3


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("nonsense://bucket/x", "Protocol not known: nonsense"),
        ("s3://name:topsecret@bucket/x", "credentials come from the environment"),
        ("sftp://me:topsecret@host/x", "credentials come from the environment"),
        ("https://host/x?token=topsecret", "credentials come from the environment"),
        ("simplecache::s3://bucket/x", "credentials come from the environment"),
    ],
)
def test_a_wrong_url_is_a_clear_error_without_its_secret(store: Store, bad: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        push(store, bad)
    assert "topsecret" not in str(caught.value)


def test_a_missing_driver_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=re.escape("pip install 'winnow[s3]'")):
        push(store, "s3://bucket/x")


SLOW_PUSH = textwrap.dedent("""
    import sys, threading
    from pathlib import Path
    from warehouse import remote, share

    put, after = remote.Remote.put, int(sys.argv[3])
    begin, done, one = threading.Semaphore(after), [], threading.Lock()

    def slow(self, path, source):
        if not begin.acquire(blocking=False):
            threading.Event().wait()  # until it is killed
        put(self, path, source)
        with one:
            done.append(path)
            if len(done) == after:
                print("half", flush=True)

    remote.Remote.put = slow
    share.push(Path(sys.argv[1]), sys.argv[2], (), lambda done, total: None)
""")


def kill_half_way(store: Store, url: str, after: int) -> None:
    """Kill -9 a process that pushes, once it has written `after` files."""
    words = [sys.executable, "-c", SLOW_PUSH, str(store.home), url, str(after)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)


def check_resumed(store: Store, url: str, tmp_path: Path, after: int) -> None:
    place = Remote.open(url)
    before = place.sizes("blobs")
    assert 0 < len(before) <= after
    if cards := place.sizes("artifacts"):
        assert pull(tmp_path / "early", url).artifacts == len(cards)
    sent = push(store, url)
    assert sent.files == len(place.sizes("blobs")) - len(before)
    assert pull(tmp_path / "other", url).artifacts == 3
    assert [fault for a in Store(tmp_path / "other").artifacts() for fault in a.faults()] == []


@pytest.mark.parametrize("after", [3, 12])
def test_a_killed_push_is_resumed(store: Store, tmp_path: Path, after: int) -> None:
    url = str(tmp_path / "shared")
    kill_half_way(store, url, after)
    check_resumed(store, url, tmp_path, after)


def test_a_pull_that_is_killed_leaves_whole_things_only(store: Store, tmp_path: Path) -> None:
    url = str(tmp_path / "shared")
    push(store, url)
    program = textwrap.dedent("""
        import sys, threading
        from pathlib import Path
        from warehouse import share
        lay, seen = share._lay, []
        def slow(*args):
            if seen:
                print("half", flush=True)
                threading.Event().wait()
            seen.append(args)
            lay(*args)
        share._lay = slow
        share.pull(Path(sys.argv[1]), sys.argv[2], (), lambda done, total: None)
    """)
    home = tmp_path / "other"
    words = [sys.executable, "-c", program, str(home), url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert len(list(Store(home).artifacts())) == 1
    assert [fault for a in Store(home).artifacts() for fault in a.faults()] == []
    assert pull(home, url).whole == 1
    assert list((home / "tmp").iterdir()) == []


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server on this machine."""
    server = textwrap.dedent("""
        from moto.server import ThreadedMotoServer
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        print("http://%s:%s" % server.get_host_and_port(), flush=True)
        input()
    """)
    home = tmp_path_factory.mktemp("s3")
    with subprocess.Popen(
        [sys.executable, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, cwd=home,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, with its credentials in the environment."""
    known = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "topsecret", "AWS_ENDPOINT_URL": s3}
    for name, value in {**known, "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/winnow"


@pytest.mark.engine
def test_an_object_store_holds_and_gives_back(store: Store, bucket: str, tmp_path: Path) -> None:
    sent = push(store, bucket)
    assert (sent.artifacts, sent.shards, sent.runs) == (3, 2, 1)
    assert push(store, bucket).whole == 7
    pull(tmp_path / "other", bucket)
    assert tree(tmp_path / "other") == {n: data for n, data in tree(store.home).items() if "20260102" not in n}
    assert not any(b"topsecret" in data for data in tree(tmp_path / "other").values())


@pytest.mark.engine
def test_a_killed_push_to_an_object_store_is_resumed(store: Store, bucket: str, tmp_path: Path) -> None:
    kill_half_way(store, bucket, 5)
    check_resumed(store, bucket, tmp_path, 5)


@pytest.mark.engine
def test_a_flipped_byte_in_an_object_store_is_found(store: Store, bucket: str, tmp_path: Path) -> None:
    push(store, bucket)
    place, chosen = Remote.open(bucket), one(store, "select")
    bad = remote.blob(chosen.manifest["files"]["data/chosen.txt"]["sha256"])
    place.put(bad, b"chosem")
    with pytest.raises(DamagedError, match=bad):
        pull(tmp_path / "other", bucket, chosen.key)
    assert chosen.key not in {a.key for a in Store(tmp_path / "other").artifacts()}


@pytest.mark.engine
def test_what_the_store_refuses_is_said_without_secrets(
    store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"(?i)bucket") as caught:
        push(store, "s3://no-such-bucket-anywhere/x")
    assert "topsecret" not in str(caught.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OSError, match=r"(?i)credentials"):
        push(store, bucket)

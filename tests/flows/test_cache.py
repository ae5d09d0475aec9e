"""`winnow cache` and `winnow lineage`: what is there, why two things differ, what may go, what other homes have."""

import contextlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_world import Winnow, alpaca, write_rows

from flows import cache
from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.ids import as_ids
from warehouse.prune import prune
from warehouse.records import Spec, digest
from warehouse.runs import RunLog, StageRecord
from warehouse.signals import SignalStore
from warehouse.store import Artifact, Store, Work

DRIVER = Path(__file__).with_name("crash_run.py")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "home")
    catalogue.ensure(store.home)
    return store


def add(store: Store, stage: str, **parts: Any) -> Artifact:
    work = Work(stage, 1, parts.pop("params", {}), **parts)
    with store.write(work) as draft:
        (draft.folder / "rows.txt").write_text(f"{stage} {work.key}")
        draft.facts.update(rows_in=2, rows_out=1, dropped={"x": 1})
    found = store.find(work)
    assert found is not None
    return found


def log(store: Store, run: str, *used: Artifact, status: str | None = "done") -> RunLog:
    """A run that asked for `used`; status None is one that is going on or was killed."""
    entry = RunLog(store.home, run)
    entry.start(recipe="r", command="run", recipe_text="", version="1")
    for artifact in used:
        now = datetime.now(UTC)
        entry.stage(StageRecord(artifact.stage, artifact.stage, artifact.key, True, now, 0.1, 2, 1, {"x": 1}))
    if status:
        entry.end(status)
    return entry


def keys(store: Store) -> set[str]:
    return {artifact.key for artifact in store.artifacts()}


def test_ls_lists_stages_with_bytes_and_rows(store: Store) -> None:
    made = add(store, "ingest", params={"name": "a"})
    text = cache.listing(store.home, verify=False)
    assert made.key[:12] in text
    assert "ingest" in text


def test_verify_names_the_damaged_file_and_only_it(store: Store) -> None:
    whole, broken, gone = (add(store, "ingest", params={"name": name}) for name in "abc")
    assert cache.listing(store.home, verify=True).splitlines()[-1] == "all whole"
    file = broken.folder / "rows.txt"
    file.write_text(file.read_text()[::-1])
    (gone.folder / "rows.txt").unlink()
    said = cache.listing(store.home, verify=True).split("damaged", 1)[1]
    assert f"ingest {broken.key[:12]}: rows.txt: its content differs" in said
    assert f"ingest {gone.key[:12]}: rows.txt: missing" in said
    assert whole.key[:12] not in said


def test_explain_says_which_part_of_two_keys_differs(store: Store) -> None:
    first = add(store, "select", params={"method": "random", "deep": {"a": 1}}, inputs={"pool": "p"}, seed=0)
    second = add(store, "select", params={"method": "random", "deep": {"a": 2}}, inputs={"pool": "q"}, seed=0)
    text = cache.explain(store.home, first.key, second.key[:20])
    assert text.splitlines()[1:] == ["params.deep.a: 1 → 2", 'inputs.pool: "p" → "q"']
    assert "are the same artifact" in cache.explain(store.home, first.key, first.key)


def test_explain_names_the_cause_and_not_the_keys_that_follow_from_it(store: Store) -> None:
    def result(n: int, epochs: int) -> Artifact:
        pool = add(store, "ingest", params={"n": n}, inputs={"0": "content"})
        overlap = add(store, "overlap", inputs={"pool": pool.key})
        chosen = add(store, "select", inputs={"pool": pool.key, "excluded": overlap.key})
        tuned = add(store, "train", params={"epochs": epochs}, inputs={"data": chosen.key})
        return add(store, "evaluate", inputs={"checkpoint": tuned.key})

    first, second, third = result(1, 3), result(2, 3), result(2, 4)
    lines = cache.explain(store.home, first.key, second.key).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("checkpoint.data.pool (ingest ")
    assert lines[1].endswith("): params.n: 1 → 2")
    lines = cache.explain(store.home, first.key, third.key).splitlines()
    assert [line.split(" (")[0] for line in lines[1:]] == ["checkpoint", "checkpoint.data.pool"]
    assert lines[1].endswith("): params.epochs: 3 → 4")


def test_explain_says_why_other_rows_were_trained_on(store: Store) -> None:
    """The key of training knows the rows alone; the cause is in the selections that they came from."""
    chosen = [add(store, "select", params={"budget": budget}) for budget in (5, 6)]
    trained = [Work("train", 1, {}, {"data": digest(each.key)}) for each in chosen]
    for each, work in zip(chosen, trained, strict=True):
        with store.write(work) as draft:
            draft.facts.update(rows_in=1, rows_out=1, dropped={}, rows_from=each.key)
    keys = [each.key[:12] for each in chosen]
    assert cache.explain(store.home, *(work.key for work in trained)).splitlines()[1:] == [
        f"data (select {keys[0]} → {keys[1]}): params.budget: 5 → 6"
    ]


def test_explain_looks_into_signals(store: Store) -> None:
    specs = [Spec("representation", {"max_length": length}) for length in (9, 10)]
    for spec in specs:
        SignalStore(store.home).append(spec, as_ids([digest("row")]), np.zeros(1))
    first, second = (add(store, "select", inputs={"signals": {"x": spec.key}}) for spec in specs)
    lines = cache.explain(store.home, first.key, second.key).splitlines()
    assert lines[1:] == [
        f"signals.x (signal {specs[0].key[:12]} → {specs[1].key[:12]}): params.max_length: 9 → 10",
    ]


def test_explain_is_short_where_all_differs(store: Store) -> None:
    first, second = (add(store, "ingest", params={str(i): i + offset for i in range(100)}) for offset in (0, 1))
    lines = cache.explain(store.home, first.key, second.key).splitlines()
    assert len(lines) == 2 + cache.MOST_LINES
    assert lines[-1] == "and 60 more"


def test_explain_two_runs_that_differ_upstream_only(store: Store) -> None:
    """The stage that is the cause was made by neither run."""
    pools = [add(store, "ingest", params={"n": n}) for n in (1, 2)]
    chosen = [add(store, "select", inputs={"pool": pool.key}) for pool in pools]
    log(store, "20260101T000000-aaaaaaaa", chosen[0])
    log(store, "20260102T000000-bbbbbbbb", chosen[1])
    said = cache.explain(store.home, "20260101", "20260102")
    assert said == f"select: pool (ingest {pools[0].key[:12]} → {pools[1].key[:12]}): params.n: 1 → 2"


def test_explain_keeps_an_unnamed_cause_beside_a_stage_of_its_own_difference(store: Store) -> None:
    runs = {"20260101T000000-aaaaaaaa": 1, "20260102T000000-bbbbbbbb": 2}
    for run, n in runs.items():
        shard = add(store, "shard", params={"n": n})
        pool = add(store, "ingest", inputs={"shards": [shard.key]})
        chosen = add(store, "select", params={"budget": n}, inputs={"pool": pool.key})
        log(store, run, pool, chosen, add(store, "train", inputs={"data": chosen.key}))
    lines = cache.explain(store.home, *runs).splitlines()
    assert lines[0].startswith("ingest: shards.0 (shard ")
    assert lines[1:] == ["select: params.budget: 1 → 2", "these follow from that: train"]


def test_explain_two_runs_by_stage(store: Store) -> None:
    shared = add(store, "ingest")
    old, new = (add(store, "select", params={"budget": budget}) for budget in (5, 6))
    extra = add(store, "overlap")
    log(store, "20260101T000000-aaaaaaaa", shared, old)
    log(store, "20260102T000000-bbbbbbbb", shared, new, extra)
    text = cache.explain(store.home, "20260101", "20260102")
    assert text.splitlines() == ["select: params.budget: 5 → 6", "overlap: only in 20260102T000000-bbbbbbbb"]
    assert "the same keys in every stage" in cache.explain(store.home, "20260101", "20260101")


def test_explain_refuses_what_is_not_there_or_not_one_thing(store: Store) -> None:
    made = add(store, "ingest")
    for name in "ab":
        log(store, f"20260101T000000-{name * 8}", made)
    with pytest.raises(InputError, match="no artifact or run begins with 'zz'"):
        cache.explain(store.home, "zz", made.key)
    with pytest.raises(InputError, match="beginning of 2 runs"):
        cache.explain(store.home, "20260101", "20260101T000000-aaaaaaaa")
    with pytest.raises(InputError, match="a run and an artifact"):
        cache.explain(store.home, made.key, "20260101T000000-aaaaaaaa")


def test_explain_takes_no_pattern(store: Store) -> None:
    log(store, "20260101T000000-aaaaaaaa", add(store, "ingest"))
    for text in ("*", "../runs/2026", "empty", ""):
        with pytest.raises(InputError):
            cache.explain(store.home, text, text)


def test_prune_says_what_goes(store: Store) -> None:
    root = add(store, "ingest", params={"name": "root"})
    middle = add(store, "overlap", inputs={"pool": root.key})
    used = add(store, "select", inputs={"excluded": middle.key, "signals": {"x": "s"}})
    old = add(store, "select", params={"old": True})
    killed = add(store, "select", params={"killed": True})
    failed = add(store, "select", params={"failed": True})
    log(store, "20260101T000000-00000000", old)
    log(store, "20260102T000000-00000000", failed, status="failed")
    log(store, "20260103T000000-00000000", killed, status=None)
    log(store, "20260104T000000-00000000", used)
    before = keys(store)

    said = cache.prune(store.home, keep=1, days=7, dry_run=True)
    assert said.startswith("would free 0.0 MB in 1 artifacts; ")
    assert keys(store) == before
    assert cache.prune(store.home, keep=1, days=7, dry_run=False).startswith("freed 0.0 MB in 1 artifacts; ")
    assert before - keys(store) == {old.key}
    assert cache.prune(store.home, keep=1, days=0, dry_run=False).startswith("freed 0.0 MB in 2 artifacts; ")
    assert keys(store) == {root.key, middle.key, used.key}
    assert "0 artifacts" in cache.prune(store.home, keep=1, days=0, dry_run=False)


@pytest.fixture(scope="module")
def tiny_recipe(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small race with one method that reads a signal, and one seed."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    text = small_recipe.read_text().replace("[random, balanced_random, rds_plus]", "[rds_plus]")
    path.write_text(text.replace("seeds: [0, 1]", "seeds: [0]"))
    return path


@pytest.fixture(scope="module")
def filled(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home in which the tiny race ran, and its outcome."""
    home = tmp_path_factory.mktemp("filled") / "home"
    done = subprocess.run([sys.executable, DRIVER, tiny_recipe, home], capture_output=True, text=True, check=True)
    return home, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.engine
@pytest.mark.parametrize("begin", ["ingest", "select"])
def test_prune_in_a_loop_beside_a_flow_costs_it_nothing(
    begin: str, tiny_recipe: Path, filled: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Nothing is kept but what the flow relies on. It finds results up to the selection, and makes the others."""
    home = tmp_path / "home"
    shutil.copytree(filled[0], home, ignore=shutil.ignore_patterns("train", "evaluate", "compare", "2*-*"))
    unused = add(Store(home), "select", params={"nobody": "needs it"})
    never, loops = datetime.max.replace(tzinfo=UTC), 0
    with (tmp_path / "out").open("w+") as out:
        flow = subprocess.Popen([sys.executable, DRIVER, tiny_recipe, home], stdout=out)
        while running(flow):
            if loops or any(name.startswith(begin) for name in logged(home)):
                prune(home, 1, never, dry_run=False)  # keeps what the flow used once it is done, not before
                loops += 1
        out.seek(0)
        outcome = json.loads(out.read().splitlines()[-1])
    assert flow.returncode == 0
    assert loops > 5
    assert unused.key not in keys(Store(home))
    assert outcome["selections"] == filled[1]["selections"]
    assert [row["value"] for row in outcome["results"]] == [row["value"] for row in filled[1]["results"]]
    computed = {stage["name"].split()[0] for stage in outcome["stages"] if stage["computed"]}
    assert {"train", "compare"} <= computed
    if begin == "select":  # all that it had found by then stayed through every prune, though no kept run names it
        assert "select" not in computed
    assert prune(home, 1, never, dry_run=True).artifacts == 0
    there = keys(Store(home)) | {spec.parent.name for spec in home.glob("signals/*/spec.json")}
    assert {stage["key"] for stage in outcome["stages"]} <= there


def running(flow: subprocess.Popen[bytes]) -> bool:
    """Whether it goes on, after a moment in which it has the machine for itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        flow.wait(timeout=0.05)
    return flow.returncode is None


def logged(home: Path) -> list[str]:
    """The names of the stages that the runs of `home` have logged."""
    return [stage["name"] for run in home.glob("runs/2*") for stage in RunLog(home, run.name).stages()]


def test_prune_to_nothing_leaves_a_home_that_works(winnow: Winnow, pool: Path, target: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "c.jsonl"
    words = ("select", pool, "--target", target, "--method", "lexical", "--budget", 5, "-o", out, "--home", home)
    assert winnow(*words).code == 0
    before = out.read_bytes()
    assert winnow("cache", "prune", "--keep", 1, "--home", home).out.startswith("freed 0.0 MB in 0 artifacts")
    assert winnow("cache", "prune", "--keep", 0, "--home", home).code == 0
    assert keys(Store(home)) == set()
    assert winnow("sql", "SELECT count(*) FROM samples", "--home", home).code == 0
    again = json.loads(winnow(*words, "--json").out)
    assert [stage["name"] for stage in again["stages"] if not stage["computed"]] == []
    assert out.read_bytes() == before


def test_two_real_runs_are_explained(winnow: Winnow, pool: Path, target: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ("select", pool, "--method", "random", "-o", tmp_path / "c.jsonl", "--home", home, "--json", "--budget")
    first = json.loads(winnow(*words, 5).out)
    write_rows(pool, alpaca(41))
    second = json.loads(winnow(*words, 5).out)
    said = winnow("cache", "explain", first["run"], second["run"], "--home", home)
    assert said.code == 0, said.err
    assert said.out.startswith("ingest pool: ")
    follow = said.out.splitlines()[-1]
    assert follow.startswith("these follow from that: ")
    assert follow.endswith("overlap, select random 5 seed 0")
    both = [run["selections"][0]["key"] for run in (first, second)]
    explained = winnow("cache", "explain", *both, "--home", home).out.splitlines()
    assert len(explained) == 2
    assert explained[1].startswith("pool")


def test_lineage_of_a_real_selection(winnow: Winnow, pool: Path, target: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ("select", pool, "--target", target, "--method", "lexical", "--budget", 5, "-o", tmp_path / "c.jsonl")
    key = json.loads(winnow(*words, "--home", home, "--json").out)["selections"][0]["key"]
    shown = winnow("lineage", key[:12], "--home", home).out.splitlines()
    assert shown[0].startswith(f"select {key[:12]}  method=lexical budget=5, seed 0, 40 → 5 rows (35 not chosen), ")
    assert any(line.startswith("├─ signals.") and "signal=trigrams" in line for line in shown)
    assert sum("name=pool" in line for line in shown) == 1
    answer = json.loads(winnow("lineage", key, "--home", home, "--json").out)
    by_sql = catalogue.query(home, f"SELECT ancestor FROM lineage WHERE key = '{key}'")["ancestor"].to_pylist()
    assert {node["key"] for node in answer["nodes"]} == {key, *by_sql}
    for text in ("zz", "../.."):
        said = winnow("lineage", text, "--home", home)
        assert said.code == 2
        assert f"no artifact or signal begins with '{text}'" in said.err


def test_a_pulled_home_computes_nothing(winnow: Winnow, pool: Path, tmp_path: Path) -> None:
    words = ("select", pool, "--method", "random", "--budget", 5, "-o", tmp_path / "c.jsonl", "--json", "--home")
    first = json.loads(winnow(*words, tmp_path / "home").out)
    shared = tmp_path / "shared"
    sent = winnow("cache", "push", shared, first["run"], "--home", tmp_path / "home")
    assert sent.out.startswith("pushed "), sent.err
    assert "1 runs" in sent.out
    got = winnow("cache", "pull", shared, first["selections"][0]["key"][:10], "--home", tmp_path / "other")
    assert got.out.startswith("pulled "), got.err
    again = json.loads(winnow(*words, tmp_path / "other").out)
    assert [stage["name"] for stage in again["stages"] if stage["computed"]] == []
    assert winnow("cache", "prune", "--keep", 0, "--days", 0, "--home", tmp_path / "other").code == 0
    wrong = winnow("cache", "push", "nowhere://x", "--home", tmp_path / "home")
    assert wrong.code == 2
    assert "Protocol not known" in wrong.err

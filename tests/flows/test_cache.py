"""`winnow cache`: what is there, why two things differ, and that pruning never costs a run that is kept."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_world import Winnow, alpaca, write_rows

from flows import cache
from warehouse import catalogue
from warehouse.errors import InputError
from warehouse.runs import RunLog, StageRecord
from warehouse.store import Artifact, Store, Work


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


def test_prune_keeps_what_kept_and_unfinished_runs_used_and_what_that_was_made_from(store: Store) -> None:
    root = add(store, "ingest", params={"name": "root"})
    middle = add(store, "overlap", inputs={"pool": root.key})
    used = add(store, "select", inputs={"excluded": middle.key, "signals": {"x": "s"}})
    nested = add(store, "measure", params={"of": "nested"})
    tuned = add(store, "train", inputs={"data": {"parts": [nested.key]}})
    old = add(store, "select", params={"old": True})
    unfinished = add(store, "select", params={"open": True})
    failed = add(store, "select", params={"failed": True})
    log(store, "20260101T000000-00000000", old)
    log(store, "20260102T000000-00000000", failed, status="failed")
    log(store, "20260103T000000-00000000", unfinished, status=None)
    log(store, "20260104T000000-00000000", used, tuned)
    before = keys(store)

    said = cache.prune(store.home, keep=1, dry_run=True)
    assert said.startswith("would free")
    assert "2 artifacts" in said
    assert keys(store) == before

    assert cache.prune(store.home, keep=1, dry_run=False).startswith("freed")
    assert before - keys(store) == {old.key, failed.key}
    assert {root.key, middle.key, used.key, nested.key, tuned.key, unfinished.key} == keys(store)
    assert "0 artifacts" in cache.prune(store.home, keep=1, dry_run=False)


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
    assert [stage["name"] for stage in again["stages"] if not stage["computed"]] == [
        "measure trigrams of target",
        "measure trigrams of pool",
    ]
    assert out.read_bytes() == before


def test_two_real_runs_are_explained(winnow: Winnow, pool: Path, target: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ("select", pool, "--method", "random", "-o", tmp_path / "c.jsonl", "--home", home, "--json", "--budget")
    first = json.loads(winnow(*words, 5).out)
    write_rows(pool, alpaca(41))
    second = json.loads(winnow(*words, 5).out)
    said = winnow("cache", "explain", first["run"], second["run"], "--home", home)
    assert said.code == 0, said.err
    assert "ingest pool: inputs.0:" in said.out
    assert "select random 5 seed 0: inputs.pool:" in said.out
    both = [run["selections"][0]["key"] for run in (first, second)]
    assert "inputs.pool" in winnow("cache", "explain", *both, "--home", home).out

"""Lineage: the view and the walk agree with each other and with a plain search, whatever was made from what."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import catalogue, lineage
from warehouse.errors import InputError
from warehouse.ids import as_ids
from warehouse.records import Spec, digest
from warehouse.signals import SignalStore
from warehouse.store import Artifact, Store, Work
from warehouse.tables import CHECKPOINT, write_rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def add(store: Store, stage: str, **parts: Any) -> Artifact:
    work = Work(stage, 1, parts.pop("params", {}), **parts)
    with store.write(work) as draft:
        draft.facts.update(rows_in=5, rows_out=3, dropped={"too short": 2})
        if stage == "train":
            row = {"checkpoint": work.key, "base": "a-base", "base_fingerprint": work.model}
            write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [row])
    found = store.find(work)
    assert found is not None
    return found


def bare(home: Path, key: str, stage: str, inputs: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> None:
    """An artifact that is a manifest and nothing else, under any key."""
    folder = home / "artifacts" / stage / key
    folder.mkdir(parents=True)
    known: dict[str, Any] = {
        "params": {},
        "model": "",
        "seed": None,
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 0,
    }
    manifest = {"stage": stage, "key": key, "version": 1, "inputs": inputs, "facts": facts or {}, "files": {}, **known}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rows(store: Store, where: str = "true") -> list[tuple[Any, ...]]:
    sql = f"SELECT key, stage, ancestor, ancestor_stage, role, depth FROM lineage WHERE {where} ORDER BY depth, role"
    return [tuple(row.values()) for row in catalogue.query(store.home, sql).to_pylist()]


def family(store: Store) -> tuple[dict[str, Artifact], Spec]:
    """One result and all it was made from: two sets of rows, their overlap, a signal, a selection, a checkpoint."""
    pool, target = (add(store, "ingest", params={"name": n}, inputs={"0": digest(n)}) for n in ("pool", "target"))
    overlap = add(store, "overlap", inputs={"pool": pool.key, "target": target.key})
    spec = Spec("representation", {"model": digest("the model"), "max_length": 9})
    SignalStore(store.home).append(spec, as_ids([digest("row")]), np.zeros((1, 2)), {"seconds": 2.5})
    inputs = {"pool": pool.key, "excluded": overlap.key, "signals": {"vectors": spec.key}}
    select = add(store, "select", params={"method": "rds_plus", "budget": 3}, inputs=inputs, seed=1)
    train = add(store, "train", inputs={"data": select.key}, model=digest("the model"), seed=2)
    assess = add(store, "evaluate", params={"task": "exact_match"}, inputs={"checkpoint": train.key, "test": ""})
    made = {a.manifest["params"].get("name", a.stage): a for a in (pool, target, overlap, select, train, assess)}
    return made, spec


def test_an_evaluation_leads_back_to_its_sources(store: Store) -> None:
    made, spec = family(store)
    me = made["evaluate"].key
    expected = [
        (me, "evaluate", made["train"].key, "train", "checkpoint", 1),
        (me, "evaluate", made["select"].key, "select", "checkpoint.data", 2),
        (me, "evaluate", made["overlap"].key, "overlap", "checkpoint.data.excluded", 3),
        (me, "evaluate", made["pool"].key, "ingest", "checkpoint.data.pool", 3),
        (me, "evaluate", spec.key, "signal", "checkpoint.data.signals.vectors", 3),
        (me, "evaluate", made["target"].key, "ingest", "checkpoint.data.excluded.target", 4),
        (me, "evaluate", digest("pool"), "source", "checkpoint.data.pool.0", 4),
        (me, "evaluate", digest("target"), "source", "checkpoint.data.excluded.target.0", 5),
    ]
    assert rows(store, f"key = '{me}'") == expected
    (store.home / "winnow.duckdb").unlink()
    assert rows(store, f"key = '{me}'") == expected


def test_a_checkpoint_leads_to_every_selection_of_its_rows(store: Store) -> None:
    """Its key knows the rows alone; the manifest notes for whom it was trained."""
    rows_key, pools = digest("rows"), [digest(f"pool {i}") for i in range(3)]
    chosen = [digest(f"selection {i}") for i in range(3)]
    for pool, key, data in zip(pools, chosen, (rows_key, rows_key, digest("others")), strict=True):
        bare(store.home, pool, "ingest", {})
        bare(store.home, key, "select", {"pool": pool}, {"data": data})
    tuned, asked = digest("tuned"), digest("asked")
    bare(store.home, tuned, "train", {"data": rows_key}, {"rows_from": chosen[0]})
    bare(store.home, asked, "evaluate", {"checkpoint": tuned})
    found = {(row[4], row[2]) for row in rows(store, f"key = '{asked}' AND depth > 1")}
    both = {("checkpoint.data", key) for key in chosen[:2]} | {("checkpoint.data.pool", key) for key in pools[:2]}
    assert found == both
    assert set(lineage.ancestry(store.home, [asked], alike=True)) == {asked, tuned, *chosen[:2], *pools[:2]}
    # what must stay for it, or is sent along: one is enough
    assert set(lineage.ancestry(store.home, [asked])) == {asked, tuned, chosen[0], pools[0]}
    assert set(lineage.ancestry(store.home, [asked, chosen[1]])) == {asked, tuned, chosen[1], pools[1]}
    shutil.rmtree(store.home / "artifacts" / "select" / chosen[0])
    assert {row[2] for row in rows(store, f"key = '{asked}' AND role = 'checkpoint.data'")} == {chosen[1]}
    shutil.rmtree(store.home / "artifacts" / "select" / chosen[1])
    assert rows(store, f"key = '{asked}' AND depth > 1") == [
        (asked, "evaluate", chosen[0], "gone", "checkpoint.data", 2)
    ]
    nodes = lineage.ancestry(store.home, [asked], alike=True)
    assert [(role, nodes[key].stage) for role, key in nodes[tuned].inputs] == [("data", "gone")]


def test_roles_of_nested_lists_and_of_what_is_gone(store: Store) -> None:
    one, gone = add(store, "evaluate"), digest("removed by hand")
    add(store, "compare", inputs={"arms": [["random", 24, 0, one.key], ["length", 24, 0, gone]]})
    found = [(row[3], row[4]) for row in rows(store)]
    assert found == [("evaluate", "arms.0.3"), ("gone", "arms.1.3")]
    root = lineage.find(store.home, rows(store)[0][0])
    nodes = lineage.ancestry(store.home, [root])
    assert [(role, nodes[key].stage) for role, key in nodes[root].inputs] == [
        ("arms.0.3", "evaluate"),
        ("arms.1.3", "gone"),
    ]


def test_a_signal_leads_back_to_the_checkpoint_that_measured_it(store: Store) -> None:
    pilot = add(store, "train", model="x")
    spec = Spec("loss", {"checkpoint": pilot.key, "model": digest("no artifact")})
    SignalStore(store.home).append(spec, as_ids([digest("row")]), np.zeros(1))
    select = add(store, "select", inputs={"signals": {"loss": spec.key}})
    assert rows(store) == [
        (spec.key, "signal", pilot.key, "train", "checkpoint", 1),
        (select.key, "select", spec.key, "signal", "signals.loss", 1),
        (select.key, "select", pilot.key, "train", "signals.loss.checkpoint", 2),
    ]
    assert list(lineage.ancestry(store.home, [select.key])) == [pilot.key, spec.key, select.key]


def shortest(inputs: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], tuple[int, str]]:
    """(key, ancestor) to the depth and the first role in the alphabet, by extending paths one step at a time."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for root in inputs:
        wave = {root: ""}
        depth = 0
        while wave:
            depth += 1
            steps: dict[str, list[str]] = {}
            for key, path in wave.items():
                for role, each in inputs.get(key, {}).items():
                    steps.setdefault(each, []).append(f"{path}.{role}" if path else role)
            wave = {key: min(paths) for key, paths in steps.items() if (root, key) not in found}
            found |= {(root, key): (depth, path) for key, path in wave.items()}
    return found


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), max_size=4), min_size=1, max_size=9))
def test_view_walk_and_plain_search_agree(tmp_path_factory: pytest.TempPathFactory, graph: list[set[int]]) -> None:
    store = Store.open(tmp_path_factory.mktemp("home"))
    inputs = {
        digest(str(i)): {f"r{j}": digest(str(j)) for j in made_from if j < i} for i, made_from in enumerate(graph)
    }
    for key, given_inputs in inputs.items():
        bare(store.home, key, "stage", given_inputs)
    found = {(row[0], row[2]): (row[5], row[4]) for row in rows(store)}
    assert found == shortest(inputs)
    for key in inputs:
        order = list(lineage.ancestry(store.home, [key]))
        assert set(order) == {key} | {ancestor for root, ancestor in found if root == key}
        place = {each: i for i, each in enumerate(order)}
        assert all(place[made_from] < place[each] for each in order for made_from in inputs[each].values())


def test_many_ways_to_one_ancestor_cost_nothing(store: Store) -> None:
    """2^40 paths lead from the last to the first."""
    below = digest("first")
    bare(store.home, below, "stage", {})
    for i in range(40):
        sides = [digest(f"{i} {side}") for side in "ab"]
        for side in sides:
            bare(store.home, side, "stage", {"below": below})
        below = digest(f"{i} joined")
        bare(store.home, below, "stage", dict(zip("ab", sides, strict=True)))
    assert rows(store, f"key = '{below}'")[-1][5] == 80
    assert len(lineage.ancestry(store.home, [below])) == 121


def test_find_wants_one_thing(store: Store) -> None:
    for key in ("ab" + "0" * 30, "ab" + "1" * 30, "cd" + "0" * 30):
        bare(store.home, key, "stage", {})
    assert lineage.find(store.home, "c") == "cd" + "0" * 30
    assert lineage.find(store.home, "ab" + "0" * 30) == "ab" + "0" * 30
    for text in ("", "zz", "../", "empty"):
        with pytest.raises(InputError, match="no artifact or signal begins with"):
            lineage.find(store.home, text)
    with pytest.raises(InputError, match="2 keys begin with 'ab': stage ab0"):
        lineage.find(store.home, "ab")


def test_the_tree_says_what_matters_and_nothing_twice(store: Store) -> None:
    made, _ = family(store)
    me = made["evaluate"].key
    nodes = lineage.ancestry(store.home, [me])
    names = lineage.model_names(store.home, nodes)
    tree = lineage.as_tree(me, nodes, names, {"select": {"budget": 3}}).splitlines()
    day = made["pool"].manifest["created"][:16].replace("T", " ")
    assert tree[0].startswith(f"evaluate {me[:12]}  task=exact_match, 5 → 3 rows (2 too short), ")
    assert f"model a-base ({digest('the model')[:12]}), seed 2" in tree[1]
    assert tree[2].startswith(f"   └─ data: select {made['select'].key[:12]}  method=rds_plus, seed 1, ")
    assert tree[3] == f"      ├─ pool: ingest {made['pool'].key[:12]}  name=pool, 5 → 3 rows (2 too short), {day}"
    assert tree[4] == f"      │  └─ 0: source {digest('pool')[:12]}"
    assert f"pool: ingest {made['pool'].key[:12]}, as above" in tree[6]
    assert f"signal=representation model=a-base ({digest('the model')[:12]}) max_length=9, 1 → 1 rows" in tree[-1]
    assert sum(digest("pool")[:12] in line for line in tree) == 1


def test_a_pool_of_many_shards_is_shown_in_short(store: Store) -> None:
    shards = [add(store, "shard", inputs={"content": digest(str(i))}) for i in range(8)]
    pool = add(store, "ingest", inputs={str(i): shard.key for i, shard in enumerate(shards)})
    nodes = lineage.ancestry(store.home, [pool.key])
    tree = lineage.as_tree(pool.key, nodes, {}, {}).splitlines()
    assert len(tree) == 1 + 2 * 3 + 1
    assert tree[-1] == "└─ and 5 more of stage shard, 15 rows"
    assert len(json.loads(lineage.as_json(pool.key, nodes))["nodes"]) == 17


def test_json_has_every_node_and_edge(store: Store) -> None:
    made, spec = family(store)
    me = made["evaluate"].key
    answer = json.loads(lineage.as_json(me, lineage.ancestry(store.home, [me])))
    nodes = {node["key"]: node for node in answer["nodes"]}
    assert answer["key"] == me
    assert set(nodes) == {me} | {row[2] for row in rows(store, f"key = '{me}'")}
    assert nodes[made["select"].key]["dropped"] == {"too short": 2}
    assert nodes[spec.key]["seconds"] == 2.5
    assert {"key": made["select"].key, "input": spec.key, "role": "signals.vectors"} in answer["edges"]
    assert all(edge["key"] in nodes and edge["input"] in nodes for edge in answer["edges"])

"""DMT's two manifests, and the values that advice is made of."""

import json

import numpy as np
import pytest

from selection.advice import Advice, Evidence, Manifest, Remark, interval, widened
from selection.dmt import Dmt, replayed
from warehouse.errors import InputError
from warehouse.records import Estimate

SIZES = {"math": 600, "code": 300, "chat": 90}


def evidence(order=None, sizes=SIZES):
    source_of = np.repeat(list(sizes), list(sizes.values()))
    keys = np.random.default_rng(0).permutation(10_000)[: len(source_of)].astype(np.uint64)
    order = np.arange(len(source_of)) if order is None else order
    available = np.array(list(sizes.values()))
    return Evidence(tuple(sizes), available, source_of=source_of[order], keys=keys[order])


def test_the_published_fraction_of_the_published_sources():
    assert [replayed(110_142, 1 / 256), replayed(20_022, 1 / 256)] == [430, 78]
    assert [replayed(1, 0.5), replayed(3, 0.0), replayed(7, 1.0)] == [1, 0, 7]


def test_stage_one_is_all_that_is_special_and_stage_two_a_little_of_it():
    first, second = Dmt(("math", "code"), 1 / 10)(evidence()).manifests
    assert [first.name, second.name] == ["specialised", "general"]
    assert first.per_source == {"code": 300, "math": 600}
    assert second.per_source == {"chat": 90, "code": 30, "math": 60}
    assert sorted(first.rows.tolist()) == list(range(900))
    assert set(range(900, 990)) < set(second.rows.tolist())
    assert len(set(second.rows.tolist())) == 180


def test_storing_the_pool_in_another_order_permutes_the_manifests():
    order = np.random.default_rng(4).permutation(990)
    ours, theirs = Dmt(("math",), 0.1)(evidence()), Dmt(("math",), 0.1)(evidence(order))
    for one, other in zip(ours.manifests, theirs.manifests, strict=True):
        assert one.rows.tolist() == order[other.rows].tolist()


def test_rows_of_a_source_do_not_depend_on_the_other_sources():
    whole = Dmt(("math", "code"), 0.1)(evidence()).manifests[1].rows
    alone = Dmt(("math",), 0.1)(evidence()).manifests[1].rows
    assert [row for row in whole if row < 600] == [row for row in alone if row < 600]
    assert Dmt(("math",), 0.1, seed=1)(evidence()).manifests[1].rows.tolist() != alone.tolist()


@pytest.mark.parametrize(
    ("specialised", "told"),
    [
        (("law",), "no source law; its sources are chat, code, math"),
        ((), "0 of 3"),
        (("math", "code", "chat"), "3 of 3"),
    ],
)
def test_sources_that_make_no_two_stages_are_refused(specialised, told):
    with pytest.raises(InputError, match=told):
        Dmt(specialised)(evidence())


def test_a_fraction_lies_between_0_and_1_and_rows_are_needed():
    with pytest.raises(InputError, match=r"fraction is 1\.5"):
        Dmt(("math",), 1.5)
    with pytest.raises(InputError, match="source and the key of every row"):
        Dmt(("math",))(Evidence(("math", "chat"), np.array([1, 2])))


def test_advice_is_json_with_its_manifests():
    advice = Dmt(("math",), 0.1)(evidence())
    plain = json.loads(json.dumps(advice.as_json()))
    assert plain["manifests"][1]["per_source"] == {"chat": 90, "code": 300, "math": 60}
    assert plain["diagnostics"] == dict(advice.diagnostics)


def test_advice_checks_itself():
    share = Estimate(0.5, 0.4, 0.6, 3)
    with pytest.raises(ValueError, match="must sum to 1"):
        Advice("x", shares={"a": share})
    with pytest.raises(ValueError, match="shares, manifests, forecasts or refusals"):
        Advice("x")
    with pytest.raises(TypeError):
        Advice("x", shares={"a": share, "b": share}, diagnostics={"array": np.zeros(2)})
    with pytest.raises(ValueError, match="unknown reason"):
        Remark("because", "")
    with pytest.raises(ValueError, match="counts"):
        Manifest("m", np.arange(3), {"a": 2})


def test_an_interval_holds_its_value():
    found = interval(5.0, np.arange(100.0), 7)
    assert [found.value, found.low, found.high, found.n] == pytest.approx([5.0, 2.475, 96.525, 7])
    assert interval(-1.0, np.arange(100.0), 7).low == -1.0
    assert interval(1000.0, np.arange(100.0), 7).high == 1000.0


def test_few_residuals_are_widened_more():
    left = np.array([-1.0, 1.0, -1.0, 1.0])
    assert widened(left, 4)[1] == pytest.approx(2.776445 / 1.959964)
    assert widened(left, 1)[1] == pytest.approx(2 * 12.706205 / 1.959964)
    assert widened(np.ones(10**6), 10**6)[0] == pytest.approx(1, abs=1e-5)


RUNS = {"sizes": np.ones(2), "shares": np.array([[1.0, 0.0], [0.5, 0.5]]), "values": np.ones(2)}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"values": np.array([1.0, np.inf])}, "run 1 has an infinite loss"),
        ({"shares": np.array([[1.0, 0.0], [0.5, 0.6]])}, "run 1 has shares"),
        ({"shares": np.array([[1.5, -0.5], [0.5, 0.5]])}, "run 0 has shares"),
        ({"shares": np.array([[np.nan, 1], [0.5, 0.5]])}, "run 0 has shares"),
        ({"sizes": np.array([1.0, 0.0])}, "above 0"),
        ({"distances": np.array([1.0, np.nan])}, "run 1 has distance nan"),
        ({"budget": 0}, "budget is 0"),
        ({"sources": ("a", "a")}, "names of their own"),
        ({"available": np.array([3, 0])}, "source 'b' has 0 rows"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"sizes": np.ones(3)}, "other shapes"),
    ],
)
def test_evidence_checks_itself(changed, told):
    good = {"sources": ("a", "b"), "available": np.array([3, 4]), **RUNS}
    assert Evidence(**good).r == 2
    with pytest.raises(ValueError, match=told):
        Evidence(**{**good, **changed})


def test_failed_runs_are_counted_and_left_out():
    runs = Evidence(("a", "b"), np.array([3, 4]), **{**RUNS, "values": np.array([np.nan, 2.0])}, seeds=np.array([5, 6]))
    assert runs.failed == 1
    assert runs.completed().values.tolist() == [2.0]
    assert runs.completed().seeds.tolist() == [6]

"""TInt: traces that compute, noise that is what its label says, answers that re-execute."""

import json
from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.machine import OPS, Machine
from synthesis.noise import KINDS, DynamicNoise, StaticNoise, slip
from synthesis.tint import RENDERINGS, Tint, derive
from warehouse.errors import InputError

NUMBERS = st.integers(0, 9999)
LISTS = st.lists(NUMBERS, min_size=1, max_size=7)


@given(NUMBERS, NUMBERS)
def test_operations_on_two_numbers(a, b):
    def run(op):
        return Machine().run([op, a, b])

    assert run("add") == a + b
    assert run("sub") == abs(a - b)
    assert run("mul") == a * b
    assert run("gcd") == gcd(a, b)


@given(LISTS)
def test_operations_on_a_list(numbers):
    def run(op):
        return Machine().run([op, numbers])

    assert run("sum") == sum(numbers)
    assert run("mean") == sum(numbers) // len(numbers)
    assert run("median") == sorted(numbers)[(len(numbers) - 1) // 2]
    assert run("max") == max(numbers)
    assert run("min") == min(numbers)
    assert run("sort") == sorted(numbers)


def test_a_worked_trace():
    """34 + 78 column by column: 4 + 8 = 12, carry 1; 3 + 7 + 1 = 11, carry 1."""
    machine = Machine()
    assert machine.run(["add", 34, 78]) == 112
    assert [(step.operands, step.result) for step in machine.steps] == [((4, 8, 0), 12), ((3, 7, 1), 11)]


def test_a_corrupted_carry_propagates():
    """Were 4 + 8 taken for 2, the carry would be lost: 34 + 78 = 102."""
    machine = Machine(lambda step, value: 2 if step == 0 else value)
    assert machine.run(["add", 34, 78]) == 102


PARAMS = st.fixed_dictionaries(
    {
        "ops": st.sampled_from([tuple(OPS), ("add", "mul"), ("sort", "median", "gcd")]),
        "digits": st.integers(1, 3),
        "length": st.integers(2, 5),
        "depth": st.integers(1, 3),
        "rendering": st.sampled_from(sorted(RENDERINGS)),
        "static": st.just(0.4),
        "dynamic": st.just(0.4),
    }
)


@given(PARAMS, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_self_check(params, seed):
    """Clean and static rows re-execute to the stored answer; dynamic rows derive their wrong answer from their log."""
    style = RENDERINGS[params["rendering"]]
    for row in Tint(rows=30, **params).examples(seed, 0, 30):
        meta, given_answer = row.meta, style.answer_in(row.messages[1].content)
        assert derive(meta["problem"]) == meta["answer"]
        assert derive(meta["problem"], meta["log"]) == given_answer
        assert meta["final_correct"] == (given_answer == meta["answer"])
        assert (meta["noise"] == "dynamic") == bool(meta["log"])
        assert (meta["noise"] == "clean") == (meta["n_corrupted"] == 0) == (meta["first_bad_step"] is None)
        if meta["log"]:
            assert meta["first_bad_step"] == meta["log"][0]["step"]
            assert meta["n_corrupted"] == len(meta["log"])


def test_static_noise_edits_the_trace_only():
    dirty = Tint(rows=50, static=1.0, p_char=0.2).examples(1, 0, 50)
    labels = [row.meta["noise"] for row in dirty]
    assert labels.count("static") > 40
    silent = Tint(rows=50, static=1.0, p_line_del=0, p_line_dup=0, p_line_swap=0, p_char=0).examples(1, 0, 50)
    assert {row.meta["noise"] for row in silent} == {"clean"}


def test_json_traces_parse():
    for row in Tint(rows=30, rendering="json", dynamic=0.5).examples(2, 0, 30):
        *steps, last = [json.loads(line) for line in row.messages[1].content.split("\n")]
        assert all(set(step) == {"op", "of", "is"} for step in steps)
        assert set(last) == {"answer"}


@given(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(0, 2**32))
def test_a_slip_is_another_number_that_is_not_negative(value, kind, seed):
    other = slip(value, kind, np.random.default_rng(seed))
    assert other != value
    assert other >= 0


@given(st.lists(st.text("ab1", min_size=1, max_size=4), max_size=8), st.data())
def test_static_noise_keeps_what_is_protected(units, data):
    protected = data.draw(st.lists(st.booleans(), min_size=len(units), max_size=len(units)))
    edited, touched = StaticNoise(0.3, 0.3, 0.5, 0.3)(units, protected, np.random.default_rng(len(units)))
    kept = [unit for unit, keep in zip(units, protected, strict=True) if keep]
    assert is_subsequence(kept, edited)
    assert touched == sorted(touched)
    if edited != units:
        assert touched


def is_subsequence(short, long):
    rest = iter(long)
    return all(item in rest for item in short)


@given(st.lists(st.text(max_size=5), max_size=6))
def test_no_noise_edits_nothing(units):
    quiet = StaticNoise(0, 0, 0, 0)
    assert quiet(units, [False] * len(units), np.random.default_rng(0)) == (units, [])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ops": ["power"]}, "power.*gcd"),
        ({"rendering": "prose"}, "prose.*compact"),
        ({"depth": 2, "ops": ["sum"]}, "nest"),
        ({"digits": 0}, "too small"),
        ({"static": 0.7, "dynamic": 0.7}, "probability"),
        ({"split": "test", "static": 0.1}, "always clean"),
        ({"kinds": ["mumble"]}, "mumble.*digit_flip"),
    ],
)
def test_what_a_recipe_may_get_wrong(params, message):
    with pytest.raises(InputError, match=message):
        Tint(**params)


def test_dynamic_noise_needs_a_kind():
    with pytest.raises(InputError, match="known kinds"):
        DynamicNoise(kinds=())

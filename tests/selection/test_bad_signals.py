"""What every method does with signals that are broken, empty or degenerate: a clear error or a whole, finite answer."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from selection_worlds import every_method, method, problem
from test_selection_contract import SMALL

from selection.problem import signals_of
from warehouse.errors import InputError

MEANS_NOT_THERE = {("degradation", "nan")}
"""A reply without tokens has no divergence: NaN is how its row says so."""

METHODS = [pytest.param(name, params, id=f"{name}-{params}") for name, params in every_method()]


def made(name, params):
    return method(name, **SMALL.get(name, {}), **params)


def ask(chosen, world):
    return chosen(world, np.random.default_rng(0))


def whole(answer, world):
    assert len(set(answer.rows.tolist())) == world.budget
    assert np.isfinite(answer.scores).all()
    assert len(answer.reasons) == world.budget


def reads_of():
    for case in METHODS:
        name, params = case.values
        for signal in made(name, params).reads:
            yield pytest.param(name, params, signal, id=f"{case.id}-{signal}")


def poisoned(values, value):
    """`values` with one number broken; None where they are whole numbers, or only say where something is."""
    if isinstance(values, csr_matrix) or not np.issubdtype(values.dtype, np.floating):
        return None
    changed = np.array(values)
    changed[3] = value
    return changed


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf")])
@pytest.mark.parametrize(("name", "params", "signal"), reads_of())
def test_a_number_that_is_none_is_told_with_its_row(name, params, signal, value, word):
    world = problem(20)
    values = poisoned(world.candidates[signal], value)
    if values is None:
        return
    broken = replace(world, candidates={**world.candidates, signal: values})
    if (signal, word) in MEANS_NOT_THERE:
        whole(ask(made(name, params), broken), broken)
        return
    with pytest.raises(InputError) as told:
        ask(made(name, params), broken)
    assert re.search(r"row|NaN|infin|finite", str(told.value)), str(told.value)


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_broken_targets_are_told(name, params):
    chosen, world = made(name, params), problem(20)
    for signal in signals_of(chosen).targets:
        values = poisoned(world.targets[signal], np.nan)
        if values is not None:
            with pytest.raises(InputError, match=r"target|NaN"):
                ask(chosen, replace(world, targets={**world.targets, signal: values}))


def level(values, fill):
    if isinstance(values, csr_matrix):
        return csr_matrix(values.shape, dtype=values.dtype)
    return np.full_like(values, fill)


@pytest.mark.parametrize("fill", [0, 3])
@pytest.mark.parametrize(("name", "params"), METHODS)
def test_signals_that_are_all_the_same_give_a_whole_answer_or_say_why_not(name, params, fill):
    world = problem(20)
    chosen = made(name, params)
    flat = replace(world, candidates={signal: level(values, fill) for signal, values in world.candidates.items()})
    whole(ask(chosen, flat), flat)


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_one_row_and_one_target(name, params):
    world = problem(1, n=1, m=1)
    assert ask(made(name, params), world).rows.tolist() == [0]


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_more_targets_than_rows(name, params):
    world = problem(6, n=8, m=40)
    whole(ask(made(name, params), world), world)


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_copies_of_one_row_everywhere(name, params):
    world = problem(20)
    copies = {signal: values[np.zeros(60, int)] for signal, values in world.candidates.items()}
    keys = np.full(60, 7, np.uint64)
    same = replace(world, candidates=copies, keys=keys, groups={**world.groups, "instruction": np.zeros(60, np.int64)})
    whole(ask(made(name, params), same), same)


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_a_method_that_compares_says_that_it_has_no_targets(name, params):
    chosen = made(name, params)
    world = problem(20)
    none = replace(
        world,
        targets={signal: values[:0] for signal, values in world.targets.items()},
        target_task=np.zeros(0, np.int64),
    )
    if not chosen.compares:
        whole(ask(chosen, none), none)
        return
    with pytest.raises(InputError, match="target"):
        ask(chosen, none)

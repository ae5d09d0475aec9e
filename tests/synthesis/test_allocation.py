"""Targets, draws and shares: worked numbers, and the laws of a fair share."""

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthesis.allocation import Strategy, draws, shares, target

WANTS = st.lists(st.integers(0, 64), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("strategy", "k", "correct", "answered", "expected"),
    [
        ("vrt", 8, 3, 8, None),
        ("uniform", 40, 0, 8, 40),
        ("uniform", 40, 8, 8, 40),
        ("prop2diff", 8, 8, 8, 1),  # never failed: still one
        ("prop2diff", 8, 0, 8, 8),  # always failed: k
        ("prop2diff", 8, 7, 8, 1),
        ("prop2diff", 10, 5, 8, 4),  # 3.75, rounded up
        ("prop2diff", 10, 7, 8, 2),  # 1.25, rounded up
        ("prop2diff", 192, 6, 8, 48),
        ("prop2diff", 10, 7, 10, 3),  # exactly 3, where floats would say 3.0000000000000004
        ("prop2diff", 1, 3, 8, 1),
    ],
)
def test_targets(strategy: Strategy, k: int, correct: int, answered: int, expected: int | None) -> None:
    assert target(strategy, k, correct, answered) == expected


@given(st.integers(1, 200), st.integers(1, 64), st.data())
def test_harder_queries_have_no_smaller_targets(k: int, answered: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, answered - 1))
    easier, harder = (target("prop2diff", k, c, answered) for c in (correct + 1, correct))
    assert easier is not None
    assert harder is not None
    assert 1 <= easier <= harder <= k


@pytest.mark.parametrize(
    ("need", "kept", "trials", "expected"),
    [
        (3, 8, 8, 3),  # 3 / (9/10) / 2, but never less than what is needed
        (4, 2, 8, 7),  # 4 / (3/10) / 2 = 6.7
        (1, 0, 8, 5),  # 1 / (1/10) / 2
        (8, 0, 8, 40),
        (8, 0, 16, 64),  # 72, clipped
        (100, 8, 8, 64),
        (1, 64, 64, 1),
    ],
)
def test_draws(need: int, kept: int, trials: int, expected: int) -> None:
    assert draws(need, kept, trials) == expected


def keys_of(wants: list[int]) -> list[str]:
    return [f"{(i * 7919) % 1000:03d}" for i in range(len(wants))]


@given(WANTS, st.integers(0, 500))
def test_shares_spend_what_there_is_and_never_more(wants: list[int], left: int) -> None:
    given_ = shares(wants, keys_of(wants), left)
    assert sum(given_) == min(sum(wants), left)
    assert all(0 <= one <= want for one, want in zip(given_, wants, strict=True))


@given(WANTS, st.integers(0, 500), st.randoms())
def test_the_order_of_queries_changes_no_share(wants: list[int], left: int, random: object) -> None:
    keys = keys_of(wants)
    order = list(range(len(wants)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = shares([wants[i] for i in order], [keys[i] for i in order], left)
    straight = shares(wants, keys, left)
    assert shuffled == [straight[i] for i in order]


@given(WANTS, st.integers(0, 500))
def test_each_gets_one_first_and_then_its_proportion(wants: list[int], left: int) -> None:
    given_ = shares(wants, keys_of(wants), left)
    asking = [i for i, want in enumerate(wants) if want]
    if left >= sum(wants):
        return
    if left <= len(asking):
        assert all(given_[i] in (0, 1) for i in asking)
        return
    further = sum(wants[i] - 1 for i in asking)
    for i in asking:
        exact = (left - len(asking)) * (wants[i] - 1) / further
        assert floor(exact - 1e-9) <= given_[i] - 1 <= floor(exact + 1e-9) + 1


def test_a_share_by_hand() -> None:
    assert shares([10, 1, 4], ["a", "b", "c"], 15) == [10, 1, 4]
    assert shares([10, 1, 4], ["a", "b", "c"], 7) == [4, 1, 2]  # one each, then 4 in the proportion 9 to 3
    assert shares([5, 5, 5], ["b", "c", "a"], 1) == [0, 0, 1]

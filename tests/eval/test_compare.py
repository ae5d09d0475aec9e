"""Comparing arms: only paired runs, in the metric's own direction."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from eval.compare import compare
from eval.items import ItemRow, item_table
from warehouse.errors import InputError

N = 200


def row(number: int, value: float, metric: str = "exact_match") -> ItemRow:
    item = f"item {number:03}"
    return ItemRow(
        item, f"group {number % 20}", "q", "r", "r", "g", metric, value, 1 + number % 5, "stop", "p", "d", "t"
    )


def run(values: np.ndarray, metric: str = "exact_match") -> pa.Table:
    return item_table([row(i, float(v), metric) for i, v in enumerate(values)])


def arm(rate: float, seeds: range, metric: str = "exact_match") -> dict[int, pa.Table]:
    return {s: run(np.random.default_rng([s, int(100 * rate)]).random(N) < rate, metric) for s in seeds}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_real_gain_is_better_and_none_is_not_shown() -> None:
    good, bad = arm(0.6, range(3)), arm(0.3, range(3))
    found = compare(good, bad, "exact_match", rng())
    assert found.verdict == "better"
    assert found.difference.value == pytest.approx(0.3, abs=0.06)
    assert found.difference.value == pytest.approx(np.mean(found.by_seed))
    assert len(found.by_seed) == 3
    assert compare(bad, good, "exact_match", rng()).verdict == "worse"
    assert compare(good, good, "exact_match", rng()).verdict.startswith("no difference shown (MDE")


def test_lower_loss_is_better_and_tokens_weigh() -> None:
    low, high = np.linspace(0, 1, N), np.linspace(0, 1, N) + np.where(np.arange(N) % 5 == 4, 1.0, 0.0)
    found = compare({1: run(low, "nll")}, {1: run(high, "nll")}, "nll", rng())
    assert found.difference.value == pytest.approx(-5 / 15)  # the fifth of the items that hold 5 of 15 tokens
    assert found.verdict == "better"
    assert compare({1: run(low, "nll")}, {1: run(high, "nll")}, "nll_item_mean", rng()).difference.value == -0.2


def test_order_of_rows_does_not_matter() -> None:
    good, bad = arm(0.6, range(2)), arm(0.3, range(2))
    shuffled = {s: t.take(np.random.default_rng(s).permutation(N)) for s, t in good.items()}
    assert compare(shuffled, bad, "exact_match", rng()) == compare(good, bad, "exact_match", rng())


def test_one_run_of_right_or_wrong_items_has_an_exact_p() -> None:
    a = run(np.r_[np.ones(22), np.zeros(8), np.ones(170)])
    b = run(np.r_[np.zeros(22), np.ones(8), np.ones(170)])
    assert compare({0: a}, {0: b}, "exact_match", rng()).p == pytest.approx(0.01612, abs=5e-6)
    assert compare(arm(0.6, range(2)), arm(0.3, range(2)), "exact_match", rng()).p is None


def test_clusters_are_drawn_whole() -> None:
    group_effect = np.random.default_rng(0).normal(size=20)[np.arange(N) % 20]
    a, b = {0: run(group_effect, "nll")}, {0: run(np.zeros(N), "nll")}
    plain = compare(a, b, "nll_item_mean", rng())
    assert compare(a, b, "nll_item_mean", rng(), clusters="group").mde > 2 * plain.mde


@pytest.mark.parametrize("column", ["item_id", "prompt_hash", "target_hash"])
def test_items_that_are_not_the_same_are_refused(column: str) -> None:
    rows = [row(i, 1.0) for i in range(N)]
    other = [replace(rows[0], **{column: "changed"}), *rows[1:]]
    with pytest.raises(InputError, match="seed 4 of the second arm was not asked the same"):
        compare({4: item_table(rows)}, {4: item_table(other)}, "exact_match", rng())
    with pytest.raises(InputError, match="1 of 200 items differ"):
        compare({4: item_table(rows)}, {4: item_table(rows[1:])}, "exact_match", rng())


def test_what_cannot_be_compared_is_refused() -> None:
    good = arm(0.6, range(3))
    with pytest.raises(InputError, match=r"found seeds \[0, 1, 2\] and \[0, 1\]"):
        compare(good, arm(0.3, range(2)), "exact_match", rng())
    with pytest.raises(InputError, match="unknown metric 'bleu'; known metrics: exact_match"):
        compare(good, good, "bleu", rng())
    with pytest.raises(InputError, match="no item has a value 'nll'; found: exact_match"):
        compare(good, good, "nll", rng())

"""Learning rates over a run: worked numbers, and laws of any of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.schedules import Power, Staged, factor

shares = st.floats(0, 0.5)


def test_ten_steps_of_each() -> None:
    staged = Staged(10, 0.2, 0.3)
    assert [staged(step) for step in range(10)] == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3])
    power = Power(10, 0.2, 0.3, 2.0, -1.0)
    expected = [0, 0.5, 2 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7, 2 / 8, 2 / 9 * 2 / 3, 2 / 10 / 3]
    assert [power(step) for step in range(10)] == pytest.approx(expected)


@given(st.integers(1, 200), shares, shares, st.floats(0.1, 50), st.floats(-2, 0))
def test_no_rate_is_above_the_highest_or_below_zero(
    steps: int, warmup: float, decay: float, a: float, b: float
) -> None:
    for made in (Staged(steps, warmup, decay), Power(steps, warmup, decay, a, b)):
        rates = np.array([made(step) for step in range(steps)])
        assert ((rates >= 0) & (rates <= 1)).all()
        rise = int(np.ceil(steps * warmup))
        assert (np.diff(rates[rise:]) <= 1e-12).all()  # nothing rises after the warm-up


def test_transformers_has_the_others() -> None:
    assert [factor(name, 10, 0, 0, 1, 0) for name in ("cosine", "linear", "constant")] == [None] * 3

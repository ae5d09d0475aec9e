"""Worked costs: 8 billion parameters, 2048 tokens a row, 2 epochs, 10,000 rows chosen."""

import pytest

from training.cost import forward_flops, train_flops

N, S = 8 * 10**9, 2048
TRAIN = train_flops(N, S * 10_000 * 2)


def test_training_alone() -> None:
    assert pytest.approx(1.966080e18) == TRAIN
    assert train_flops(N, S * 326_000 * 2) == pytest.approx(6.409421e19)


@pytest.mark.parametrize(
    ("pool", "rds_plus", "less"), [(200_000, 8.519680e18, 6.291456e19), (5_800_000, 1.920205e20, 1.714422e21)]
)
def test_selection_adds_passes_over_the_pool(pool: int, rds_plus: float, less: float) -> None:
    assert TRAIN + forward_flops(N, S * pool) == pytest.approx(rds_plus, rel=1e-6)
    assert 2 * TRAIN + 3 * train_flops(N, S * pool) == pytest.approx(less, rel=1e-6)


def test_an_encoder_of_110_million_parameters() -> None:
    assert TRAIN + forward_flops(110 * 10**6, S * 200_000) == pytest.approx(2.056192e18)


def test_frozen_weights_need_no_gradient() -> None:
    assert train_flops(0, 100, frozen=N) == forward_flops(N, 100) * 2
    assert train_flops(106_816, 112_737) == 72_252_692_352

"""Worked costs: 8 billion parameters, 2048 tokens a row, 2 epochs, 10,000 rows chosen."""

import pytest

from training.cost import PUBLISHED, forward_flops, hugging_face_flops, published_flops, train_flops
from warehouse.errors import InputError

N, S = 8 * 10**9, 2048
TRAIN = train_flops(N, S * 10_000 * 2)


def test_training_alone() -> None:
    assert pytest.approx(1.966080e18) == TRAIN
    assert train_flops(N, S * 326_000 * 2) == pytest.approx(6.409421e19)


@pytest.mark.parametrize(
    ("method", "chosen", "pool", "flops"),
    [
        ("random", 10_000, 200_000, 1.966080e18),
        ("rds_plus", 10_000, 200_000, 8.519680e18),
        ("perplexity", 10_000, 200_000, 8.519680e18),
        ("embed_nv", 10_000, 200_000, 8.519680e18),
        ("less", 10_000, 200_000, 6.291456e19),
        ("embed_gtr", 10_000, 200_000, 2.056192e18),
        ("ifd", 10_000, 200_000, 1.517158e19),
        ("rds_plus", 10_000, 5_800_000, 1.920205e20),
        ("less", 10_000, 5_800_000, 1.714422e21),
        ("embed_gtr", 10_000, 5_800_000, 4.579328e18),
        ("random", 326_000, 5_800_000, 6.409421e19),
        ("rds_plus", 326_000, 5_800_000, 2.541486e20),
    ],
)
def test_published_costs(method: str, chosen: int, pool: int, flops: float) -> None:
    assert published_flops(method, N, chosen, pool) == pytest.approx(flops, rel=1e-6)


def test_a_method_without_a_published_cost_is_refused() -> None:
    with pytest.raises(InputError, match="no published cost of method 'dart'; known methods: random, rds_plus"):
        published_flops("dart", N, 1, 1)


@pytest.mark.parametrize("method", PUBLISHED)
def test_no_method_is_cheaper_than_random(method: str) -> None:
    assert published_flops(method, N, 10_000, 1_000) >= published_flops("random", N, 10_000, 1_000)


def test_an_encoder_of_110_million_parameters() -> None:
    assert TRAIN + forward_flops(110 * 10**6, S * 200_000) == pytest.approx(2.056192e18)


def test_frozen_weights_need_no_gradient() -> None:
    assert train_flops(0, 100, frozen=N) == forward_flops(N, 100) * 2


def test_the_trainers_own_count_charges_frozen_weights_in_full() -> None:
    base, embedding, adapters = 101_952, 27_904, 32_768
    assert hugging_face_flops(base, embedding, 375_790) == 166_958_987_520
    assert hugging_face_flops(base + adapters, embedding, 112_737) == 72_252_692_352
    assert train_flops(adapters, 112_737, frozen=base - embedding) < 72_252_692_352

"""The two optimizers of this project: moments in a low-rank space, and steps from losses alone."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tuning.lowrank import LowRankAdamW, basis
from training.tuning.zeroth import ZerothOrder, probe_batch, stream

RATE, DECAY = 1e-2, 0.1


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrix(rows: int, columns: int, seed: int = 0) -> torch.nn.Parameter:
    return torch.nn.Parameter(random(rows, columns, seed=seed))


def low_rank(weights: list[Any], matrices: list[Any], **changes: Any) -> LowRankAdamW:
    return LowRankAdamW(weights, RATE, matrices, **{"rank": 2, "gap": 3, "scale": 0.5} | changes)


def descend(optimizer: Any, loss: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_without_matrices_it_is_adamw() -> None:
    ours, reference = matrix(3, 5), matrix(3, 5)
    target = random(3, 5, seed=1)
    made = low_rank([{"params": [ours], "weight_decay": DECAY}], [])
    adamw = torch.optim.AdamW([reference], RATE, weight_decay=DECAY)
    descend(made, lambda: (ours - target).pow(4).sum(), 30)
    descend(adamw, lambda: (reference - target).pow(4).sum(), 30)
    assert torch.allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_at_full_rank_it_is_adamw_in_turned_coordinates(shape: tuple[int, int]) -> None:
    """With all singular vectors P of the first gradient, W = P V (or V Pᵀ) where V is tuned by AdamW itself."""
    target, ours = random(*shape, seed=1), matrix(*shape)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return (weight - target).pow(4).sum() + (weight[0] * weight[-1]).sum()

    first = torch.autograd.grad(loss(ours), ours)[0]
    vectors, wide = basis(first, 9), shape[0] <= shape[1]
    turned = torch.nn.Parameter((vectors.T @ ours if wide else ours @ vectors).detach())
    made = low_rank([{"params": [ours], "weight_decay": DECAY}], [ours], rank=9, gap=1000, scale=1.0)
    adamw = torch.optim.AdamW([turned], RATE, weight_decay=DECAY)
    descend(made, lambda: loss(ours), 20)
    descend(adamw, lambda: loss(vectors @ turned if wide else turned @ vectors.T), 20)
    assert torch.allclose(ours, vectors @ turned if wide else turned @ vectors.T, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.integers(0, 99))
def test_a_basis_is_orthonormal_and_holds_most_of_the_gradient(rows: int, columns: int, rank: int, seed: int) -> None:
    gradient = random(rows, columns, seed=seed)
    found = basis(gradient, rank)
    kept = min(rank, rows, columns)
    assert found.shape == (min(rows, columns), kept)
    assert torch.allclose(found.T @ found, torch.eye(kept), atol=1e-5)
    projected = found.T @ gradient if rows <= columns else gradient @ found
    values = torch.linalg.svdvals(gradient)
    assert torch.allclose(torch.linalg.svdvals(projected)[:kept], values[:kept], atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_steps_stay_in_the_space_until_it_is_found_anew(shape: tuple[int, int]) -> None:
    weight, target = matrix(*shape), random(*shape, seed=1)
    made, spaces = low_rank([weight], [weight], rank=1), []
    for step in range(7):
        before = weight.detach().clone()
        descend(made, lambda: (weight - target).pow(4).sum(), 1)
        vectors = made.state[weight]["basis"]
        moved = (weight.detach() - before) if shape[0] <= shape[1] else (weight.detach() - before).T
        assert moved.abs().max() > 0
        assert torch.allclose(vectors @ (vectors.T @ moved), moved, atol=1e-6)
        spaces.append(vectors.clone())
        assert step % 3 == 0 or torch.equal(spaces[-1], spaces[-2])
    assert not torch.allclose(spaces[0], spaces[3])
    assert not torch.allclose(spaces[3], spaces[6])


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_the_first_step_is_the_signs_of_the_projected_gradient(scale: float) -> None:
    weight = matrix(3, 5)
    before, gradient = weight.detach().clone(), random(3, 5, seed=1)
    made = low_rank([{"params": [weight], "weight_decay": DECAY}], [weight], scale=scale)
    descend(made, lambda: (weight * gradient).sum(), 1)
    vectors = torch.linalg.svd(gradient, full_matrices=False)[0][:, :2]
    expected = before * (1 - RATE * DECAY) - RATE * scale * vectors @ (vectors.T @ gradient).sign()
    assert torch.allclose(weight, expected, atol=1e-6)


def test_moments_are_small() -> None:
    wide, tall = matrix(4, 10), matrix(10, 4)
    made = low_rank([wide, tall], [wide, tall])
    descend(made, lambda: wide.pow(2).sum() + tall.pow(2).sum(), 1)
    assert made.state[wide]["exp_avg"].shape == made.state[wide]["exp_avg_sq"].shape == (2, 10)
    assert made.state[tall]["exp_avg"].shape == (10, 2)
    assert made.state[wide]["basis"].shape == made.state[tall]["basis"].shape == (4, 2)


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_low_rank_state_that_was_saved_goes_on_exactly(stop: int, tmp_path: Any) -> None:
    target = random(4, 6, seed=1)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return (weight - target).pow(4).sum()

    straight, halfway = matrix(4, 6), matrix(4, 6)
    descend(low_rank([straight], [straight]), lambda: loss(straight), 8)
    first = low_rank([halfway], [halfway])
    descend(first, lambda: loss(halfway), stop)
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    resumed = torch.nn.Parameter(halfway.detach().clone())
    second = low_rank([resumed], [resumed])
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    descend(second, lambda: loss(resumed), 8 - stop)
    assert torch.equal(resumed, straight)


def direction(seed: int, number: int, weights: list[Any]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(stream(seed, number))
    return [torch.randn(weight.shape, generator=generator) for weight in weights]


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 20), st.sampled_from([1e-2, 1e-3]))
@settings(deadline=None, max_examples=30)
def test_a_step_is_the_projected_gradient(seed: int, number: int, eps: float) -> None:
    weights = [torch.nn.Parameter(matrix(3, 4).detach().double()), torch.nn.Parameter(random(5, seed=2).double())]
    before = [weight.detach().clone() for weight in weights]

    def loss() -> torch.Tensor:
        return weights[0].pow(2).sum() + weights[1].sin().sum()

    made = ZerothOrder([{"params": weights[:1], "weight_decay": DECAY}, {"params": weights[1:]}], RATE, eps, seed)
    value = made.probe(number, loss)
    assert all(torch.allclose(one, two, atol=1e-12) for one, two in zip(weights, before, strict=True))
    assert not made.state
    assert all(weight.grad is None for weight in weights)
    z = [part.double() for part in direction(seed, number, weights)]
    above = (before[0] + eps * z[0]).pow(2).sum() + (before[1] + eps * z[1]).sin().sum()
    below = (before[0] - eps * z[0]).pow(2).sum() + (before[1] - eps * z[1]).sin().sum()
    assert float(value) == pytest.approx(float(above + below) / 2)
    slope = float(above - below) / (2 * eps)
    made.step()
    assert torch.allclose(weights[0], before[0] * (1 - RATE * DECAY) - RATE * slope * z[0], atol=1e-9)
    assert torch.allclose(weights[1], before[1] - RATE * slope * z[1], atol=1e-9)


def distance(weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (weight - target).pow(2).sum()


def test_the_batches_of_a_step_share_its_direction() -> None:
    whole, parts = matrix(3, 4), matrix(3, 4)
    targets = random(3, 4, seed=1), random(3, 4, seed=2)
    one, two = (ZerothOrder([weight], RATE, 1e-2, 0) for weight in (whole, parts))
    one.probe(5, lambda: (whole - targets[0]).pow(2).sum() + (whole - targets[1]).pow(2).sum())
    for target in targets:
        two.probe(5, partial(distance, parts, target))
    one.step()
    two.step()
    assert torch.allclose(whole, parts, atol=1e-4)
    assert not torch.allclose(whole, matrix(3, 4))


def test_every_step_and_seed_has_its_direction() -> None:
    weight = matrix(3, 4)
    drawn = [direction(seed, number, [weight])[0] for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert not any(torch.allclose(drawn[i], drawn[j]) for i in range(4) for j in range(i))


def test_losses_alone_go_down_a_bowl() -> None:
    """To a tenth in 300 steps: in d dimensions a step of rate 1/(d + 2) takes 1/(d + 2) of the loss, on average."""
    weight = matrix(2, 5)
    made, start = ZerothOrder([weight], 0.5 / 12, 1e-3, 0), float(weight.detach().pow(2).sum())
    for number in range(300):
        made.probe(number, lambda: weight.pow(2).sum())
        made.step()
    assert float(weight.detach().pow(2).sum()) < start / 10


def test_processes_step_by_the_mean_of_their_slopes() -> None:
    """The other process is played by an accelerator whose mean with it is 3."""
    weight = matrix(2, 2)
    made = ZerothOrder([weight], RATE, 1e-2, 0)
    accelerator = SimpleNamespace(
        sync_gradients=True, num_processes=2, reduce=lambda slope, how: {"mean": torch.tensor(3.0)}[how]
    )
    trainer: Any = SimpleNamespace(
        optimizer=SimpleNamespace(optimizer=made),
        state=SimpleNamespace(global_step=4),
        accelerator=accelerator,
        compute_loss=lambda model, inputs, num_items_in_batch: weight.sum(),
    )
    before = weight.detach().clone()
    probe_batch(trainer, torch.nn.Identity(), {}, 1)
    made.step()
    assert torch.allclose(weight, before - RATE * 3 * direction(0, 4, [weight])[0], atol=1e-6)

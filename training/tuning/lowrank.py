"""GaLore: AdamW whose moments live in a low-rank space of each matrix's gradient (Zhao et al. 2024, algorithm 2)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class LowRankAdamW(torch.optim.Optimizer):
    """AdamW as torch has it, but for the `matrices`, whose gradients (m, n) are projected before and after.

    Every `gap` steps the `rank` first left (m ≤ n) or right (m > n) singular vectors P of the gradient are taken. With
    R = PᵀG (r, n), or GP (m, r), Adam's direction N of R gives W ← W - scale · rate · P N, or N Pᵀ. Moments stay as
    they are when P changes, as in the paper. Moments of a matrix take 2 · rank · max(m, n) numbers and P takes
    rank · min(m, n), where AdamW takes 2 · m · n.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        matrices: Iterable[nn.Parameter],
        rank: int,
        gap: int,
        scale: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.projected = {id(matrix) for matrix in matrices}
        self.rank, self.gap, self.scale = rank, gap, scale

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the trainer gives no closure
        """One step on the gradients at hand; parameters without one stay."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    self._move(weight, weight.grad, group)

    def _move(self, weight: nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state: dict[str, Any] = self.state[weight]
        if id(weight) not in self.projected:
            weight.add_(_direction(state, gradient, group), alpha=-group["lr"])
            return
        if state.get("step", 0) % self.gap == 0:
            state["basis"] = basis(gradient, self.rank)
        vectors, wide = state["basis"], weight.shape[0] <= weight.shape[1]
        low = vectors.T @ gradient if wide else gradient @ vectors
        found = _direction(state, low, group)
        back = vectors @ found if wide else found @ vectors.T
        weight.add_(back, alpha=-group["lr"] * self.scale)


def basis(gradient: torch.Tensor, rank: int) -> torch.Tensor:
    """The first `rank` singular vectors on the shorter side of a matrix (m, n): (min(m, n), rank), orthonormal."""
    left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    vectors: torch.Tensor = left[:, :rank] if gradient.shape[0] <= gradient.shape[1] else right[:rank].T
    return vectors.to(gradient.dtype).contiguous()


def _direction(state: dict[str, Any], gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Adam's direction with corrected bias, of the shape of `gradient`; moments and step count are kept in `state`."""
    if "step" not in state:
        state |= {"step": 0, "exp_avg": torch.zeros_like(gradient), "exp_avg_sq": torch.zeros_like(gradient)}
    state["step"] += 1
    first, second = group["betas"]
    state["exp_avg"].lerp_(gradient, 1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    root = (state["exp_avg_sq"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
    found: torch.Tensor = state["exp_avg"] / (1 - first ** state["step"]) / root
    return found

"""MeZO: training from losses alone, without gradients (Malladi et al. 2023, algorithm 1).

A direction z of standard normal numbers is drawn for a step; the loss is taken at θ + εz and at θ - εz, and
θ ← θ - rate · z · (L(θ + εz) - L(θ - εz)) / 2ε. The direction is never held: whoever needs it draws it again from seed
and step, a matrix at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn


def stream(seed: int, number: int) -> int:
    """The seed of the direction of optimizer step `number`, so that a run that goes on draws the same ones."""
    return int(np.random.SeedSequence([seed, crc32(b"zeroth"), number]).generate_state(1, np.uint64)[0] >> 1)


class ZerothOrder(torch.optim.Optimizer):
    """SGD along one random direction a step. It holds no state but the slope along the direction of the open step.

    `probe` measures that slope, in parts where a step is made of several batches; `step` moves the weights.
    """

    def __init__(self, params: Iterable[Any], lr: float, eps: float, seed: int) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.eps, self.seed = eps, seed
        self.number, self.slope = 0, 0.0

    @torch.no_grad()
    def probe(self, number: int, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Add the slope of `loss` along the direction of optimizer step `number`; returns the mean of its two values.

        The weights are put back, up to the rounding of three additions.
        """
        self.number = number
        self._shift(self.eps)
        above = loss()
        self._shift(-2 * self.eps)
        below = loss()
        self._shift(self.eps)
        self.slope += float(above - below) / (2 * self.eps)
        return (above + below) / 2

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the trainer gives no closure
        """θ ← (1 - rate · decay) θ - rate · slope · z."""
        for group, weight, direction in self._directions():
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction, alpha=-group["lr"] * self.slope)
        self.slope = 0.0

    def _shift(self, distance: float) -> None:
        for _, weight, direction in self._directions():
            weight.add_(direction, alpha=distance)

    def _directions(self) -> Iterator[tuple[dict[str, Any], nn.Parameter, torch.Tensor]]:
        """Every parameter with its part of the direction of this step, drawn in the order of the parameters."""
        generator: torch.Generator | None = None
        for group in self.param_groups:
            for weight in group["params"]:
                if generator is None:
                    generator = torch.Generator(weight.device).manual_seed(stream(self.seed, self.number))
                yield group, weight, torch.randn(weight.shape, generator=generator, device=weight.device)


def probe_batch(trainer: Any, model: Any, inputs: dict[str, Any], labels: Any) -> torch.Tensor:
    """The loss of a batch, whose slope is left with the trainer's optimizer. Dropout and other noise are off."""
    optimizer: ZerothOrder = trainer.optimizer.optimizer  # the trainer's own is a wrapper of accelerate
    model.eval()
    loss = optimizer.probe(
        trainer.state.global_step, lambda: trainer.compute_loss(model, dict(inputs), num_items_in_batch=labels)
    )
    model.train()
    if trainer.accelerator.sync_gradients and trainer.accelerator.num_processes > 1:
        slope = torch.tensor(optimizer.slope, device=loss.device)
        optimizer.slope = float(trainer.accelerator.reduce(slope, "mean"))  # every process has probed its own batches
    return loss

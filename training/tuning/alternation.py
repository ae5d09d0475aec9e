"""LISA: a few layers at a time are trained, drawn anew every some steps (Pan et al. 2024, algorithm 1)."""

from typing import Any
from zlib import crc32

import numpy as np
import transformers

from training.tuning.blocks import layers_of


def active_layers(count: int, layers: int, seed: int, interval: int) -> list[int]:
    """The `layers` of `count` layers that train in an interval, ascending: a function of seed and interval alone."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, crc32(b"alternation"), interval]))
    return sorted(rng.choice(count, layers, replace=False).tolist())


class Alternation(transformers.TrainerCallback):
    """Freezes all layers but the active ones where an interval begins; embeddings, head and last norm always train.

    All parameters must be trainable while the optimizer is built: it never learns of those that are not. A layer that
    is frozen loses its optimizer state, so its momentum is gone when it is drawn again, and so is the memory it took.
    """

    def __init__(self, layers: int, steps: int, seed: int) -> None:
        self.layers, self.steps, self.seed = layers, steps, seed
        self.interval: int | None = None  # that the network is set to

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        interval = state.global_step // self.steps
        if interval != self.interval:
            self._switch(given["model"], given["optimizer"], interval)
            self.interval = interval

    def _switch(self, network: Any, optimizer: Any, interval: int) -> None:
        layers = layers_of(network)
        active = set(active_layers(len(layers), self.layers, self.seed, interval))
        for number, layer in enumerate(layers):
            for parameter in layer.parameters():
                parameter.requires_grad_(number in active)
                if number not in active:
                    parameter.grad = None
                    optimizer.state.pop(parameter, None)

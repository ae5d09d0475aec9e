"""S²FT: in each layer a few channels of the feed-forward block, and heads where asked, are trained (Yang et al. 2024).

The gradient of everything else is set to zero. That is exact, and costs what full tuning costs; the authors reorder the
weights so that the chosen channels form a dense block, which also saves memory.
"""

from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import torch
import transformers

from training.tuning.blocks import layers_of, output_of

Chosen = list[tuple[torch.Tensor, torch.Tensor]]  # matrices (out, in) with the mask (in,) bool of their trained columns


def choose(network: Any, ratio: float, heads: float, seed: int) -> Chosen:
    """The trained columns: a share `ratio` of the feed-forward channels of each layer and a share `heads` of its heads.

    They are columns of the matrices that end the two blocks. Both numbers are rounded, and at least 1 where the share
    is above 0. Draws depend on the seed alone.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, crc32(b"channels")]))
    count = network.config.get_text_config().num_attention_heads
    chosen: Chosen = []
    for layer in layers_of(network):
        if ratio:
            down = output_of(layer, "feed_forward").weight
            chosen.append((down, _columns(down, down.shape[1], ratio, rng)))
        if heads:
            out = output_of(layer, "attention").weight
            chosen.append((out, _columns(out, count, heads, rng)))
    return chosen


def _columns(weight: torch.Tensor, groups: int, share: float, rng: np.random.Generator) -> torch.Tensor:
    """(in,) bool: the columns of a drawn share of `groups` equal groups of neighbouring columns."""
    drawn = np.zeros(groups, bool)
    drawn[rng.choice(groups, max(1, round(share * groups)), replace=False)] = True
    return torch.from_numpy(np.repeat(drawn, weight.shape[1] // groups)).to(weight.device)


def confine(network: Any, chosen: Chosen) -> None:
    """Let nothing but the chosen columns have a gradient."""
    network.requires_grad_(False)
    for weight, columns in chosen:
        weight.requires_grad_(True)
        register: Any = weight.register_hook
        register(partial(_only, columns))


def _only(columns: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.masked_fill(~columns, 0.0)


class ColumnDecay(transformers.TrainerCallback):
    """Weight decay of the chosen columns alone: AdamW, which knows no columns, would shrink the others too."""

    def __init__(self, ratio: float, heads: float, seed: int) -> None:
        self.ratio, self.heads, self.seed = ratio, heads, seed
        self.chosen: Chosen = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for group in given["optimizer"].param_groups:
            group["weight_decay"] = 0.0
        if args.weight_decay:
            self.chosen = choose(given["model"], self.ratio, self.heads, self.seed)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """AdamW's own first step: w ← (1 - rate · decay) w."""
        rate = given["optimizer"].param_groups[0]["lr"]
        with torch.no_grad():
            for weight, columns in self.chosen:
                weight[:, columns] *= 1 - rate * args.weight_decay

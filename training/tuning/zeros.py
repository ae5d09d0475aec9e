"""Training a pruned model: weights that pruning set to zero stay zero."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn


def linear_layers(network: Any) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of a network but its head, with their names: what pruning looks at."""
    from transformers.pytorch_utils import Conv1D  # the linear layer of GPT-2, its weight transposed

    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def keep_zeros(network: Any) -> None:
    """From now on the weights of linear layers that are exactly 0 have no gradient, so that no step moves them.

    Exact with AdamW (momentum and weight decay of a zero are zero), where every step follows a backward pass. Biases,
    norms, embeddings and head are trained whole.
    """
    for _, layer in linear_layers(network):
        weight: Any = layer.weight
        zero = weight.detach() == 0
        if weight.requires_grad and zero.any():
            weight.register_hook(partial(_without, zero))


def _without(zero: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient.masked_fill(zero, 0.0)

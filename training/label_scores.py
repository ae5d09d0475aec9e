"""The model's head multiplied for label positions alone: three quarters of the tokens of instruction data are prompts.

trl's fused head does so on a GPU and multiplies every position elsewhere. Here the difference is half of a step of a
model whose head holds a quarter of its parameters (docs/training_measured.md).
"""

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.head import head_of
from training.guard import IGNORED
from warehouse.errors import InputError

CHUNK_LOGITS = 1 << 26  # logits kept for the backward pass: 256 MiB as float32; of more, chunks are computed twice


def score_labels(network: Any) -> bool:
    """Teach `network`, as it is or under an adapter, the call `network(..., labels=..., labels_alone=True)`.

    That call returns the log-probabilities (k,) float32 of the k tokens that have a label, and in the same order a mask
    (rows, length - 1), true where the next token has one. Any other call is what it was. False, and nothing changed,
    where the architecture does something to its logits that is not known here.
    """
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    try:
        adjust = head_of(base).adjust
    except InputError:
        return False
    plain = base.forward

    @functools.wraps(type(base).forward)
    def forward(self: Any, *args: Any, labels_alone: bool = False, **given: Any) -> Any:
        return _label_scores(self, adjust, *args, **given) if labels_alone else plain(*args, **given)

    base.forward = MethodType(forward, base)
    return True


def _label_scores(
    base: Any, adjust: Callable[[torch.Tensor], torch.Tensor], *args: Any, labels: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    states = base.base_model(*args, **given).last_hidden_state[:, :-1]
    following = labels[:, 1:]
    mask = following != IGNORED
    head = base.get_output_embeddings()

    def logprobs(chosen: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -functional.cross_entropy(adjust(head(chosen)).float(), targets, reduction="none")

    chosen, targets = states[mask], following[mask]
    rows = max(1, CHUNK_LOGITS // head.weight.shape[0])
    if len(targets) <= rows:
        return logprobs(chosen, targets), mask
    pairs = zip(torch.split(chosen, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(logprobs, h, t, use_reentrant=False) for h, t in pairs]), mask

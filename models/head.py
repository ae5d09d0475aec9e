"""Log-probabilities and logits at chosen positions and tokens, without a full-vocabulary tensor over all tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from warehouse.errors import InputError

CHUNK_LOGITS = 1 << 24  # logits alive at once: 64 MiB as float32


@dataclass(frozen=True, slots=True)
class Head:
    """The output embedding (vocabulary, d), its bias, and what the architecture does to logits afterwards."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    adjust: Callable[[torch.Tensor], torch.Tensor]

    def logits(self, states: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (n, c) float32 after hidden states (n, d); where `tokens` (c,) are given, of these alone.

        The product is made in the model's own number format, as in its training loss.
        """
        weight = self.weight if tokens is None else self.weight[tokens]
        bias = self.bias if self.bias is None or tokens is None else self.bias[tokens]
        return self.adjust(functional.linear(states, weight, bias)).float()

    def logprobs(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Natural log-probability (n,) float32 of each target token after hidden states (n, d), in chunks of rows."""
        rows = max(1, CHUNK_LOGITS // len(self.weight))
        pairs = zip(torch.split(states, rows), torch.split(targets, rows), strict=True)
        parts = [-functional.cross_entropy(self.logits(h), t, reduction="none") for h, t in pairs]
        return torch.cat(parts) if parts else states.new_zeros(0, dtype=torch.float32)


def head_of(network: Any) -> Head:
    """The head of a causal language model, checked against the model itself on a few tokens.

    Knows soft-capped logits (Gemma), divided ones (Granite) and multiplied ones (Cohere). Raises `InputError` for an
    architecture that does something else to its logits, rather than give wrong likelihoods.
    """
    output = network.get_output_embeddings()
    if output is None:
        raise InputError(f"models of type {network.config.model_type!r} have no language-model head")
    head = Head(output.weight, output.bias, _adjustment(network.config.get_text_config()))
    _check(network, head)
    return head


def _adjustment(config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        return lambda logits: torch.tanh(logits / cap) * cap
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return lambda logits: logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        return lambda logits: logits * factor
    return lambda logits: logits


def _check(network: Any, head: Head) -> None:
    ids = torch.arange(1, 5, device=network.device)[None] % len(head.weight)
    with torch.inference_mode():
        theirs = network(input_ids=ids, use_cache=False).logits[0].float()
        ours = head.logits(network.base_model(input_ids=ids, use_cache=False).last_hidden_state[0])
    if theirs.shape != ours.shape or not torch.allclose(ours, theirs, rtol=2e-2, atol=2e-2):
        raise InputError(
            f"models of type {network.config.model_type!r} change their logits in a way that is not known here, so "
            "likelihoods would be wrong; use representations only, or choose another model"
        )

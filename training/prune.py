"""Magnitude pruning: the smallest weights of every linear layer set to zero, as a model of its own.

Loads torch and transformers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.network import load_network
from training.quiet import quiet
from training.tuning.zeros import linear_layers
from warehouse.errors import InputError

ALL_LINEAR = "all-linear"
PRUNED = "pruned.json"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was pruned: of each layer the weights that are zero now, and over all pruned layers zeros and weights."""

    base: str
    share: float
    targets: str | tuple[str, ...]
    layers: dict[str, int]
    zeros: int
    weights: int


def prune(
    base: str, share: float, out: Path, targets: str | Sequence[str] = ALL_LINEAR, trust_remote_code: bool = False
) -> Pruned:
    """Write `base` with the `share` of smallest magnitude of each layer's weights set to zero, float32, under `out`.

    `targets` are names of linear layers, or "all-linear" for all; embeddings and head are never pruned. Beside the
    weights stand the tokenizer and `pruned.json`. Raises `InputError` for a share outside 0 to 1 and for targets that
    the model does not have.
    """
    check_share(share)
    loaded = load_network(
        base, dtype="float32", device="cpu", adapter=None, trust_remote_code=trust_remote_code, revision="main"
    )
    found = dict(linear_layers(loaded.network))
    layers = {name: layer for name, layer in found.items() if _wanted(name, targets)}
    if not layers:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
        raise InputError(f"no linear layer of {base} is named {targets}; it has {known}; give some, or {ALL_LINEAR}")
    sizes = {name: _weight(layer).numel() for name, layer in layers.items()}
    counts = {name: _pruned(_weight(layer), share) for name, layer in layers.items()}
    total = sum(sizes.values())
    facts = Pruned(
        base, share, targets if isinstance(targets, str) else tuple(targets), counts, sum(counts.values()), total
    )
    with quiet():
        loaded.network.save_pretrained(out)
        loaded.tokenizer.save_pretrained(out)
    (out / PRUNED).write_text(json.dumps(asdict(facts), indent=2) + "\n", encoding="utf-8")
    return facts


def check_share(share: float) -> None:
    """Raise `InputError` unless `share` is one that can be pruned."""
    if not 0 < share < 1:
        raise InputError(f"the share of weights to prune is {share}; give one between 0 and 1, such as 0.5")


def smallest(weight: torch.Tensor, share: float) -> torch.Tensor:
    """A mask of `weight`'s shape: its round(share · n) entries of smallest magnitude; of equal ones the first."""
    flat = weight.abs().flatten()
    count = round(share * flat.numel())
    mask = torch.zeros(flat.shape, dtype=torch.bool)
    if count:
        limit = flat.kthvalue(count).values
        mask = flat < limit
        equal = (flat == limit).nonzero().flatten()
        mask[equal[: count - int(mask.sum())]] = True
    return mask.reshape(weight.shape)


def _wanted(name: str, targets: str | Sequence[str]) -> bool:
    named = (targets,) if isinstance(targets, str) else targets
    return targets == ALL_LINEAR or name.rpartition(".")[2] in named


def _weight(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.weight
    return weight


def _pruned(weight: torch.Tensor, share: float) -> int:
    """Prune a weight in place; how many of its entries are zero now."""
    with torch.no_grad():
        weight.masked_fill_(smallest(weight, share), 0.0)
    return int((weight == 0).sum())

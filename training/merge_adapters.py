"""Joining LoRA adapters of one base into one adapter, on their files alone: the base model is not loaded."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.fingerprint import check_adapter, read_json
from models.lora import REFUSED
from training.merge import shares
from warehouse.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
STARTS = (True, False, "gaussian")  # initialisations that leave the base weights as they are


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of an adapter by module, a (r, inputs) and b (outputs, r): the module's weight is W + scale · b a."""

    a: Mapping[str, torch.Tensor]
    b: Mapping[str, torch.Tensor]
    rank: int
    scale: float


def join_adapters(folders: Sequence[Path], base: str, weights: Sequence[float] | None, exact: bool, out: Path) -> None:
    """Write one adapter of several under `out`; `exact`: its update is the weighted sum of theirs (`cat`).

    Otherwise the factors are averaged as peft's `linear` does it: each is the sum of the adapters' own, times the root
    of weight and scale. Raises `InputError` for adapters that are not plain LoRA or, not `exact`, differ in rank.
    """
    adapters = [_read(folder, base) for folder in folders]
    parts = shares(weights, len(adapters))
    if exact:
        rank, join = sum(each.rank for each in adapters), joined
    elif len({each.rank for each in adapters}) == 1:
        rank, join = adapters[0].rank, averaged
    else:
        ranks = ", ".join(str(each.rank) for each in adapters)
        raise InputError(f"the adapters have ranks {ranks}; `linear` averages factors of one rank, use `cat`")
    modules = sorted(set().union(*(each.a for each in adapters)))
    tensors: dict[str, torch.Tensor] = {}
    for module in modules:
        a, b = join(module, adapters, parts)
        tensors |= {f"{module}.lora_A.weight": a.contiguous(), f"{module}.lora_B.weight": b.contiguous()}
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    config = read_json(folders[0] / CONFIG)
    config |= {"r": rank, "lora_alpha": rank, "use_rslora": False, "base_model_name_or_path": base}
    config["target_modules"] = sorted({module.rpartition(".")[2] for module in modules})
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


Join = Callable[[str, Sequence[Factors], Sequence[float]], tuple[torch.Tensor, torch.Tensor]]


def joined(module: str, adapters: Sequence[Factors], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors with b a = Σ weight · scale · b_i a_i: those of the adapters one after the other, with scale 1.

    An adapter that does not adapt the module fills its ranks with zeros.
    """
    known = next(each for each in adapters if module in each.a)
    inputs, outputs = known.a[module].shape[1], known.b[module].shape[0]
    a, b = [], []
    for each, weight in zip(adapters, weights, strict=True):
        a.append(each.a.get(module, torch.zeros(each.rank, inputs)))
        b.append(weight * each.scale * each.b.get(module, torch.zeros(outputs, each.rank)))
    return torch.cat(a), torch.cat(b, 1)


def averaged(module: str, adapters: Sequence[Factors], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """a = Σ s a_i and b = Σ s b_i with s the root of weight · scale, over the adapters that adapt the module."""
    if any(weight < 0 for weight in weights):
        raise InputError(f"`linear` of adapters takes weights of at least 0, not {list(weights)}; use `cat`")
    found = [(each, (weight * each.scale) ** 0.5) for each, weight in zip(adapters, weights, strict=True)]
    mine = [(each, root) for each, root in found if module in each.a]
    a = torch.stack([root * each.a[module] for each, root in mine]).sum(0)
    return a, torch.stack([root * each.b[module] for each, root in mine]).sum(0)


def _read(folder: Path, base: str) -> Factors:
    """The factors of the plain LoRA adapter in `folder`, float32."""
    check_adapter(folder, base)
    config = read_json(folder / CONFIG)
    odd = [name for name in REFUSED if config.get(name)]
    if config.get("init_lora_weights", True) not in STARTS:
        odd.append(f"init_lora_weights={config['init_lora_weights']}")
    tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    a, b = (_named(tensors, f".lora_{letter}.weight") for letter in "AB")
    if config.get("peft_type") != "LORA" or odd or a.keys() != b.keys() or len(a) + len(b) != len(tensors):
        kind = ", ".join(odd) or config.get("peft_type")
        raise InputError(f"{folder} is no plain LoRA adapter ({kind}); merge it by `mean`, `ties` or `dare`")
    rank = int(config["r"])
    return Factors(a, b, rank, _scale(config, rank))


def _scale(config: Mapping[str, Any], rank: int) -> float:
    return float(config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank))


def _named(tensors: Mapping[str, torch.Tensor], ending: str) -> dict[str, torch.Tensor]:
    return {name.removesuffix(ending): tensor for name, tensor in tensors.items() if name.endswith(ending)}

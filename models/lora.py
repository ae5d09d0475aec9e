"""LoRA factors whose gradients LESS compares: fresh ones, or those that a warm-up run left with its Adam state.

A warm-up folder is a checkpoint of Hugging Face's Trainer on a peft model: `adapter_config.json`,
`adapter_model.safetensors`, and `optimizer.pt` with the state of one AdamW over all adapter weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.fingerprint import read_json
from models.local import LocalModel
from warehouse.errors import InputError

UNSAFE: type[Exception] = torch.serialization.pickle.UnpicklingError  # type: ignore[attr-defined]  # what torch raises
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
PREFIX = "base_model.model."
REFUSED = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "trainable_token_indices",
)


@dataclass(frozen=True, slots=True)
class Moments:
    """Adam's running means of a factor's gradient and of its square, before any correction of bias."""

    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True, slots=True)
class Factors:
    """The low-rank pair of one linear module: its weight is W + scale · b a, with a (r, inputs) and b (outputs, r)."""

    module: str
    a: torch.Tensor
    b: torch.Tensor
    scale: float
    moments: tuple[Moments, Moments] | None = None


def fresh_factors(
    model: LocalModel, rank: int = 128, alpha: float = 512, targets: Sequence[str] = ATTENTION, seed: int = 0
) -> list[Factors]:
    """Factors before any training, in the order of modules: a is uniform within 1/√inputs as peft draws it, b is zero.

    Raises `InputError` where no linear module is named by one of `targets`.
    """
    generator = torch.Generator().manual_seed(seed)
    return [_fresh(name, module.weight, rank, alpha, generator) for name, module in _linear(model, targets)]


def _fresh(module: str, weight: torch.Tensor, rank: int, alpha: float, generator: torch.Generator) -> Factors:
    outputs, inputs = weight.shape
    a = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / inputs**0.5
    return Factors(module, a.to(weight.device), torch.zeros(outputs, rank, device=weight.device), alpha / rank)


def _linear(model: LocalModel, targets: Sequence[str]) -> Iterator[tuple[str, torch.nn.Linear]]:
    modules = model.network.named_modules()
    linear = [(name, module) for name, module in modules if isinstance(module, torch.nn.Linear)]
    found = [(name, module) for name, module in linear if name.rpartition(".")[2] in targets]
    if not found:
        known = sorted({name.rpartition(".")[2] for name, _ in linear})
        raise InputError(f"no linear module is named {' or '.join(targets)}; this model has: {', '.join(known)}")
    yield from found


def warm_factors(model: LocalModel, folder: Path) -> list[Factors]:
    """The factors and Adam moments of the warm-up checkpoint in `folder`, in the order of the model's modules.

    `model` is the warmed-up model: `LocalModel.load(base, adapter=folder)`. Raises `InputError` where a file is
    missing or cannot be read, for adapters other than plain LoRA, and for an optimizer that trained other weights.
    """
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or (odd := [name for name in REFUSED if config.get(name)]):
        kind = config.get("peft_type") if config.get("peft_type") != "LORA" else ", ".join(odd)
        raise InputError(f"{folder} holds an adapter with {kind}; the warm-up must train plain LoRA")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    weights = _read(folder / "adapter_model.safetensors", load_file)
    names = [name for name, _ in model.network.named_modules() if f"{PREFIX}{name}.lora_A.weight" in weights]
    keys = [f"{PREFIX}{name}.lora_{letter}.weight" for name in names for letter in "AB"]
    if sorted(keys) != sorted(weights):
        raise InputError(f"{folder} adapts modules that the model does not have; it belongs to another base model")
    moments = _moments(folder / "optimizer.pt", [weights[key].shape for key in keys])
    device = model.network.device
    placed = [weights[key].float().to(device) for key in keys]
    states = [Moments(each.first.to(device), each.second.to(device)) for each in moments]
    return [
        Factors(name, placed[2 * i], placed[2 * i + 1], scale, (states[2 * i], states[2 * i + 1]))
        for i, name in enumerate(names)
    ]


def _moments(path: Path, shapes: Sequence[torch.Size]) -> list[Moments]:
    """Adam's moments in the order in which Trainer hands over its weights: that of modules, a before b."""
    saved = _read(path, lambda file: torch.load(file, map_location="cpu", weights_only=True))
    order = [index for group in saved["param_groups"] for index in group["params"]]
    states = [saved["state"].get(index, {}) for index in order]
    if [getattr(state.get("exp_avg"), "shape", None) for state in states] != list(shapes):
        raise InputError(
            f"{path} holds Adam moments of {len(order)} weights that are not those of the adapter beside it "
            f"({len(shapes)}); save both in the same step, with AdamW and no other trained weights"
        )
    return [Moments(state["exp_avg"].float(), state["exp_avg_sq"].float()) for state in states]


def _read(path: Path, load: Any) -> Any:
    try:
        return load(path)
    except UNSAFE as error:  # whose own advice is to trust the file
        raise InputError(f"{path} is no file of tensors and numbers alone, so reading it could run code") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); a warm-up folder holds adapter_config.json, adapter_model.safetensors "
            "and optimizer.pt, as Trainer saves them at the end of an epoch"
        ) from error

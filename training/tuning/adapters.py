"""Adapters of peft: few weights beside the model's own, which stay as they are."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from training.tuning.anatomy import ALL_LINEAR, Anatomy, Targets
from training.tuning.fitting import anatomy_of
from training.tuning.protocol import Setting
from training.tuning.whole import Whole
from warehouse.errors import InputError

RANGES: Mapping[str, tuple[float, float]] = {
    "rank": (1, 4096),
    "alpha": (1, 1 << 16),
    "dropout": (0.0, 0.99),
    "rho": (1.0, 100.0),
    "iterations": (0, 64),
}


class Adapter(Whole):
    """The base of tunings that write a peft adapter, with the base model recorded in it."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            if isinstance(found := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(found))  # a recipe gives a list
            low, high = RANGES.get(field.name, (None, None))
            if low is not None and high is not None and not low <= found <= high:
                raise InputError(f"tuning {self.NAME!r}: {field.name} is {found}; expected {low:g} to {high:g}")

    def write(self, network: Any, base: str, out: Path) -> None:
        save_adapter(network.active_peft_config, weights_of(network), base, out)


def adapted(network: Any, config: Any) -> Any:
    """The network with a fresh adapter. Raises `InputError` for one that does not fit."""
    from peft import get_peft_model

    known = anatomy_of(network).names  # where peft gives up half way, modules have other names
    try:
        return get_peft_model(network, config)
    except ValueError as error:
        raise InputError(
            f"the adapter does not fit the model: {str(error).rstrip('.')}; its linear modules are {known}"
        ) from error


def weights_of(network: Any) -> dict[str, Any]:
    """The adapter's own weights, by the names that they have on disk."""
    from peft import get_peft_model_state_dict

    # "auto" would ask the hub whether the base's vocabulary was changed
    found: dict[str, Any] = get_peft_model_state_dict(network, save_embedding_layers=False)
    return found


def save_adapter(config: Any, weights: Mapping[str, Any], base: str, out: Path) -> None:
    """Write an adapter, its base recorded, in the same bytes each time."""
    from safetensors.torch import save_file

    config = copy.copy(config)
    config.base_model_name_or_path, config.inference_mode = base, True
    for field in fields(config):
        if isinstance(found := getattr(config, field.name), set):  # written in another order by each process
            setattr(config, field.name, sorted(found))
    config.save_pretrained(str(out))
    whole = {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}
    save_file(whole, out / "adapter_model.safetensors", {"format": "pt"})


def as_given(targets: Targets) -> str | list[str]:
    """Targets as peft takes them."""
    return targets if isinstance(targets, str) else list(targets)


@dataclass(frozen=True, slots=True)
class Lora(Adapter):
    """LoRA (Hu et al. 2022): every target weight W becomes W + alpha/rank · B A, with A random and B zero at first.

    targets  names of linear modules, or "all-linear" for all of them but the head
    """

    NAME: ClassVar[str] = "lora"

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: Targets = ALL_LINEAR

    def check(self, model: Anatomy) -> None:
        model.targeted(self.targets)

    def prepare(self, network: Any, setting: Setting) -> Any:
        return adapted(network, self.config(self.options()))

    def options(self) -> dict[str, Any]:
        """What a relative of LoRA changes in peft's configuration."""
        return {}

    def config(self, options: Mapping[str, Any]) -> Any:
        """peft's configuration."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=as_given(self.targets),
            task_type="CAUSAL_LM",
            **options,
        )


@dataclass(frozen=True, slots=True)
class RsLora(Lora):
    """LoRA scaled by alpha/√rank, which keeps the size of updates as the rank grows (Kalajdzievski 2023)."""

    NAME: ClassVar[str] = "rslora"

    alpha: int = 16

    def options(self) -> dict[str, Any]:
        return {"use_rslora": True}


@dataclass(frozen=True, slots=True)
class Dora(Lora):
    """DoRA (Liu et al. 2024): the norm of every output's weights is learnt apart from their direction, a LoRA."""

    NAME: ClassVar[str] = "dora"

    def options(self) -> dict[str, Any]:
        return {"use_dora": True}


@dataclass(frozen=True, slots=True)
class TakenOut(Lora):
    """The base of tunings whose first factors are taken out of the weights, so that training begins where they point.

    What is written is a plain LoRA of twice the rank, the trained factors beside the first ones taken away: it goes on
    an untouched base and needs no decomposition when it is loaded.
    """

    alpha: int = 16

    def check(self, model: Anatomy) -> None:
        for name, shape in model.targeted(self.targets).items():
            if (found := min(shape)) < self.rank:
                raise InputError(
                    f"tuning {self.NAME!r}: rank is {self.rank}, but {name} has {found} directions; give at most "
                    f"{found}, or other targets"
                )

    def prepare(self, network: Any, setting: Setting) -> Any:
        wrapped = adapted(network, self.config(self.options()))
        wrapped.first_factors = {name: weight.detach().clone() for name, weight in weights_of(wrapped).items()}
        return wrapped

    def write(self, network: Any, base: str, out: Path) -> None:
        import torch

        config = copy.copy(network.active_peft_config)
        config.r, config.lora_alpha, config.init_lora_weights = 2 * config.r, 2 * config.lora_alpha, True
        both = {}
        for name, trained in weights_of(network).items():
            first = network.first_factors[name].to(trained.device)
            both[name] = torch.cat([trained, first]) if "lora_A" in name else torch.cat([trained, -first], dim=1)
        save_adapter(config, both, base, out)


@dataclass(frozen=True, slots=True)
class Pissa(TakenOut):
    """PiSSA (Meng et al. 2024): A and B begin as the largest singular directions of W, which W is relieved of.

    iterations  of the quick decomposition for large models (the paper's "fast SVD"); 0 decomposes exactly
    """

    NAME: ClassVar[str] = "pissa"

    iterations: int = 0

    def options(self) -> dict[str, Any]:
        return {"init_lora_weights": f"pissa_niter_{self.iterations}" if self.iterations else "pissa"}


@dataclass(frozen=True, slots=True)
class OLora(TakenOut):
    """OLoRA (Büyükakyüz 2024): A and B begin as the first columns and rows of W's QR decomposition, taken from W."""

    NAME: ClassVar[str] = "olora"

    def options(self) -> dict[str, Any]:
        return {"init_lora_weights": "olora"}


@dataclass(frozen=True, slots=True)
class Ia3(Adapter):
    """(IA)³ (Liu et al. 2022): a factor for every output of `targets`, and for every input of those in `feedforward`.

    Some thousand weights in all; it needs a rate ten times that of LoRA.
    """

    NAME: ClassVar[str] = "ia3"

    targets: tuple[str, ...] = ("k_proj", "v_proj", "down_proj")
    feedforward: tuple[str, ...] = ("down_proj",)

    def __post_init__(self) -> None:
        Adapter.__post_init__(self)
        if absent := [name for name in self.feedforward if name not in self.targets]:
            raise InputError(
                f"tuning 'ia3': every name in feedforward must be in targets; found {', '.join(absent)} in feedforward "
                "alone"
            )

    def check(self, model: Anatomy) -> None:
        model.targeted(self.targets)

    def prepare(self, network: Any, setting: Setting) -> Any:
        from peft import IA3Config

        config = IA3Config(
            target_modules=list(self.targets), feedforward_modules=list(self.feedforward), task_type="CAUSAL_LM"
        )
        return adapted(network, config)

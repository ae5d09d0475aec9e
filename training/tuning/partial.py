"""Tunings that move part of the weights at a time, or all of them without AdamW. All write whole weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from training.tuning.anatomy import Anatomy
from training.tuning.protocol import Setting
from training.tuning.whole import Whole
from warehouse.errors import InputError


class Partial(Whole):
    """The base of tunings whose numbers must lie in `RANGES`."""

    __slots__ = ()
    RANGES: ClassVar[Mapping[str, tuple[float, float]]]

    def __post_init__(self) -> None:
        for name, (low, high) in self.RANGES.items():
            if not low <= (found := getattr(self, name)) <= high:
                raise InputError(f"{self.NAME}: {name} is {found}; expected {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Hft(Partial):
    """Half fine-tuning (Hui et al. 2024): half of each kind of matrix and norm in each layer stays as it was.

    The halves are drawn from the seed of the run; embeddings, head and last norm are trained.

    round  another number draws other halves, for a stage that continues an earlier one with the same seed
    """

    NAME: ClassVar[str] = "hft"
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {"round": (0, 1 << 31)}

    round: int = 0

    def prepare(self, network: Any, setting: Setting) -> Any:
        from training.tuning.halves import freeze_half

        freeze_half(network, setting.seed, self.round)
        return network


@dataclass(frozen=True, slots=True)
class Lisa(Partial):
    """LISA (Pan et al. 2024): a few layers at a time, drawn anew every `interval` steps; the rest is frozen meanwhile.

    layers    decoder layers that train at once; embeddings, head and last norm always do
    interval  optimizer steps until other layers are drawn
    """

    NAME: ClassVar[str] = "lisa"
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {"layers": (1, 1 << 16), "interval": (1, 1 << 31)}

    layers: int = 2
    interval: int = 20

    def check(self, model: Anatomy) -> None:
        if model.layers is not None and self.layers > model.layers:
            raise InputError(
                f"lisa: layers is {self.layers}, but the model has {model.layers}; give fewer, or tune it with full"
            )

    def arguments(self) -> dict[str, Any]:
        return {"ddp_find_unused_parameters": True}  # several processes would wait for gradients of frozen layers

    def callbacks(self, setting: Setting) -> list[Any]:
        from training.tuning.alternation import Alternation
        from training.tuning.sharding import Unsharded

        return [Unsharded(self.NAME), Alternation(self.layers, self.interval, setting.seed)]


@dataclass(frozen=True, slots=True)
class S2ft(Partial):
    """S²FT (Yang et al. 2024): a few channels of each feed-forward block, and heads where asked; nothing else moves.

    Only the matrices that end the two blocks have trained columns. They are drawn from the seed of the run.

    ratio  share of the feed-forward channels of each layer
    heads  share of the attention heads of each layer
    """

    NAME: ClassVar[str] = "s2ft"
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {"ratio": (0.0, 1.0), "heads": (0.0, 1.0)}

    ratio: float = 0.03
    heads: float = 0.0

    def __post_init__(self) -> None:
        Partial.__post_init__(self)
        if not self.ratio and not self.heads:
            raise InputError("s2ft: ratio and heads are both 0, so nothing would be trained; give one of them a share")

    def prepare(self, network: Any, setting: Setting) -> Any:
        from training.tuning.channels import choose, confine

        confine(network, choose(network, self.ratio, self.heads, setting.seed))
        return network

    def callbacks(self, setting: Setting) -> list[Any]:
        from training.tuning.channels import ColumnDecay
        from training.tuning.sharding import Unsharded

        return [Unsharded(self.NAME), ColumnDecay(self.ratio, self.heads, setting.seed)]


@dataclass(frozen=True, slots=True)
class Galore(Partial):
    """GaLore (Zhao et al. 2024): every weight is trained, with AdamW's moments in a low-rank space of its gradient.

    rank   of that space, for each matrix of the layers; embeddings, head and norms have AdamW's own moments
    gap    optimizer steps until the space is found anew from a gradient
    scale  factor on the steps of the matrices
    """

    NAME: ClassVar[str] = "galore"
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {
        "rank": (1, 1 << 16),
        "gap": (1, 1 << 31),
        "scale": (1e-6, 1e6),
    }

    rank: int = 128
    gap: int = 200
    scale: float = 0.25

    def callbacks(self, setting: Setting) -> list[Any]:
        from training.tuning.sharding import Unsharded

        return [Unsharded(self.NAME)]

    def optimizer(self, network: Any, setting: Setting) -> tuple[type, dict[str, Any]] | None:
        from training.tuning.blocks import matrices_of
        from training.tuning.lowrank import LowRankAdamW

        given = {"matrices": matrices_of(network), "rank": self.rank, "gap": self.gap, "scale": self.scale}
        return LowRankAdamW, given


@dataclass(frozen=True, slots=True)
class Mezo(Partial):
    """MeZO (Malladi et al. 2023), experimental: every weight is trained from two losses a step, without gradients.

    Products are made in float32: the difference of the two losses is lost in the rounding of bfloat16.

    eps  length of the step to either side at which the losses are taken, per weight
    """

    NAME: ClassVar[str] = "mezo"
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {"eps": (1e-6, 1.0)}

    eps: float = 1e-3

    def arguments(self) -> dict[str, Any]:
        return {"bf16": False, "gradient_checkpointing": False}

    def callbacks(self, setting: Setting) -> list[Any]:
        from training.tuning.sharding import Unsharded

        return [Unsharded(self.NAME)]

    def optimizer(self, network: Any, setting: Setting) -> tuple[type, dict[str, Any]] | None:
        from training.tuning.zeroth import ZerothOrder

        return ZerothOrder, {"eps": self.eps, "seed": setting.seed}

    def step(self, trainer: Any, model: Any, inputs: dict[str, Any], labels: Any) -> Any:
        from training.tuning.zeroth import probe_batch

        return probe_batch(trainer, model, inputs, labels)

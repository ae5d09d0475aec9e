"""Adapters that move single entries of the weights, chosen before training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from training.tuning.adapters import Adapter, adapted, as_given
from training.tuning.anatomy import ALL_LINEAR, Anatomy, Targets
from training.tuning.protocol import Setting
from warehouse.errors import InputError

Choice = Callable[[Any, int], Any]
"""Of a weight (m, n), which k entries move: a mask of its shape, of its type."""


@dataclass(frozen=True, slots=True)
class Shira(Adapter):
    """SHiRA (Bhardwaj et al. 2024): r(m + n) entries of every target weight (m, n) move, drawn at random by the seed.

    That is as many as a LoRA of rank r has. The update has a high rank, is merged at no cost and can be taken out
    again.
    """

    NAME: ClassVar[str] = "shira"

    rank: int = 16
    targets: Targets = ALL_LINEAR

    def check(self, model: Anatomy) -> None:
        for name, (m, n) in model.targeted(self.targets).items():
            if (moved := self.rank * (m + n)) > m * n:
                raise InputError(
                    f"tuning {self.NAME!r}: rank is {self.rank}, which moves {moved:,} entries, but {name} has "
                    f"{m * n:,}; give a rank of at most {m * n // (m + n)}, or other targets"
                )

    def prepare(self, network: Any, setting: Setting) -> Any:
        from peft import ShiraConfig

        config: Any = ShiraConfig(r=self.rank, target_modules=as_given(self.targets), task_type="CAUSAL_LM")
        config.mask_fn = _Mask(self.choice(setting.seed))
        return adapted(network, config)

    def choice(self, seed: int) -> Choice:
        """What chooses the entries."""
        return _AtRandom(seed)


@dataclass(frozen=True, slots=True)
class Lift(Shira):
    """LIFT (Liu et al. 2025): the entries that are largest in the weight's approximation of rank r move.

    They are chosen once, before training; the paper chooses them again from time to time.

    iterations  of the quick decomposition for large models, whose start the seed draws; 0 decomposes exactly
    """

    NAME: ClassVar[str] = "lift"

    iterations: int = 0

    def choice(self, seed: int) -> Choice:
        return _Principal(self.rank, self.iterations, seed)


class _Mask:
    """A choice as peft asks for it."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    def __call__(self, layer: Any, r: int, **_: Any) -> Any:
        weight = layer.weight.detach()
        return self.choice(weight, r * sum(weight.shape))


class _AtRandom:
    """k entries drawn anew for every weight it is asked about."""

    def __init__(self, seed: int) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, weight: Any, k: int) -> Any:
        import torch

        drawn = torch.randperm(weight.numel(), generator=self.generator)[:k]
        return _mask(weight, drawn)


class _Principal:
    """The k largest entries of the approximation of rank `rank`."""

    def __init__(self, rank: int, iterations: int, seed: int) -> None:
        self.rank, self.iterations, self.seed = rank, iterations, seed

    def __call__(self, weight: Any, k: int) -> Any:
        import torch

        if self.iterations:
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                more = min(2 * self.rank, *weight.shape)  # directions than are kept make those exact
                u, s, v = torch.svd_lowrank(weight.float(), more, self.iterations)
                v = v.mT
        else:
            u, s, v = torch.linalg.svd(weight.float(), full_matrices=False)
        near = (u[:, : self.rank] * s[: self.rank]) @ v[: self.rank]
        return _mask(weight, torch.topk(near.abs().flatten(), k).indices)


def _mask(weight: Any, entries: Any) -> Any:
    mask = weight.new_zeros(weight.numel())
    mask[entries.to(weight.device)] = 1
    return mask.view_as(weight)

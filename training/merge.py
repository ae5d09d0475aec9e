"""Merging checkpoints of one base model into one: the ways to do it, by name.

Whole weights are merged tensor by tensor (`training.merge_files`). `cat` and `linear` make an adapter of LoRA adapters
(`training.merge_adapters`); by every other way adapters are merged into their base first.

Imports no torch: it loads when a merge starts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, get_type_hints
from zlib import crc32

from training.kinds import check_kinds
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Spec, digest

if TYPE_CHECKING:
    import torch

    Deltas = Callable[[int], Iterator[tuple[str, torch.Tensor]]]
    Combine = Callable[[str, Sequence[torch.Tensor]], torch.Tensor]

Then = Literal["mean", "ties"]


class Merge(Protocol):
    """A frozen dataclass of what a merge is asked with.

    `combine` is told how many models there are, how to walk through the task vectors of each (by its number), and a
    seed; it returns what gives the merged task vector of one weight, by its name and those of the models.
    """

    @property
    def spec(self) -> Spec: ...

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine": ...


class _Way:
    __slots__ = ()
    NAME: ClassVar[str]

    @property
    def spec(self) -> Spec:
        """Rebuilds it: `MERGES[name](**params)`."""
        params = asdict(self)  # type: ignore[call-overload]  # every subclass is a dataclass
        return Spec(self.NAME, {name: list(v) if isinstance(v, tuple) else v for name, v in params.items()})


@dataclass(frozen=True, slots=True)
class Mean(_Way):
    """The mean of the weights (model soups, Wortsman et al. 2022)."""

    NAME: ClassVar[str] = "mean"

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine":
        return Linear().combine(count, deltas, seed)


@dataclass(frozen=True, slots=True)
class Linear(_Way):
    """The base plus the weighted sum of what each model changed (task arithmetic, Ilharco et al. 2023).

    weights  one per model; 1/n each where not given

    Of LoRA adapters it averages the two factors, A and B, each by itself, and keeps their rank. That is not the mean
    of what the adapters change: B A of the means is not the mean of the B A. `cat` is.
    """

    NAME: ClassVar[str] = "linear"

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))  # a recipe gives a list

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine":
        from training.task_vectors import linear

        weights = shares(self.weights, count)
        return lambda name, parts: linear(parts, weights)


@dataclass(frozen=True, slots=True)
class Cat(_Way):
    """Of LoRA adapters, one whose update is exactly the weighted sum of theirs; its rank is the sum of their ranks.

    weights  one per adapter; 1/n each where not given, which is the mean
    """

    NAME: ClassVar[str] = "cat"

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine":
        raise InputError("`cat` joins LoRA adapters, and some of these checkpoints are none; merge them by `mean`")


@dataclass(frozen=True, slots=True)
class Ties(_Way):
    """TIES (Yadav et al. 2023): trim each model's changes, elect a sign for each weight, average those that agree.

    density  share of a model's changes that trimming leaves, the largest ones of the whole model
    scale    factor of the merged changes (λ in the paper)
    """

    NAME: ClassVar[str] = "ties"

    density: float = 0.2
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self.NAME, "density", self.density, 0 < self.density <= 1, "above 0, up to 1")
        _check(self.NAME, "scale", self.scale, self.scale > 0, "above 0")

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine":
        from training.task_vectors import threshold, ties

        def parts(model: int) -> "Iterator[torch.Tensor]":
            return (delta for _, delta in deltas(model))

        least = [threshold(partial(parts, model), self.density) for model in range(count)]
        return lambda name, found: self.scale * ties(found, least)


@dataclass(frozen=True, slots=True)
class Dare(_Way):
    """DARE (Yu et al. 2024): drop each change with a probability, enlarge the others to match, then merge.

    drop     the probability
    then     "mean", or "ties" with `density` and scale 1
    """

    NAME: ClassVar[str] = "dare"

    drop: float = 0.9
    then: Then = "mean"
    density: float = 0.2

    def __post_init__(self) -> None:
        _check(self.NAME, "drop", self.drop, 0 <= self.drop < 1, "0 to below 1")
        _check(self.NAME, "density", self.density, 0 < self.density <= 1, "above 0, up to 1")
        _check(self.NAME, "then", self.then, self.then in get_args(Then), " or ".join(get_args(Then)))

    def combine(self, count: int, deltas: "Deltas", seed: int) -> "Combine":
        def thinned(model: int) -> "Iterator[tuple[str, torch.Tensor]]":
            return ((name, self._dropped(name, delta, model, seed)) for name, delta in deltas(model))

        way = Mean() if self.then == "mean" else Ties(self.density)
        merged = way.combine(count, thinned, seed)
        return lambda name, parts: merged(name, [self._dropped(name, d, i, seed) for i, d in enumerate(parts)])

    def _dropped(self, name: str, delta: "torch.Tensor", model: int, seed: int) -> "torch.Tensor":
        """What is left of one weight's changes; a function of seed, model and name, so it can be asked for again."""
        import torch

        from training.task_vectors import dropped

        generator = torch.Generator().manual_seed(crc32(f"{seed} {model} {name}".encode()))
        return dropped(delta, self.drop, generator)


MERGES: dict[str, Callable[..., Merge]] = {"mean": Mean, "linear": Linear, "ties": Ties, "dare": Dare, "cat": Cat}


def merge_of(name: str, params: Mapping[str, Any]) -> Merge:
    """The merge that a recipe names. Raises `InputError` for an unknown name or parameter, listing the known ones."""
    if name not in MERGES:
        raise InputError(f"unknown merge {name!r}; known merges: {', '.join(MERGES)}")
    known = {param: kind for param, kind in get_type_hints(MERGES[name]).items() if param.islower()}
    if unknown := set(params) - known.keys():
        raise InputError(
            f"merge {name!r} has no parameter {', '.join(sorted(unknown))}; known: {', '.join(sorted(known)) or 'none'}"
        )
    check_kinds(f"merge {name!r}", known, params)
    return MERGES[name](**params)


def shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """One weight per model: as given, else 1/n each. Raises `InputError` where their number is another."""
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise InputError(f"{len(weights)} weights were given for {count} checkpoints; give one each")
    return list(weights)


def merge(
    how: Merge, checkpoints: Sequence[Checkpoint], out: Path, seed: int = 0, trust_remote_code: bool = False
) -> Checkpoint:
    """Merge checkpoints of one base model and write the result, which loads as any checkpoint does, under `out`.

    Written: whole weights (or a LoRA adapter, of LoRA adapters by `cat` or `linear`), tokenizer and template of the
    first, and `merged.json`. The seed matters to `dare` alone. Raises `InputError` for less than two checkpoints,
    for different bases, and for weights of different names or shapes.
    """
    from models.fingerprint import fingerprint

    if len(checkpoints) < 2:
        raise InputError(f"{len(checkpoints)} checkpoint was given to merge; give at least 2 of one base model")
    bases = {fingerprint(checkpoint.base): checkpoint.base for checkpoint in checkpoints}
    if len(bases) > 1:
        raise InputError(
            f"the checkpoints were trained on different base models ({', '.join(bases.values())}); only what was "
            "changed in the same weights can be merged"
        )
    from training.merge_files import write_merged

    write_merged(how, checkpoints, out, seed, trust_remote_code)
    data = digest("\n".join(checkpoint.data_key for checkpoint in checkpoints))
    return Checkpoint(out, checkpoints[0].base, how.spec, data, seed)


def _check(way: str, name: str, value: Any, right: bool, expected: str) -> None:
    if not right:
        raise InputError(f"merge {way!r}: {name} is {value!r}; give {expected}")

"""Keys and values of tokens that were run, kept with room behind them: a token that follows is written, nothing copied.

transformers' own cache copies all keys and values for every token that is added, and for every row that leaves: on a
processor most of the work of a step.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

GROWTH = 32  # tokens that room is made for at once
HELD = 8  # tokens of keys and values that take the memory of a token that is computed


def held(fresh: int, length: int) -> int:
    """What a row takes of a batch's tokens that computes `fresh` tokens at once, and keeps the keys and values of
    `length`, which are smaller."""
    return max(fresh, length // HELD)


class Roomy(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer's keys and values, (n, heads, tokens, d) each, at the beginning of a larger space."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, spaces: Sequence[torch.Tensor], n: int, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(*spaces)
        self.spaces = list(spaces)
        self.show(n, tokens)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, _, seen, _ = self.keys.shape
        stop = seen + key_states.shape[-2]
        if stop > self.spaces[0].shape[-2]:
            self.spaces = [_space(part, n, stop - seen + GROWTH) for part in (self.keys, self.values)]
        for space, fresh in zip(self.spaces, (key_states, value_states), strict=True):
            space[:n, :, seen:stop] = fresh
        self.show(n, stop)
        return self.keys, self.values

    def keep(self, rows: Sequence[int]) -> None:
        """Only `rows` stay, in that order; those that keep their place are not touched."""
        moved = [(place, row) for place, row in enumerate(rows) if place != row]
        if moved:
            places, sources = torch.tensor(moved, device=self.device).unbind(-1)
            seen = self.keys.shape[-2]
            for space in self.spaces:
                space[places, :, :seen] = space[sources, :, :seen]
        self.show(len(rows), self.keys.shape[-2])

    def show(self, n: int, tokens: int) -> None:
        """The first n rows and `tokens` of the space are keys and values; the rest is room."""
        self.keys, self.values = (space[:n, :, :tokens] for space in self.spaces)


@dataclass(slots=True)
class Space:
    """Room for the keys and values of n rows, `tokens` each, of one layer; taken when the first of them come."""

    n: int
    tokens: int
    parts: list[torch.Tensor] = field(default_factory=list)

    def write(self, fresh: Sequence[torch.Tensor], first: int, end: int) -> list[torch.Tensor]:
        """The `fresh` keys and values of rows from `first` on, the last of them at `end`, and zeros before them."""
        self.parts = self.parts or [p.new_empty(self.n, p.shape[1], self.tokens, p.shape[-1]) for p in fresh]
        rows, begin = slice(first, first + len(fresh[0])), end - fresh[0].shape[-2]
        for part, each in zip(self.parts, fresh, strict=True):
            part[rows, :, :begin] = 0
            part[rows, :, begin:end] = each
        return [part[rows, :, begin:end] for part in self.parts]


class Written(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of some rows that are run once, whose keys and values go into a space for more rows than these."""

    def __init__(self, space: Space, first: int, end: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.space, self.first, self.end = space, first, end

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self.space.write([key_states, value_states], self.first, self.end)
        return key_states, value_states


def _space(part: torch.Tensor, n: int, room: int) -> torch.Tensor:
    """`part` with room for so many tokens behind it; a single row becomes n."""
    _, heads, seen, d = part.shape
    space = part.new_empty(n, heads, seen + room, d)
    space[:, :, :seen] = part
    return space


def keeps_all(cache: Any) -> bool:
    """Whether every layer keeps all keys and values, so that what follows may be of any length."""
    return all(type(layer) in (DynamicLayer, Roomy) for layer in getattr(cache, "layers", [None]))


def fork(cache: Any, owners: torch.Tensor | None = None, room: int = GROWTH) -> Any:
    """A cache to be written on, with a copy of the keys and values of each of `owners`, by default of every row.

    Layers of other kinds (a window of attention, states) stay what they are.
    """
    forked = copy(cache)
    if hasattr(cache, "layers"):
        forked.layers = [_forked(layer, owners, room) for layer in cache.layers]
    elif owners is not None:
        forked.reorder_cache(owners)
    return forked


def _forked(layer: Any, owners: torch.Tensor | None, room: int) -> Any:
    if type(layer) in (DynamicLayer, Roomy) and layer.is_initialized:
        if owners is None or len(layer.keys) == 1:
            n, parts = len(layer.keys) if owners is None else len(owners), (layer.keys, layer.values)
        else:
            n, parts = len(owners), (layer.keys[owners], layer.values[owners])
        return Roomy([_space(part, n, room) for part in parts], n, layer.keys.shape[-2])
    forked = copy(layer)
    if owners is not None:
        forked.reorder_cache(owners)
    return forked


def spaces(network: Any, n: int, tokens: int) -> list[Space]:
    """Room for n rows of `tokens`, a space for each layer; none where some layer of `network` does not keep all."""
    cache = DynamicCache(config=network.config)
    return [Space(n, tokens) for _ in cache.layers] if keeps_all(cache) else []


def cache_of(layers: Sequence[DynamicLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def keep(cache: Any, rows: Sequence[int], device: torch.device) -> None:
    """Only `rows` of the cache stay, in that order."""
    kept = torch.tensor(rows, dtype=torch.int64, device=device)
    if not hasattr(cache, "layers"):
        cache.reorder_cache(kept)
        return
    for layer in cache.layers:
        layer.keep(rows) if isinstance(layer, Roomy) else layer.reorder_cache(kept)

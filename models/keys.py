"""Keys and values of tokens that were run, kept with room behind them: a token that follows is written, nothing copied.

transformers' own cache copies all keys and values for every token that is added, and for every row that leaves: on a
processor most of the work of a step.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

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

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, n: int, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.spaces = [_space(part, n, room) for part in (keys, values)]
        self.show(n, keys.shape[-2])

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
            return Roomy(layer.keys, layer.values, len(layer.keys) if owners is None else len(owners), room)
        return Roomy(layer.keys[owners], layer.values[owners], len(owners), room)
    forked = copy(layer)
    if owners is not None:
        forked.reorder_cache(owners)
    return forked


def join(caches: Sequence[Any]) -> Any:
    """One cache of the rows of all, each row's keys and values at the end; what is before them is 0, and masked.

    Every layer of every cache must keep all keys and values.
    """
    joined = copy(caches[0])
    joined.layers = [_joined(layers) for layers in zip(*(cache.layers for cache in caches), strict=True)]
    return joined


def _joined(layers: Sequence[Any]) -> Roomy:
    counts = [len(layer.keys) for layer in layers]
    longest = max(layer.get_seq_length() for layer in layers)
    joined = Roomy(layers[0].keys[:1, :, :0], layers[0].values[:1, :, :0], sum(counts), longest + GROWTH)
    for k, space in enumerate(joined.spaces):
        for own, layer in zip(torch.split(space, counts), layers, strict=True):
            part = (layer.keys, layer.values)[k]
            before = longest - part.shape[-2]
            own[:, :, :before] = 0
            own[:, :, before:longest] = part
    joined.show(sum(counts), longest)
    return joined


def keep(cache: Any, rows: Sequence[int], device: torch.device) -> None:
    """Only `rows` of the cache stay, in that order."""
    kept = torch.tensor(rows, dtype=torch.int64, device=device)
    if not hasattr(cache, "layers"):
        cache.reorder_cache(kept)
        return
    for layer in cache.layers:
        layer.keep(rows) if isinstance(layer, Roomy) else layer.reorder_cache(kept)

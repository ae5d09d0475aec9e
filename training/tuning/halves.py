"""Half fine-tuning: in every layer half of each kind of module is trained, and the other half stays as it was."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from training.tuning.blocks import KINDS, kinds_of, layers_of


def freeze_half(network: Any, seed: int, stage: int) -> None:
    """Freeze half of the modules of each kind in each layer (Hui et al. 2024, §3: the selection by category).

    Of four attention matrices two are trained, of two norms one; of three feed-forward matrices two in one half of the
    layers and one in the other half. Embeddings, head and the last norm are trained. Another `stage` is another draw.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, crc32(b"halves"), stage]))
    kinds = [kinds_of(layer) for layer in layers_of(network)]
    for kind in KINDS:
        takes_more = rng.permutation(len(kinds)) % 2 == 1  # half of the layers, for kinds of an odd number of modules
        for more, layer in zip(takes_more, kinds, strict=True):
            modules = layer[kind]
            sizes = [sum(parameter.numel() for parameter in module.parameters(recurse=False)) for module in modules]
            trained = set(half(sizes, bool(more), rng))
            for number, module in enumerate(modules):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(number in trained)


def half(sizes: Sequence[int], more: bool, rng: np.random.Generator) -> list[int]:
    """Positions of half of the modules, of an odd number the larger half with `more`.

    Modules are paired with one of their own size, in random pairs, and one of each pair is taken: with modules of one
    size all halves are equally likely, and with grouped queries (large q and o, small k and v) the half of the modules
    is also half of the parameters.
    """
    order = sorted(rng.permutation(len(sizes)).tolist(), key=sizes.__getitem__)  # stable: equal sizes stay shuffled
    taken = [pair[rng.integers(2)] for pair in zip(order[::2], order[1::2], strict=False)]
    return taken + (order[-1:] if more and len(sizes) % 2 else [])

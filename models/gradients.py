"""Gradients of LoRA factors, one vector per row, as LESS compares them (Xia et al. 2024, §3 and §4).

No adapter takes part in the passes: the gradients of a module's factors follow from its input x and the gradient g of
its output, ∂a = scale · Σ_t (bᵀ g_t) x_tᵀ and ∂b = scale · Σ_t g_t (a x_t)ᵀ, so one backward pass through the merged
network gives those of all rows of a batch, and no gradient of a weight is made.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from models.chat import Tokens
from models.forward import backbone, batches, pad
from models.head import CHUNK_LOGITS, Head
from models.local import LocalModel
from models.lora import Factors, Moments
from warehouse.records import Messages

DIMS = 8192
KEPT = 8  # a backward pass keeps the activations of all layers: many times what a forward pass holds
Take = Callable[[str, torch.Tensor], None]
"""Is handed the gradients (n, ...) of one factor by its name, for the rows of a batch."""


def gradients(
    model: LocalModel,
    factors: Sequence[Factors],
    rows: Sequence[Messages],
    *,
    adam: bool,
    dims: int = DIMS,
    seed: int = 0,
    half: bool = True,
) -> NDArray[np.float16] | NDArray[np.float32]:
    """(n, p) of unit length, float16 or with `half` False float32: each row's gradient, projected at random.

    The loss is a row's mean over its reply tokens; rows without one are zero. With `adam` the gradient is the step that
    Adam would take from the factors' moments, for rows of a pool; without, plain, for targets. p is `dims`, or the
    number of the factors' weights where that is less (then nothing is projected). Equal `seed`, equal projection.
    """
    if adam and any(each.moments is None for each in factors):
        raise ValueError("Adam's step needs factors with moments: read them with `warm_factors`")
    sketch = Sketch.of(factors, dims, seed, str(model.network.device))
    tokens = model.encode(rows)
    found = np.zeros((len(rows), sketch.width), np.float16 if half else np.float32)
    answered = [i for i, t in enumerate(tokens) if t.reply[1:].any()]
    budget = max(1, model.batch_tokens // KEPT)
    for batch in batches([len(tokens[i].ids) for i in answered], budget):
        numbers = [answered[i] for i in batch]
        found[numbers] = _projected(model, factors, [tokens[i] for i in numbers], sketch, adam)
        model.tokens_processed += sum(len(tokens[i].ids) for i in numbers)
    return found


def adam_step(gradient: torch.Tensor, moments: Moments) -> torch.Tensor:
    """m' / √(v' + 1e-8) with m' = .9 m + .1 g and v' = .999 v + .001 g²: no correction of bias, as in LESS's code."""
    first = 0.9 * moments.first + 0.1 * gradient
    return first / (0.999 * moments.second + 0.001 * gradient.square() + 1e-8).sqrt()


@dataclass(slots=True)
class Sketch:
    """A random projection that keeps inner products on average: each coordinate goes to one of `width` places with a

    random sign. Its error is that of a dense Rademacher matrix (variance at most (|x|² |y|² + <x, y>²) / width) at the
    cost of one addition per coordinate. `starts` is None where it projects, else the place of each factor's first.
    """

    width: int
    seed: int
    device: str
    starts: dict[str, int] | None = None
    _drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, factors: Sequence[Factors], dims: int, seed: int, device: str) -> "Sketch":
        weights = ((_names(each), (each.a, each.b)) for each in factors)
        sizes = {name: w.numel() for names, pair in weights for name, w in zip(names, pair, strict=True)}
        total = sum(sizes.values())
        if total > dims:
            return cls(dims, seed, device)
        starts = np.cumsum([0, *sizes.values()])[:-1].tolist()
        return cls(total, seed, device, dict(zip(sizes, starts, strict=True)))

    def add(self, name: str, values: torch.Tensor, into: torch.Tensor) -> None:
        """Add the coordinates (n, ...) of factor `name` to projections (n, width)."""
        flat = values.flatten(1)
        if self.starts is not None:
            into[:, self.starts[name] : self.starts[name] + flat.shape[1]] += flat
            return
        if name not in self._drawn:
            self._drawn[name] = self._draw(name, flat.shape[1])
        places, signs = self._drawn[name]
        into.index_add_(1, places, flat * signs)

    def _draw(self, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        # by name, so that neither the order nor the number of the other factors changes it
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        rng = np.random.default_rng([self.seed, own])
        places = rng.integers(0, self.width, size, dtype=np.int32)
        signs = rng.integers(0, 2, size, dtype=np.int8) * 2 - 1
        return torch.from_numpy(places).to(self.device), torch.from_numpy(signs).to(self.device, torch.int8)


def _projected(
    model: LocalModel, factors: Sequence[Factors], rows: Sequence[Tokens], sketch: Sketch, adam: bool
) -> NDArray[np.float32]:
    into = torch.zeros(len(rows), sketch.width, device=model.network.device)
    pairs = ((_names(each), each.moments) for each in factors if each.moments is not None)
    known = {name: moments for names, pair in pairs for name, moments in zip(names, pair, strict=True)}

    def take(name: str, gradient: torch.Tensor) -> None:
        sketch.add(name, adam_step(gradient, known[name]) if adam else gradient, into)

    row_gradients(model, factors, rows, take)
    return torch.nn.functional.normalize(into, dim=1).cpu().numpy()


def row_gradients(model: LocalModel, factors: Sequence[Factors], rows: Sequence[Tokens], take: Take) -> None:
    """One forward and one backward pass over a batch; `take` gets each factor's gradients (n, ...) as they are made.

    Factors are named as their module with ".a" or ".b". The loss of a row is its mean over reply tokens, of which it
    must have one.
    """
    ids, mask = (part.to(model.network.device) for part in pad([row.ids for row in rows], left=False))
    head = model.head
    with torch.enable_grad(), _watched(model, factors, take):
        states = backbone(model.network)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        spots = [torch.from_numpy(np.flatnonzero(row.reply[1:])).to(states.device) for row in rows]
        before = torch.cat([h[at] for h, at in zip(states, spots, strict=True)])
        targets = torch.cat([line[1:][at] for line, at in zip(ids, spots, strict=True)])
        shares = torch.cat([torch.full((len(at),), 1 / len(at), device=states.device) for at in spots])
        torch.autograd.backward([before], [_loss_gradient(head, before.detach(), targets, shares)])


def _loss_gradient(head: Head, states: torch.Tensor, targets: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Gradient of the summed losses with respect to the hidden states (n, d), logits in chunks."""
    rows = max(1, CHUNK_LOGITS // len(head.weight))
    found = []
    for h, t, share in zip(*(torch.split(each, rows) for each in (states, targets, shares)), strict=True):
        leaf = h.clone().requires_grad_()
        loss = (cross_entropy(head.logits(leaf), t, reduction="none") * share).sum()
        found += torch.autograd.grad(loss, leaf)
    return torch.cat(found)


@contextmanager
def _watched(model: LocalModel, factors: Sequence[Factors], take: Take) -> Iterator[None]:
    """While it lasts, a backward pass hands each factor's gradients to `take`."""
    modules = dict(model.network.named_modules())
    hooks = [modules[each.module].register_forward_hook(_hook(each, take)) for each in factors]
    # the weights want no gradient, so the embeddings must for there to be a backward pass
    hooks.append(model.network.get_input_embeddings().register_forward_hook(lambda _, __, out: out.requires_grad_()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hook(factors: Factors, take: Take) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], Any], None]:
    def forward(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        x = inputs[0].detach()
        output.register_hook(lambda g: _take_both(factors, x.float(), g.float(), take))

    return forward


def _take_both(factors: Factors, x: torch.Tensor, g: torch.Tensor, take: Take) -> None:
    """From inputs (n, length, inputs) and output gradients (n, length, outputs); padding has no output gradient."""
    a, b = _names(factors)
    take(a, factors.scale * (g @ factors.b).transpose(1, 2) @ x)
    take(b, factors.scale * g.transpose(1, 2) @ (x @ factors.a.T))


def _names(factors: Factors) -> tuple[str, str]:
    return f"{factors.module}.a", f"{factors.module}.b"

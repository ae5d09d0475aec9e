"""Writing replies token by token: a batch of prompts, one key-value cache, each row with its own draw.

A row's reply depends on its prompt and its seed, not on the rows beside it: every row draws from a generator of its
own, and a finished row leaves the batch.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.forward import Ids, pad
from models.protocol import Completion, Prompt, Usage


@dataclass(slots=True)
class Draft:
    """A reply being written: `room` tokens at most, one uniform number in [0, 1) for each."""

    prompt: Prompt
    ids: Ids
    room: int
    truncated: bool
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str | None = None

    def uniforms(self) -> NDArray[np.float64]:
        return np.random.default_rng(self.prompt.seed).random(self.room)


def write(network: Any, tokenizer: Tokenizer, ends: frozenset[int], drafts: Sequence[Draft]) -> None:
    """Write the drafts to their end: an end token ("stop"), a stop string ("stop"), or no room left ("length")."""
    uniforms = [draft.uniforms() for draft in drafts]
    live = list(range(len(drafts)))
    ids, mask = pad([draft.ids for draft in drafts], left=True)
    cache = None
    ids, mask = ids.to(network.device), mask.to(network.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        while live:
            logits, cache = _step(network, ids, mask, positions, cache)
            rows = [drafts[i] for i in live]
            u = torch.tensor([uniforms[i][len(drafts[i].tokens)] for i in live], device=logits.device)
            tokens, logprobs = draw(logits, *_settings(rows, logits.device), u)
            for draft, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
                _append(draft, token, logprob, tokenizer, ends)
            stay = [k for k, draft in enumerate(rows) if draft.reason is None]
            live = [live[k] for k in stay]
            if live and len(stay) < len(rows):
                kept = torch.tensor(stay, device=mask.device)
                cache.reorder_cache(kept)
                mask, tokens = mask[kept], tokens[kept]
            ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            positions = mask.sum(-1, keepdim=True) - 1

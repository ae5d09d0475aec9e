"""Replies to one prompt, scored after one pass over the prompt: its keys and values serve every reply."""

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.chat import Tokens
from models.forward import backbone, batches, pad
from models.local import LocalModel
from models.readings import reply_logprobs
from warehouse.records import Rows

HELD = 8  # tokens of keys and values that take the memory of a token that is computed
LEAST_SAVED = 0.4  # share of a group's tokens; below it a masked second pass costs a small model what sharing saves


def worth_sharing(tokens: Sequence[Tokens]) -> list[Rows]:
    """Row numbers of each group of rows that begin with the same prompt, where sharing it saves enough tokens."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, each in enumerate(tokens):
        if 0 < each.prompt < len(each.ids):
            groups[each.ids[: each.prompt].tobytes()].append(row)
    return [np.array(rows, np.int64) for rows in groups.values() if _saved([tokens[i] for i in rows]) >= LEAST_SAVED]


def _saved(group: Sequence[Tokens]) -> float:
    return (len(group) - 1) * group[0].prompt / sum(len(each.ids) for each in group)


def logprobs(model: LocalModel, tokens: Sequence[Tokens], groups: Sequence[Rows]) -> list[NDArray[np.float32]]:
    """Natural log-probabilities of the reply tokens of each row of `groups`, one group after the other."""
    found: dict[int, NDArray[np.float32]] = {}
    for batch in batches([tokens[group[0]].prompt for group in groups], model.batch_tokens):
        prompts = _prefill(model, [tokens[groups[g][0]] for g in batch])
        rows = [(place, row) for place, g in enumerate(batch) for row in groups[g].tolist()]
        # a row computes its rest alone, but holds keys and values of all its tokens, which are smaller
        held = [max(len(tokens[row].ids) - tokens[row].prompt, len(tokens[row].ids) // HELD) for _, row in rows]
        for part in batches(held, model.batch_tokens):
            owners, numbers = zip(*(rows[i] for i in part), strict=True)
            read = _continue(model, prompts, owners, [tokens[row] for row in numbers])
            found.update(zip(numbers, read, strict=True))
    return [found[row] for group in groups for row in group.tolist()]


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Prompts that were run: their mask (n, longest), padded on the left, last hidden state (n, 1, d), and cache."""

    mask: torch.Tensor
    last: torch.Tensor
    cache: Any

    def fork(self, owners: torch.Tensor) -> Any:
        """A cache with a copy of its prompt's keys and values for each of `owners`, to be written on."""
        cache = copy(self.cache)
        cache.layers = [copy(layer) for layer in cache.layers]
        cache.reorder_cache(owners)
        return cache


def _prefill(model: LocalModel, rows: Sequence[Tokens]) -> _Prompts:
    """One pass over the prompts of `rows`."""
    ids, mask = (part.to(model.network.device) for part in pad([row.ids[: row.prompt] for row in rows], left=True))
    model.tokens_processed += sum(row.prompt for row in rows)
    with torch.inference_mode():
        # padding on the left has no position of its own; it is masked wherever it stands
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = backbone(model.network)(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
        return _Prompts(mask, out.last_hidden_state[:, -1:], out.past_key_values)


def _continue(
    model: LocalModel, prompts: _Prompts, owners: Sequence[int], rows: Sequence[Tokens]
) -> list[NDArray[np.float32]]:
    """One pass over what follows the prompts in `rows`, each after the keys and values of its own prompt."""
    rests = [row.ids[row.prompt :] for row in rows]
    model.tokens_processed += sum(map(len, rests))
    device = model.network.device
    with torch.inference_mode():
        owner = torch.tensor(owners, device=device)
        ids, fresh = (part.to(device) for part in pad(rests, left=False))
        seen = prompts.mask[owner]
        out = backbone(model.network)(
            input_ids=ids,
            attention_mask=torch.cat([seen, fresh], 1),
            position_ids=seen.sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=device),
            past_key_values=prompts.fork(owner),
            use_cache=True,
        )
        # after the prompt's last token, then after each of the rest
        states = torch.cat([prompts.last[owner], out.last_hidden_state], 1)
        return reply_logprobs(
            model.head,
            [(h, row.ids[row.prompt - 1 :], row.reply[row.prompt - 1 :]) for h, row in zip(states, rows, strict=True)],
        )

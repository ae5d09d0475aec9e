"""How far a damaged model has moved from the whole one, row by row: Jensen-Shannon divergence of their predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.chat import Tokens
from models.forward import backbone, batches, pad
from models.local import LocalModel
from warehouse.errors import InputError
from warehouse.records import Messages

CHUNK_LOGITS = 1 << 22  # logits of one model alive at once; about ten arrays of this size are


def divergence(damaged: LocalModel, whole: LocalModel, rows: Sequence[Messages]) -> NDArray[np.float32]:
    """(n,) float32: mean over a row's reply tokens of the divergence of the two models' next-token distributions.

    In nats, 0 to ln 2; higher is further apart; NaN where a row has no reply token. Both models see the same ids, the
    whole model's, in one pass over the same batches (PASER, §3.3). Raises `InputError` where their vocabularies differ.
    """
    _check_vocabularies(damaged, whole)
    limit = min(damaged.max_length, whole.max_length)
    tokens = [Tokens(t.ids[:limit], t.reply[:limit]) for t in whole.encode(rows)]
    found = np.full(len(rows), np.nan, np.float32)
    answered = [i for i, t in enumerate(tokens) if t.reply[1:].any()]
    budget = min(damaged.batch_tokens, whole.batch_tokens)
    for batch in batches([len(tokens[i].ids) for i in answered], budget):
        numbers = [answered[i] for i in batch]
        found[numbers] = _means(damaged, whole, [tokens[i] for i in numbers])
    return found


def jsd(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence (n,) of distributions given as natural log-probabilities (n, vocabulary).

    ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = (p + q) / 2; 0 where equal, ln 2 where disjoint, the same either way round.
    """
    middle = torch.logaddexp(p, q) - np.log(2)
    parts = [torch.where(each > -torch.inf, each.exp() * (each - middle), 0.0).sum(-1) for each in (p, q)]
    return ((parts[0] + parts[1]) / 2).clamp(min=0)


def _means(damaged: LocalModel, whole: LocalModel, rows: Sequence[Tokens]) -> NDArray[np.float32]:
    spots = [np.flatnonzero(row.reply[1:]) for row in rows]  # token t + 1 is foretold at t
    states = [_states(model, rows, spots) for model in (damaged, whole)]
    chunk = max(1, CHUNK_LOGITS // len(whole.head.weight))
    pieces = zip(*(torch.split(each, chunk) for each in states), strict=True)
    with torch.inference_mode():
        per_token = torch.cat([jsd(_foretold(damaged, p), _foretold(whole, q).to(damaged.device)) for p, q in pieces])
    of = np.repeat(np.arange(len(rows)), [len(at) for at in spots])
    sums = np.bincount(of, per_token.cpu().numpy().astype(np.float64), len(rows))
    return (sums / [len(at) for at in spots]).astype(np.float32)


def _states(model: LocalModel, rows: Sequence[Tokens], spots: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    """Hidden states (tokens, d) before each reply token of a batch."""
    ids, mask = (part.to(model.network.device) for part in pad([row.ids for row in rows], left=False))
    with torch.inference_mode():
        out = backbone(model.network)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        model.tokens_processed += sum(len(row.ids) for row in rows)
        return torch.cat([h[torch.from_numpy(at).to(h.device)] for h, at in zip(out, spots, strict=True)])


def _foretold(model: LocalModel, states: torch.Tensor) -> torch.Tensor:
    return model.head.logits(states).log_softmax(-1)


def _check_vocabularies(damaged: LocalModel, whole: LocalModel) -> None:
    mine, theirs = damaged.tokenizer.get_vocab(), whole.tokenizer.get_vocab()
    sizes = len(damaged.head.weight), len(whole.head.weight)
    if mine != theirs or sizes[0] != sizes[1]:
        raise InputError(
            f"the damaged model's vocabulary ({len(mine)} tokens, {sizes[0]} logits) is not the whole model's "
            f"({len(theirs)} tokens, {sizes[1]} logits), so their predictions cannot be compared; give a pruned or "
            "tuned copy of the same model"
        )

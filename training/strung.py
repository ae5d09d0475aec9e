"""Rows of a batch strung together, without padding: attention stays within each row.

The sequence (1, tokens of all rows) has positions that begin at 0 with every row. On a processor, where a padded token
costs what any other costs, this leaves the work of the real tokens, and attention that is quadratic in each row and not
in the longest (docs/training_measured.md).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rows"  # of this attention, among those of transformers
STEP = 64  # lengths that differ by less are attended to at once; few lengths are few kernels to build
WRITTEN_OUT = 512  # longest row whose scores are written out; the fused kernel takes longer ones
LENGTHS = [5, 1, 7]  # of the rows that are compared
TOLERANCE = 1e-4  # of the largest logit
UNDERSTOOD = frozenset({"scaling", "dropout", "position_ids", "use_cache"})


def string_rows(network: Any, collate: Any) -> bool:
    """Make `network` attend row by row in the batches of `collate`, which strings rows together.

    Other calls give what they gave. False, and nothing changed, where the architecture tells its attention more than is
    known here (sliding windows, soft caps, sinks) or reads strung rows otherwise than alone.
    """
    before, told = network.config._attn_implementation, set[str]()

    def overheard(*tensors: Any, **given: Any) -> Any:
        told.update(name for name, value in given.items() if value is not None)
        return attend(*tensors, **given)

    ids = torch.arange(1, 1 + sum(LENGTHS)) % network.get_input_embeddings().num_embeddings
    rows = torch.split(ids, LENGTHS)
    made = collate([{name: row.tolist() for name in ("input_ids", "labels", "rows")} for row in rows])
    batch = {name: value for name, value in made.items() if name not in ("labels", "rows")}
    AttentionInterface.register(NAME, overheard)
    try:
        right = _same(network, rows, batch)
    finally:
        AttentionInterface.register(NAME, attend)
    if right and told <= UNDERSTOOD | batch.keys():
        return True
    network.set_attn_implementation(before)
    return False


def _same(network: Any, rows: tuple[torch.Tensor, ...], batch: Mapping[str, Any]) -> bool:
    """Whether the network, made to attend row by row, gives each row of `batch` the logits it has alone."""
    with torch.no_grad():
        alone = torch.cat([network(input_ids=row[None], use_cache=False).logits[0] for row in rows])
        network.set_attn_implementation(NAME)
        if network.config._attn_implementation != NAME:
            return False
        try:
            strung = network(**batch, use_cache=False).logits[0]
        except (RuntimeError, TypeError, ValueError):  # other arguments or shapes than a decoder's
            return False
    return bool((strung - alone).abs().max() <= TOLERANCE * alone.abs().max())


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_ids: torch.Tensor | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention (1, tokens, heads, d) within each row of a strung sequence; other calls are fused attention.

    `query` is (1, heads, tokens, d); `key` and `value` may have fewer heads. A row begins where its position is 0.
    """
    if position_ids is None or attention_mask is not None or len(query) > 1 or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **given)
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    lengths = [stop - start for start, stop in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    groups, scale = query.shape[1] // key.shape[1], query.shape[3] ** -0.5 if scaling is None else scaling
    # under autocast, rotary positions leave queries and keys in float32
    whole = query.to(value.dtype), repeat_kv(key.to(value.dtype), groups), repeat_kv(value, groups)
    parts = [torch.split(tensor[0], lengths, dim=1) for tensor in whole]
    found: dict[int, torch.Tensor] = {}
    for longest, rows in _alike(lengths).items():
        q, k, v = (_together([part[row] for row in rows], longest) for part in parts)
        out = _causal(q, k, v, scale, dropout)
        sizes = [size for row in rows for size in (lengths[row], longest - lengths[row])]
        found |= zip(rows, torch.split(out.view(query.shape[1], -1, out.shape[2]), sizes, dim=1)[::2], strict=True)
    return torch.cat([found[row].transpose(0, 1) for row in range(len(lengths))])[None], None


def _alike(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Which rows are attended to at once: by the multiple of `STEP` tokens that is their length, rounded up."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(-(-length // STEP) * STEP, []).append(row)
    return groups


def _together(rows: Sequence[torch.Tensor], longest: int) -> torch.Tensor:
    """(heads · rows, longest, d) of rows (heads, length, d); no token sees the zeros, which come after it."""
    heads, _, size = rows[0].shape
    rest = rows[0].new_zeros(heads, STEP, size)
    pieces = [piece for row in rows for piece in (row, rest[:, : longest - row.shape[1]])]
    return torch.cat(pieces, dim=1).view(-1, longest, size)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, dropout: float) -> torch.Tensor:
    """Causal attention within each of n sequences, (n, length, d)."""
    length = q.shape[1]
    if length > WRITTEN_OUT:
        given = q[None], k[None], v[None]  # the kernel that holds no scores takes four dimensions
        return functional.scaled_dot_product_attention(*given, dropout_p=dropout, is_causal=True, scale=scale)[0]
    scores = torch.baddbmm(_later(q.dtype)[:length, :length], q, k.transpose(1, 2), alpha=scale)
    return functional.dropout(torch.softmax(scores, -1), dropout) @ v


@cache
def _later(dtype: torch.dtype) -> torch.Tensor:
    """(WRITTEN_OUT, WRITTEN_OUT), -inf where the key comes after the query."""
    with torch.inference_mode(False):
        return torch.full((WRITTEN_OUT, WRITTEN_OUT), -torch.inf, dtype=dtype).triu(1)


def _mask(**given: Any) -> torch.Tensor | None:
    """None for one sequence that nothing masks, else that of fused attention."""
    if given["attention_mask"] is None and given["batch_size"] == 1 and given["q_length"] == given["kv_length"]:
        return None
    return sdpa_mask(**given)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)

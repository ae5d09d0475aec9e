"""Forward passes through a backbone: rows in batches under a token budget, hidden states out, nothing kept.

Two layouts give the same numbers: "padded" (rows of like length side by side, padded on the right) and "packed" (rows
end to end in one sequence; positions restart at 0, and transformers' mask keeps rows apart).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from warehouse.errors import InputError

LAYOUTS = ("padded", "packed")

Ids = NDArray[np.int32]
States = list[tuple[int, torch.Tensor]]  # (row number, hidden states (length, d)) of one batch


def batches(lengths: Sequence[int], budget: int, padded: bool = True) -> Iterator[list[int]]:
    """Row numbers, longest first; each batch holds at most `budget` tokens, padding included, or one row.

    The longest batch comes first, so a budget that is too large for the memory fails at once.
    """
    batch: list[int] = []
    used = 0
    for row in np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist():
        used = lengths[batch[0]] * (len(batch) + 1) if padded and batch else used + lengths[row]
        if batch and used > budget:
            yield batch
            batch, used = [], lengths[row]
        batch.append(row)
    if batch:
        yield batch


def hidden_states(network: Any, rows: Sequence[Ids], budget: int, layout: str) -> Iterator[States]:
    """The last hidden states (after the final norm) of every row, batch by batch, in no particular order of rows.

    For the decoders of transformers this is the last entry of `hidden_states`. Rows without tokens are left out.
    """
    run = _padded if layout == "padded" else _packed
    present = [i for i, ids in enumerate(rows) if len(ids)]
    for batch in batches([len(rows[i]) for i in present], budget, layout == "padded"):
        numbers = [present[i] for i in batch]
        with torch.inference_mode():
            yield list(zip(numbers, run(network, [rows[i] for i in numbers]), strict=True))


def _padded(network: Any, rows: Sequence[Ids]) -> list[torch.Tensor]:
    ids, mask = pad(rows, left=False)
    # without padding no mask is given: attention then takes its fast causal path
    mask_given = None if bool(mask.all()) else mask.to(network.device)
    states = backbone(network)(input_ids=ids.to(network.device), attention_mask=mask_given, use_cache=False)
    return [states.last_hidden_state[i, : len(row)] for i, row in enumerate(rows)]


def _packed(network: Any, rows: Sequence[Ids]) -> list[torch.Tensor]:
    ids = torch.from_numpy(np.concatenate(rows).astype(np.int64))[None].to(network.device)
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None].to(network.device)
    # no attention mask: transformers takes the restarts of the positions as the borders of rows
    states = backbone(network)(input_ids=ids, position_ids=positions, use_cache=False)
    return list(states.last_hidden_state[0].split([len(row) for row in rows]))


def backbone(network: Any) -> Any:
    """The network without its output layer."""
    return network.base_model


def pad(rows: Sequence[Ids], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (n, longest) int64, padded with id 0, and the mask (n, longest) int64 that hides the padding."""
    ids = np.zeros((len(rows), max(len(row) for row in rows)), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(-len(row), None) if left else slice(len(row))
        ids[i, place], mask[i, place] = row, 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def check_packing(network: Any) -> None:
    """Raise `InputError` unless this architecture keeps packed rows apart: two rows packed must equal them alone."""
    size = network.get_input_embeddings().num_embeddings
    rows = [np.arange(start, start + 6, dtype=np.int32) % size for start in (1, 11)]
    with torch.inference_mode():
        packed, alone = torch.cat(_packed(network, rows)), torch.cat([_padded(network, [row])[0] for row in rows])
    agreement = torch.cosine_similarity(packed.float(), alone.float(), dim=-1).min()
    if agreement < 0.999:  # a leaking row shows at once; bfloat16 alone stays above 0.9999
        kind = network.config.model_type
        raise InputError(f"models of type {kind!r} let packed rows see each other; use layout 'padded'")


def pool(states: torch.Tensor) -> torch.Tensor:
    """RDS+ pooling of (length, d) hidden states: sum over i = 1..L of 2i / (L (L + 1)) h_i, accumulated in float32.

    Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning", §3: later tokens, which saw more, count
    more. All tokens take part: begin token, role marks, prompt and reply. Returns (d,) float32, not normalised.
    """
    length = len(states)
    weights = torch.arange(1, length + 1, dtype=torch.float32, device=states.device) * (2 / (length * (length + 1)))
    return weights @ states.float()


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of (n, d) float32 scaled to length 1; a row of zeros stays zero, so that no NaN reaches a ranking.

    Raises `InputError` for infinities and NaN.
    """
    if bad := np.flatnonzero(~np.isfinite(vectors).all(1)).tolist():
        raise InputError(
            f"the model gave no finite numbers for {len(bad)} rows (first: row {bad[0]}); its weights are broken, or "
            "its numbers overflow: try dtype float32"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)

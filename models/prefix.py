"""What rows begin with alike is computed once: the keys and values of a beginning serve every row that goes on from it.

Replies to one prompt share their prompt; prompts with the same worked examples before them share these.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.blocks import LONGEST, Block, read_blocks
from models.chat import Tokens
from models.forward import Ids, backbone, batches, pad
from models.keys import fork, held, keeps_all
from models.readings import reply_logprobs
from warehouse.records import Rows

if TYPE_CHECKING:
    from models.local import LocalModel

LEAST_SAVED = 0.4  # share of a group's tokens; below it a masked second pass costs a small model what sharing saves


def worth_sharing(tokens: Sequence[Tokens]) -> list[Rows]:
    """Row numbers of each group of rows that are equal up to their last reply, where sharing that saves enough."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, each in enumerate(tokens):
        if 0 < (start := last_reply(each)) < len(each.ids):
            groups[each.ids[:start].tobytes()].append(row)
    return [np.array(rows, np.int64) for rows in groups.values() if _saved([tokens[i] for i in rows]) >= LEAST_SAVED]


def _saved(group: Sequence[Tokens]) -> float:
    return (len(group) - 1) * last_reply(group[0]) / sum(len(each.ids) for each in group)


def last_reply(row: Tokens) -> int:
    """Where the row's last reply begins; its length where it has none."""
    opens = np.flatnonzero(row.reply & ~np.concatenate([[False], row.reply[:-1]]))
    return int(opens[-1]) if len(opens) else len(row.ids)


def common(rows: Sequence[Ids]) -> int:
    """How many tokens at their beginning all rows have in common, each keeping at least one of its own, where computing
    them once saves enough; else 0."""
    length = max(0, min(map(len, rows), default=1) - 1)
    for row in rows:
        differs = np.flatnonzero(row[:length] != rows[0][:length])
        length = int(differs[0]) if len(differs) else length
    return length if (len(rows) - 1) * length >= LEAST_SAVED * sum(map(len, rows)) > 0 else 0


@dataclass(frozen=True, slots=True)
class Beginning:
    """n beginnings that were run: their mask (n, longest), padded on the left, last hidden state (n, 1, d) and cache,
    and the log-probabilities of the reply tokens within each."""

    mask: torch.Tensor
    last: torch.Tensor
    cache: Any
    told: Sequence[NDArray[np.float32]]


def scored(model: "LocalModel", tokens: Sequence[Tokens]) -> list[NDArray[np.float32]]:
    """Natural log-probabilities of the reply tokens of each row, in order.

    GRAPE (Zhang et al. 2025): for replies y_1 ... y_k to a prompt x the cost is |x| + sum |y_j| tokens, not
    sum (|x| + |y_j|); likewise for what all prompts begin with. The numbers are those of each row by itself.
    """
    groups = worth_sharing(tokens)
    inside = np.concatenate([np.zeros(0, np.int64), *groups])
    alone = np.setdiff1d(np.arange(len(tokens)), inside).tolist()
    firsts = [tokens[group[0]] for group in groups]
    start = common([*(row.ids[: last_reply(row)] for row in firsts), *(tokens[i].ids for i in alone)])
    base = began(model, (firsts or [tokens[0]])[0], start) if start else None
    found = dict(zip(inside.tolist(), logprobs(model, tokens, groups, base), strict=True))
    return [*map((found | _alone(model, tokens, alone, base)).__getitem__, range(len(tokens)))]


def began(model: "LocalModel", row: Tokens, length: int) -> Beginning | None:
    """The first `length` tokens of `row`, run once; None where the model's cache does not keep them all."""
    base = _run(model, None, [0], [(row, 0, length)], left=True)
    return base if keeps_all(base.cache) else None


def logprobs(
    model: "LocalModel", tokens: Sequence[Tokens], groups: Sequence[Rows], base: Beginning | None = None
) -> list[NDArray[np.float32]]:
    """Natural log-probabilities of the reply tokens of each row of `groups`, one group after the other.

    Every row begins with `base` where it is given.
    """
    found: dict[int, NDArray[np.float32]] = {}
    start = 0 if base is None else base.mask.shape[1]
    blocks = [Block([tokens[row] for row in group], start, last_reply(tokens[group[0]])) for group in groups]
    short = [g for g, block in enumerate(blocks) if model.takes_blocks and len(block) <= LONGEST]
    for g, told in zip(short, read_blocks(model, [blocks[g] for g in short], base), strict=True):
        found.update(zip(groups[g].tolist(), told, strict=True))
    found.update(_after_prompts(model, tokens, [g for g in groups if int(g[0]) not in found], base))
    return [found[row] for group in groups for row in group.tolist()]


def _after_prompts(
    model: "LocalModel", tokens: Sequence[Tokens], groups: Sequence[Rows], base: Beginning | None
) -> dict[int, NDArray[np.float32]]:
    """Prompts in one pass, then their replies with a copy of their prompt's keys and values each; by row number."""
    found: dict[int, NDArray[np.float32]] = {}
    start = 0 if base is None else base.mask.shape[1]
    starts = [last_reply(tokens[group[0]]) for group in groups]
    for batch in batches([at - start for at in starts], model.batch_tokens):
        parts = [(tokens[groups[g][0]], start, starts[g]) for g in batch]
        prompts = _run(model, base, [0] * len(batch), parts, left=True)
        rows = [(place, row, starts[g]) for place, g in enumerate(batch) for row in groups[g].tolist()]
        found.update(_followed(model, tokens, prompts, rows))
    return found


def _alone(
    model: "LocalModel", tokens: Sequence[Tokens], alone: Sequence[int], base: Beginning | None
) -> dict[int, NDArray[np.float32]]:
    """The rows that share no prompt of their own, by row number."""
    if base is None:
        return dict(zip(alone, model.read_replies([tokens[i] for i in alone]), strict=True))
    return _followed(model, tokens, base, [(0, row, base.mask.shape[1]) for row in alone])


def _followed(
    model: "LocalModel", tokens: Sequence[Tokens], before: Beginning, rows: Sequence[tuple[int, int, int]]
) -> dict[int, NDArray[np.float32]]:
    """Rows (number of its beginning, row number, tokens in its beginning) in batches, by row number."""
    found: dict[int, NDArray[np.float32]] = {}
    for part in batches(
        [held(len(tokens[row].ids) - at, len(tokens[row].ids)) for _, row, at in rows], model.batch_tokens
    ):
        owners, numbers, starts = zip(*(rows[i] for i in part), strict=True)
        pieces = [(tokens[row], at, len(tokens[row].ids)) for row, at in zip(numbers, starts, strict=True)]
        found.update(zip(numbers, _run(model, before, owners, pieces, left=False).told, strict=True))
    return found


def _run(
    model: "LocalModel",
    before: Beginning | None,
    owners: Sequence[int],
    pieces: Sequence[tuple[Tokens, int, int]],
    left: bool,
) -> Beginning:
    """One pass over tokens `start` to `stop` of each of `pieces`, each after its own beginning where there are any.

    What is padded on the right cannot be gone on from, so nothing is asked after its last token, and that is not run.
    """
    rests = [row.ids[start : stop if left else max(stop - 1, start + 1)] for row, start, stop in pieces]
    model.tokens_processed += sum(map(len, rests))
    device = model.network.device
    with torch.inference_mode():
        owner = torch.tensor(owners, device=device)
        ids, mask = (part.to(device) for part in pad(rests, left))
        if before is not None:
            mask = torch.cat([before.mask[owner], mask], 1)
        # padding has no position of its own; it is masked wherever it stands
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = backbone(model.network)(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=None if before is None else fork(before.cache, owner, ids.shape[1]),
            use_cache=True,
        )
        states = out.last_hidden_state
        own = [h[-len(rest) :] if left else h[: len(rest)] for h, rest in zip(states, rests, strict=True)]
        told = _told(model, before, owners, pieces, own)
        return Beginning(mask, states[:, -1:], out.past_key_values, told)


def _told(
    model: "LocalModel",
    before: Beginning | None,
    owners: Sequence[int],
    pieces: Sequence[tuple[Tokens, int, int]],
    states: Sequence[torch.Tensor],
) -> list[NDArray[np.float32]]:
    """Log-probabilities of the reply tokens up to the end of each piece, those of its beginning included."""
    if before is None:
        rows = zip(pieces, states, strict=True)
        return reply_logprobs(model.head, [(h, row.ids[at:to], row.reply[at:to]) for (row, at, to), h in rows])
    # the first token of a piece is foretold by the last one of its beginning
    after = [
        (torch.cat([before.last[owner], h]), row.ids[at - 1 : to], row.reply[at - 1 : to])
        for (row, at, to), owner, h in zip(pieces, owners, states, strict=True)
    ]
    found = reply_logprobs(model.head, after)
    return [np.concatenate([before.told[owner], each]) for owner, each in zip(owners, found, strict=True)]

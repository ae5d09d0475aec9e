"""A prompt and all its replies in one row: every reply sees the prompt and itself, none sees another.

Short prompts with short replies (the choices of an item) are one pass so, and nothing is copied for each reply.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache

from models.chat import Tokens
from models.forward import Ids, backbone, batches, pad
from models.keys import fork, held, keeps_all
from models.readings import reply_logprobs

if TYPE_CHECKING:
    from models.local import LocalModel
    from models.prefix import Beginning

LONGEST = 256  # tokens of a row; in longer ones what attention masks costs more than copies of the prompt


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are equal for their first `opens` tokens, the first `start` of which were run before."""

    rows: Sequence[Tokens]
    start: int
    opens: int

    @property
    def ids(self) -> Ids:
        """What is run; nothing is asked after a reply's last token."""
        return np.concatenate(
            [self.rows[0].ids[self.start : self.opens], *(row.ids[self.opens : -1] for row in self.rows)]
        )

    @property
    def positions(self) -> Ids:
        after = [np.arange(self.opens, len(row.ids) - 1) for row in self.rows]
        return np.concatenate([np.arange(self.start, self.opens), *after]).astype(np.int32)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the prompt, then of each reply, that are run."""
        return [self.opens - self.start, *(len(row.ids) - 1 - self.opens for row in self.rows)]

    @property
    def parts(self) -> Ids:
        """1 for each token of the prompt, 2 and on for those of each reply."""
        return np.repeat(np.arange(1, len(self.rows) + 2), self.lengths).astype(np.int32)

    def replies(self, states: torch.Tensor) -> list[torch.Tensor]:
        """From the states of `ids`, those of each row by itself but for its last token."""
        prompt, *after = torch.split(states[: len(self)], self.lengths)
        return [torch.cat([prompt, each]) for each in after]

    def __len__(self) -> int:
        return sum(self.lengths)


def read_blocks(
    model: "LocalModel", blocks: Sequence[Block], base: "Beginning | None"
) -> list[list[NDArray[np.float32]]]:
    """Natural log-probabilities of the reply tokens of each row of each block, as of the row by itself."""
    found: dict[int, list[NDArray[np.float32]]] = {}
    lengths = [len(block) for block in blocks]
    for batch in batches(
        [held(n, n + block.start) for n, block in zip(lengths, blocks, strict=True)], model.batch_tokens
    ):
        part = [blocks[i] for i in batch]
        model.tokens_processed += sum(map(len, part))
        with torch.inference_mode():
            states = _states(model.network, part, base)
            rows = [(h, row) for block, each in zip(part, states, strict=True) for h, row in _rows(block, each)]
            told = _told(model, rows, part[0].start, base)
        for number, block in zip(batch, part, strict=True):
            found[number], told = told[: len(block.rows)], told[len(block.rows) :]
    return [found[number] for number in range(len(blocks))]


def _rows(block: Block, states: torch.Tensor) -> list[tuple[torch.Tensor, Tokens]]:
    return list(zip(block.replies(states), block.rows, strict=True))


def _told(
    model: "LocalModel", rows: Sequence[tuple[torch.Tensor, Tokens]], start: int, base: "Beginning | None"
) -> list[NDArray[np.float32]]:
    if base is None:
        return reply_logprobs(model.head, [(h, row.ids, row.reply) for h, row in rows])
    # the first token of a row's own is foretold by the last one of its beginning
    after = [(torch.cat([base.last[0], h]), row.ids[start - 1 :], row.reply[start - 1 :]) for h, row in rows]
    return [np.concatenate([base.told[0], each]) for each in reply_logprobs(model.head, after)]


def _states(network: Any, blocks: Sequence[Block], base: "Beginning | None") -> torch.Tensor:
    """Last hidden states (n, longest, d) of the blocks' ids, padded on the right."""
    device = network.device
    ids, positions, parts = (
        pad(each, left=False)[0].to(device)
        for each in ([b.ids for b in blocks], [b.positions for b in blocks], [b.parts for b in blocks])
    )
    seen = ((parts[:, :, None] == parts[:, None]) | (parts == 1)[:, None]).tril()
    lowest = torch.finfo(network.dtype).min
    mask = torch.zeros(seen.shape, dtype=network.dtype, device=device).masked_fill(~seen, lowest)
    cache = None
    if base is not None:
        mask = torch.nn.functional.pad(mask, (base.mask.shape[1], 0))
        cache = fork(base.cache, torch.zeros(len(blocks), dtype=torch.int64, device=device), ids.shape[1])
    out = backbone(network)(
        input_ids=ids,
        attention_mask=mask[:, None],
        position_ids=positions,
        past_key_values=cache,
        use_cache=base is not None,
    )
    states: torch.Tensor = out.last_hidden_state
    return states


def takes_blocks(network: Any) -> bool:
    """Whether this architecture keeps the replies of a block apart: each must equal the row by itself."""
    config = network.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager") or not keeps_all(DynamicCache(config=config)):
        return False  # a window of attention is not in the mask
    if getattr(config, "alibi", False) or "position_ids" not in inspect.signature(backbone(network).forward).parameters:
        return False
    size = network.get_input_embeddings().num_embeddings
    ids = [np.array([1, 2, 3, *tail], np.int32) % size for tail in ((4, 5, 6, 7), (8, 9, 10))]
    rows = [Tokens(each, np.arange(len(each)) > 2) for each in ids]
    block = Block(rows, 0, 3)
    with torch.inference_mode():
        found = torch.cat(block.replies(_states(network, [block], None)[0]))
        alone = [
            backbone(network)(input_ids=torch.tensor(i[None, :-1], dtype=torch.int64, device=network.device))
            for i in ids
        ]
        expected = torch.cat([out.last_hidden_state[0] for out in alone])
    return bool(torch.cosine_similarity(found.float(), expected.float(), dim=-1).min() > 0.999)

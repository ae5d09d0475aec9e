"""Writing replies token by token: a batch of prompts, one key-value cache, each row with its own draw.

A row's reply depends on its prompt and its seed, not on the rows beside it: every row draws from a generator of its
own, and a finished row leaves the batch.
"""

import inspect
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from models.forward import Ids, batches, pad
from models.keys import GROWTH, Roomy, Space, Written, cache_of, fork, keep, spaces
from models.prefix import Beginning
from models.protocol import Completion, Prompt, Usage


@dataclass(slots=True)
class Draft:
    """A reply being written after the prompt's `ids`, of at most `room` tokens."""

    prompt: Prompt
    ids: Ids
    room: int
    truncated: bool = False
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str | None = None
    _rng: np.random.Generator | None = None

    def uniform(self) -> float:
        """The next of the row's own numbers in [0, 1); 0 where nothing is drawn."""
        if not self.prompt.temperature:
            return 0.0
        if self._rng is None:
            seed, number = self.prompt.seed, self.prompt.draw
            self._rng = np.random.default_rng([seed, number] if number else seed)
        return float(self._rng.random())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What turns tokens into text, and which of them end a reply."""

    tokenizer: Tokenizer
    ends: frozenset[int]

    def text(self, tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in self.ends]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))


def write(
    network: Any, vocabulary: Vocabulary, drafts: Sequence[Draft], budget: int, base: Beginning | None = None
) -> None:
    """Write the drafts to their end: an end token or a stop string ("stop"), or no room left ("length").

    Their prompts are run in batches of like length and at most `budget` tokens, and then go on side by side. `base` is
    what all of them begin with, where it was run before.
    """
    with torch.inference_mode():
        for context, rows in _begun(network, drafts, budget, base):
            while rows:
                tokens, logprobs = draw(_penalised(context.logits, rows), *_settings(rows, network.device))
                for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
                    _append(row, token, logprob, vocabulary)
                stay = _staying([row.reason is None for row in rows])
                rows = [rows[k] for k in stay]
                context.extend(tokens, stay)


def _staying(unfinished: Sequence[bool]) -> list[int]:
    """The unfinished rows: each in its place, but for the last ones, which take the places of finished rows."""
    stay = [k for k, going in enumerate(unfinished) if going]
    left = len(stay)
    last = iter(stay[sum(k < left for k in stay) :])
    return [k if unfinished[k] else next(last) for k in range(left)]


def completion(draft: Draft, vocabulary: Vocabulary) -> Completion:
    """The finished reply; its tokens, and their log-probabilities, include the end token or the stop string."""
    text = vocabulary.text(draft.tokens)
    cut = min((at for stop in draft.prompt.stop if (at := text.find(stop)) >= 0), default=len(text))
    usage = Usage(len(draft.ids), len(draft.tokens))
    return Completion(text[:cut], draft.reason or "length", usage, tuple(draft.logprobs), draft.truncated)


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row of (n, vocabulary) logits, and its natural log-probability at temperature 1; both (n,).

    Temperature 0 takes the largest logit. Above 0, `uniform` in [0, 1) picks from the smallest set of most likely
    tokens whose probability reaches `top_p`, by inverting their distribution function.
    """
    tokens = logits.argmax(-1)
    hot = temperature > 0
    if bool(hot.any()):
        tokens = torch.where(hot, _sample(logits / torch.where(hot, temperature, 1)[:, None], top_p, uniform), tokens)
    return tokens, logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


def _sample(logits: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    chances, order = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = chances.cumsum(-1) - chances
    chances = chances.masked_fill(before >= top_p[:, None], 0)
    reached = chances.cumsum(-1)
    place = torch.searchsorted(reached, (uniform * reached[:, -1])[:, None], right=True)
    place = place.minimum((chances > 0).sum(-1, keepdim=True) - 1)  # `uniform` may round to 1
    return order.gather(-1, place)[:, 0]


def _penalised(logits: torch.Tensor, rows: Sequence[Draft]) -> torch.Tensor:
    """`logits` (n, vocabulary) less each row's presence penalty at the tokens that its reply has already."""
    for place, row in enumerate(rows):
        if row.prompt.presence_penalty and row.tokens:
            written = torch.tensor(sorted(set(row.tokens)), device=logits.device)
            logits[place, written] -= row.prompt.presence_penalty
    return logits


def _settings(rows: Sequence[Draft], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = [(row.prompt.temperature, row.prompt.top_p, row.uniform()) for row in rows]
    temperature, top_p, uniform = torch.tensor(values, dtype=torch.float32).to(device).unbind(-1)
    return temperature, top_p, uniform


def _append(row: Draft, token: int, logprob: float, vocabulary: Vocabulary) -> None:
    row.tokens.append(token)
    row.logprobs.append(logprob)
    if token in vocabulary.ends or _meets_stop(row, vocabulary):
        row.reason = "stop"
    elif len(row.tokens) >= row.room:
        row.reason = "length"


def _meets_stop(row: Draft, vocabulary: Vocabulary) -> bool:
    if not row.prompt.stop:
        return False
    # a token holds at least a byte: a stop string that just ended lies within so many last tokens
    window = 8 + 2 * max(len(stop.encode()) for stop in row.prompt.stop)
    tail = vocabulary.text(row.tokens[-window:])
    return any(stop in tail for stop in row.prompt.stop)


def _begun(
    network: Any, drafts: Sequence[Draft], budget: int, base: Beginning | None
) -> list[tuple["_Context", list[Draft]]]:
    """The drafts after their prompts: all in one context, or, where the model's cache forgets, batch by batch."""
    known = inspect.signature(network.forward).parameters
    if base is not None:  # what is copied from it for each row would be copied again when batches are joined
        return [(_after(network, known, drafts, base), list(drafts))]
    parts = [[drafts[i] for i in batch] for batch in batches([len(draft.ids) for draft in drafts], budget)]
    longest, room = len(parts[0][0].ids), max(draft.room for draft in drafts)
    if layers := spaces(network, len(drafts), longest + min(room, GROWTH)):
        return [(_together(network, known, parts, layers), [draft for part in parts for draft in part])]
    contexts = [_fed(network, known, part) for part in parts]
    for context in contexts:
        context.cache = fork(context.cache)
    return list(zip(contexts, parts, strict=True))


def _together(
    network: Any, known: Container[str], parts: Sequence[Sequence[Draft]], layers: Sequence[Space]
) -> "_Context":
    """One context of all parts, the longest prompt first: their keys and values are written where they stay."""
    longest, first, contexts = len(parts[0][0].ids), 0, []
    for part in parts:
        contexts.append(_fed(network, known, part, cache_of([Written(space, first, longest) for space in layers])))
        first += len(part)
    masks = [functional.pad(each.mask, (longest - each.mask.shape[1], 0)) for each in contexts]
    cache = cache_of([Roomy(space.parts, first, longest) for space in layers])
    return _Context(network, known, torch.cat(masks), cache, torch.cat([context.logits for context in contexts]))


def _fed(network: Any, known: Container[str], part: Sequence[Draft], cache: Any = None) -> "_Context":
    ids, mask = (each.to(network.device) for each in pad([draft.ids for draft in part], left=True))
    context = _Context(network, known, mask, cache)
    context.feed(ids)
    return context


def _after(network: Any, known: Container[str], drafts: Sequence[Draft], base: Beginning) -> "_Context":
    """A context of all drafts, each after a copy of `base`."""
    seen = base.mask.shape[1]
    ids, mask = (each.to(network.device) for each in pad([draft.ids[seen:] for draft in drafts], left=True))
    owners = torch.zeros(len(drafts), dtype=torch.int64, device=ids.device)
    cache = fork(base.cache, owners, ids.shape[1] + GROWTH)
    context = _Context(network, known, torch.cat([base.mask[owners], mask], 1), cache)
    context.feed(ids)
    return context


@dataclass(slots=True)
class _Context:
    """Rows that were run: which positions of all they were fed are real, their cache, and what is foretold next."""

    network: Any
    known: Container[str]  # what its forward pass can be given
    mask: torch.Tensor  # (n, all)
    cache: Any = None
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # (n, vocabulary) float32 of the next token

    def feed(self, ids: torch.Tensor) -> None:
        """Run `ids` (n, new), the last of the positions in the mask."""
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": 1}
        out = self.network(
            input_ids=ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self.known},
        )
        self.cache = out.past_key_values
        self.logits = out.logits[:, -1].float()

    def extend(self, tokens: torch.Tensor, stay: list[int]) -> None:
        """Feed `tokens` (n,) for the rows that `stay`, in that order; the others leave the batch and the cache."""
        if not stay:
            return
        if len(stay) < len(tokens):
            kept = torch.tensor(stay, dtype=torch.int64, device=tokens.device)
            keep(self.cache, stay, tokens.device)
            tokens, self.mask = tokens[kept], self.mask[kept]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.feed(tokens[:, None])

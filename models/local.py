"""A language model on this machine: transformers weights, measured and sampled in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.chat import ChatFormat, Tokens, chat_format, encode
from models.decode import Draft, Vocabulary, completion, write
from models.fingerprint import fingerprint
from models.forward import LAYOUTS, Ids, batches, check_packing, hidden_states, pool, unit
from models.head import Head, head_of
from models.network import Loaded, load_network
from models.protocol import Completion, Measures, Prompt, Want
from models.tokens import Counter
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Messages

BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}
REPLY_FACTOR = (
    2  # a step of writing computes one token per row, so batches of replies may hold more than forward passes
)


@dataclass(frozen=True, slots=True)
class _Probe:
    """One sequence of a forward pass: the first `body` tokens are the row's own, `reply` marks its reply tokens,

    and with `asks` the logits after its last token are the answer to the row's CHOICE_LOGITS.
    """

    row: int
    ids: Ids
    body: int
    reply: NDArray[np.bool_]
    asks: bool


class LocalModel:
    """A causal language model of transformers, in evaluation mode. Implements `LanguageModel`.

    Build it with `load`. `tokens_processed` counts the tokens fed through the network so far, padding left out (the
    cost of all calls); `parameters` and `dimension` describe the network.
    """

    def __init__(
        self, loaded: Loaded, chat: ChatFormat, fingerprint: str, max_length: int, batch_tokens: int, layout: str
    ) -> None:
        self.network = loaded.network
        self.tokenizer = loaded.tokenizer
        self.chat = chat
        self.fingerprint = fingerprint
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.layout = layout
        self.tokens_processed = 0

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        max_length: int = 2048,
        batch_tokens: int | None = None,
        layout: str = "padded",
        template: str = "tulu",
        trust_remote_code: bool = False,
        adapter: Path | None = None,
        revision: str = "main",
    ) -> "LocalModel":
        """The model `name`: "winnow-tiny", a folder, or a hub name; with `adapter` merged into its weights.

        `dtype` is "auto", "float32", "bfloat16" or "float16"; `device` "auto" or a torch device. Rows are cut to
        `max_length` tokens, or to the positions the model has, if fewer. `batch_tokens` bounds the tokens of one
        forward pass, padding included (by default 2,048 on a processor, 16,384 on a GPU). Neither it nor `layout`
        ("padded", "packed") changes a result. Raises `InputError` for whatever cannot be loaded, before any work.
        """
        if layout not in LAYOUTS:
            raise InputError(f"unknown layout {layout!r}; known layouts: {', '.join(LAYOUTS)}")
        loaded = load_network(
            name,
            dtype=dtype,
            device=device,
            adapter=adapter,
            trust_remote_code=trust_remote_code,
            revision=revision,
        )
        chat = _chat(loaded.tokenizer, template)
        if layout == "packed":
            check_packing(loaded.network)
        positions = getattr(loaded.network.config.get_text_config(), "max_position_embeddings", None)
        return cls(
            loaded,
            chat,
            fingerprint(name, template, adapter, revision),
            min(max_length, positions or max_length),
            batch_tokens or BATCH_TOKENS.get(loaded.network.device.type, BATCH_TOKENS["cuda"]),
            layout,
        )

    @property
    def parameters(self) -> int:
        """Weights of the network; a weight shared by two layers counts once."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def dimension(self) -> int:
        """Width d of the hidden states, and so of a representation."""
        return int(self.network.config.get_text_config().hidden_size)

    @property
    def dtype(self) -> str:
        return str(self.network.dtype).removeprefix("torch.")

    @property
    def device(self) -> str:
        return str(self.network.device)

    def count_tokens(self, rows: Sequence[Messages]) -> NDArray[np.int64]:
        """Tokens of each row, (n,) int64, before any truncation."""
        return Counter(self._backend, self.chat)(rows)

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        """All that is wanted, from one forward pass; results are in the order of `rows`.

        A representation is of the row without the mark that opens a reply. CHOICE_LOGITS are those after that mark;
        where a row is too long for it, the row's beginning is cut instead of its end.
        """
        if not wants:
            raise ValueError("measure was asked for nothing: `wants` is empty")
        if Want.CHOICE_LOGITS in wants and not choices:
            raise ValueError("CHOICE_LOGITS need the token ids to choose from: `choices` is empty")
        bodies = self._encode(rows) if wants - {Want.CHOICE_LOGITS} else None
        asked = self._asked(rows, self.max_length) if Want.CHOICE_LOGITS in wants else None
        probes = list(_probes(bodies, asked))
        readings = _Readings.empty(len(rows), self.dimension, wants, choices)
        for states in hidden_states(self.network, [p.ids for p in probes], self.batch_tokens, self.layout):
            self._read([(probes[i], h) for i, h in states], readings)
        self.tokens_processed += sum(len(p.ids) for p in probes)
        return readings.measures(bodies or asked or [])

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """One reply per prompt, in order. The prompts of one batch are like in length and share a cache.

        A prompt that fills the context (`max_length`) is cut at its beginning, which `Completion.truncated` says; a
        reply ends with "length" where the context is full.
        """
        asked = self._asked([p.messages for p in prompts])
        drafts = [self._draft(prompt, tokens.ids) for prompt, tokens in zip(prompts, asked, strict=True)]
        for batch in batches([len(d.ids) + d.room for d in drafts], REPLY_FACTOR * self.batch_tokens):
            write(self.network, self._vocabulary, [drafts[i] for i in batch])
        self.tokens_processed += sum(len(d.ids) + len(d.tokens) for d in drafts)
        return [completion(draft, self._vocabulary) for draft in drafts]

    @cached_property
    def _backend(self) -> Tokenizer:
        tokenizer: Tokenizer = self.tokenizer.backend_tokenizer
        return tokenizer

    @cached_property
    def _head(self) -> Head:
        return head_of(self.network)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        named = [self.network.generation_config.eos_token_id, self.network.config.get_text_config().eos_token_id]
        ends = {self.tokenizer.eos_token_id}
        for ids in named:
            ends |= set(ids) if isinstance(ids, list) else {ids}
        return Vocabulary(self._backend, frozenset(ends - {None}))

    def _encode(self, rows: Sequence[Messages]) -> list[Tokens]:
        return encode(self._backend, self.chat, rows, self.max_length)

    def _asked(self, rows: Sequence[Messages], limit: int | None = None) -> list[Tokens]:
        """Rows followed by the mark that opens a reply, the beginning cut where they exceed `limit`."""
        tokens = encode(self._backend, self.chat, rows, ask=True)
        return tokens if limit is None else [self._cut_left(t, limit) for t in tokens]

    def _cut_left(self, tokens: Tokens, limit: int) -> Tokens:
        if len(tokens.ids) <= limit:
            return tokens
        keep = self._kept(tokens.ids, limit)
        return Tokens(tokens.ids[keep], tokens.reply[keep], truncated=True)

    def _kept(self, ids: Ids, limit: int) -> NDArray[np.int64]:
        """The last `limit` positions of `ids`, the first of them given to the begin token where there is one."""
        keep = np.arange(len(ids) - limit, len(ids))
        if self.chat.bos and ids[0] == self._backend.token_to_id(self.chat.bos):
            keep[0] = 0
        return keep

    def _draft(self, prompt: Prompt, ids: Ids) -> Draft:
        if len(ids) < self.max_length:
            return Draft(prompt, ids, min(prompt.max_tokens, self.max_length - len(ids)))
        room = min(prompt.max_tokens, self.max_length // 2)
        return Draft(prompt, ids[self._kept(ids, self.max_length - room)], room, truncated=True)

    def _read(self, states: list[tuple[_Probe, torch.Tensor]], readings: "_Readings") -> None:
        """Take from the hidden states of one batch what is wanted."""
        with torch.inference_mode():
            if readings.representation is not None:
                rows = [p.row for p, _ in states if p.body]
                pooled = [pool(h[: p.body]) for p, h in states if p.body]
                readings.representation[rows] = torch.stack(pooled).cpu().numpy() if pooled else 0
            if readings.logprobs is not None:
                self._read_logprobs(states, readings.logprobs)
            if readings.choice_logits is not None and (asking := [(p, h) for p, h in states if p.asks]):
                last = torch.stack([h[-1] for _, h in asking])
                tokens = torch.tensor(readings.choices, device=last.device)
                readings.choice_logits[[p.row for p, _ in asking]] = self._head.logits(last, tokens).cpu().numpy()

    def _read_logprobs(self, states: list[tuple[_Probe, torch.Tensor]], into: list[NDArray[np.float32]]) -> None:
        rows = [(p, h, np.flatnonzero(p.reply[1:])) for p, h in states]  # token t + 1 is foretold at t
        before = torch.cat([h[torch.from_numpy(at).to(h.device)] for _, h, at in rows])
        targets = np.concatenate([p.ids[1:][at] for p, _, at in rows]).astype(np.int64)
        found = self._head.logprobs(before, torch.from_numpy(targets).to(before.device)).cpu().numpy()
        for (p, _, _), part in zip(rows, np.split(found, np.cumsum([len(at) for _, _, at in rows])[:-1]), strict=True):
            if p.body:
                into[p.row] = part


@dataclass(slots=True)
class _Readings:
    """The arrays that batches write into; None where not wanted."""

    representation: NDArray[np.float32] | None
    logprobs: list[NDArray[np.float32]] | None
    choice_logits: NDArray[np.float32] | None
    choices: Sequence[int]

    @classmethod
    def empty(cls, n: int, d: int, wants: frozenset[Want], choices: Sequence[int]) -> "_Readings":
        return cls(
            np.zeros((n, d), np.float32) if Want.REPRESENTATION in wants else None,
            [np.zeros(0, np.float32)] * n if Want.RESPONSE_LOGPROBS in wants else None,
            np.zeros((n, len(choices)), np.float32) if Want.CHOICE_LOGITS in wants else None,
            choices,
        )

    def measures(self, rows: Sequence[Tokens]) -> Measures:
        return Measures(
            tokens=np.array([len(t.ids) for t in rows], np.int64),
            truncated=np.array([t.truncated for t in rows], np.bool_),
            representation=None if self.representation is None else unit(self.representation),
            response_logprobs=self.logprobs,
            choice_logits=self.choice_logits,
        )


def _probes(bodies: list[Tokens] | None, asked: list[Tokens] | None) -> Iterator[_Probe]:
    """The sequences to run: one per row where the row is the beginning of the row that asks, else one for each."""
    n = len(bodies if bodies is not None else asked or [])
    for row in range(n):
        body = bodies[row] if bodies is not None else None
        ask = asked[row] if asked is not None else None
        if body is not None and ask is not None and np.array_equal(ask.ids[: len(body.ids)], body.ids):
            yield _Probe(row, ask.ids, len(body.ids), ask.reply, asks=True)
            continue
        if body is not None:
            yield _Probe(row, body.ids, len(body.ids), body.reply, asks=False)
        if ask is not None:
            yield _Probe(row, ask.ids, 0, np.zeros(len(ask.ids), np.bool_), asks=True)


def _chat(tokenizer: Any, template: str) -> ChatFormat:
    own = tokenizer.chat_template
    if isinstance(own, dict):  # some tokenizers carry several, by use
        own = own.get("default")
    return chat_format(tokenizer.backend_tokenizer, tokenizer.eos_token, template, own, tokenizer.bos_token)


def load_checkpoint(checkpoint: Checkpoint, **options: Any) -> LocalModel:
    """The model of a training run: whole weights, or the adapter at `checkpoint.path` on its base model."""
    if (checkpoint.path / "adapter_config.json").exists():
        return LocalModel.load(checkpoint.base, adapter=checkpoint.path, **options)
    return LocalModel.load(str(checkpoint.path), **options)

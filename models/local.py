"""A language model on this machine: transformers weights, measured and sampled in batches."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.blocks import takes_blocks
from models.chat import ChatFormat, Tokens, chat_format
from models.decode import Draft, Vocabulary, completion, write
from models.encoded import Encoded
from models.fingerprint import ADAPTER, fingerprint
from models.forward import LAYOUTS, Ids, batches, check_packing, hidden_states
from models.head import Head, head_of
from models.keys import held
from models.network import Loaded, load_network
from models.prefix import began, common, scored
from models.protocol import Completion, Measures, Prompt, Want
from models.readings import Probe, Readings, measures, probes
from models.tokens import Counter
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Messages

BATCH_TOKENS = {"cpu": 1024, "mps": 8192, "cuda": 16384}
REPLY_FACTOR = {"cpu": 4}  # else 1; a step of writing computes one token per row, and wide steps suit a processor


class LocalModel:
    """A causal language model of transformers, in evaluation mode. Implements `LanguageModel`.

    Build it with `load`. `tokens_processed` counts the tokens fed through the network so far, padding left out (the
    cost of all calls); `parameters` and `dimension` describe the network.
    """

    def __init__(
        self, loaded: Loaded, chat: ChatFormat, fingerprint: str, max_length: int, batch_tokens: int, layout: str
    ) -> None:
        self.network = loaded.network.requires_grad_(False)
        self.tokenizer = loaded.tokenizer
        self.folder = loaded.folder
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
        forward pass, padding included (by default 1,024 on a processor, 16,384 on a GPU). Neither it nor `layout`
        ("padded", "packed") changes a result. `template` is "tulu", "grape", "raw" or "own". Raises `InputError` for
        whatever cannot be loaded, before any work.
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
        return Counter(self.backend, self.chat)(rows)

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        """All that is wanted, from one forward pass; results are in the order of `rows`.

        Rows that begin alike are computed once up to where they part, if log-probabilities are all that is wanted.
        A representation is of the row without the mark that opens a reply. CHOICE_LOGITS are those after that mark;
        where a row is too long for it, the row's beginning is cut instead of its end.
        """
        bodies = self.encode(rows) if wants - {Want.CHOICE_LOGITS} else None
        if bodies is not None and wants == {Want.RESPONSE_LOGPROBS}:
            return measures(bodies, scored(self, bodies))
        asked = self._asked(rows, self.max_length) if Want.CHOICE_LOGITS in wants else None
        return self._measured(list(probes(bodies, asked)), bodies or asked or [], wants, choices)

    def encode(self, rows: Sequence[Messages]) -> list[Tokens]:
        """Ids and reply masks of rows in this model's format, cut on the right to `max_length`."""
        limit = self.max_length
        found = self.encoded(rows)
        return [t if len(t.ids) <= limit else Tokens(t.ids[:limit], t.reply[:limit], truncated=True) for t in found]

    def read(self, rows: Sequence[Tokens], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        """`measure` of ids as they are, in no format; CHOICE_LOGITS are those after a row's last token."""
        sequences = [Probe(i, t.ids, len(t.ids), t.prompt, t.reply, asks=True) for i, t in enumerate(rows)]
        return self._measured(sequences, rows, wants, choices)

    def read_replies(self, rows: Sequence[Tokens]) -> Sequence[NDArray[np.float32]]:
        """Natural log-probabilities of the reply tokens of ids as they are, each row by itself."""
        return self.read(rows, frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs or []

    def _measured(
        self, sequences: Sequence[Probe], rows: Sequence[Tokens], wants: frozenset[Want], choices: Sequence[int]
    ) -> Measures:
        readings = Readings.empty(len(rows), self.dimension, wants, choices)
        head = self.head if wants - {Want.REPRESENTATION, Want.PROMPT_REPRESENTATION} else None
        for states in hidden_states(self.network, [p.ids for p in sequences], self.batch_tokens, self.layout):
            readings.take([(sequences[i], h) for i, h in states], head)
        self.tokens_processed += sum(len(p.ids) for p in sequences)
        return readings.measures(rows)

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """One reply per prompt, in order. The prompts of one batch are like in length and share a cache; what all
        prompts begin with (worked examples) is computed once.

        A prompt that fills the context (`max_length`) is cut at its beginning, which `Completion.truncated` says; a
        reply ends with "length" where the context is full.
        """
        asked = self._asked([p.messages for p in prompts])
        drafts = [self._draft(prompt, tokens.ids) for prompt, tokens in zip(prompts, asked, strict=True)]
        start = common([d.ids for d in drafts])
        base = began(self, Tokens(drafts[0].ids, np.zeros(len(drafts[0].ids), np.bool_)), start) if start else None
        seen = start if base else 0
        for batch in batches([held(len(d.ids) - seen, len(d.ids) + d.room) for d in drafts], self._reply_tokens):
            write(self.network, self._vocabulary, [drafts[i] for i in batch], self.batch_tokens, base)
        self.tokens_processed += sum(len(d.ids) - seen + len(d.tokens) for d in drafts)
        return [completion(draft, self._vocabulary) for draft in drafts]

    @property
    def _reply_tokens(self) -> int:
        """Tokens of prompts in a batch that is written on; of keys and values it may hold `keys.HELD` times as many."""
        return REPLY_FACTOR.get(self.network.device.type, 1) * self.batch_tokens

    @cached_property
    def backend(self) -> Tokenizer:
        tokenizer: Tokenizer = self.tokenizer.backend_tokenizer
        return tokenizer

    @cached_property
    def encoded(self) -> Encoded:
        """Rows as ids, uncut; what was encoded lately is remembered."""
        return Encoded(self.backend, self.chat)

    @cached_property
    def head(self) -> Head:
        """The output layer; raises `InputError` for an architecture whose logits are not understood."""
        return head_of(self.network)

    @cached_property
    def takes_blocks(self) -> bool:
        """Whether replies to one prompt may be measured in one row with it."""
        return takes_blocks(self.network)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        named = [self.network.generation_config.eos_token_id, self.network.config.get_text_config().eos_token_id]
        ends = {self.tokenizer.eos_token_id}
        for ids in named:
            ends |= set(ids) if isinstance(ids, list) else {ids}
        return Vocabulary(self.backend, frozenset(ends - {None}))

    def _asked(self, rows: Sequence[Messages], limit: int | None = None) -> list[Tokens]:
        """Rows followed by the mark that opens a reply, the beginning cut where they exceed `limit`."""
        tokens = self.encoded(rows, ask=True)
        return tokens if limit is None else [self._cut_left(t, limit) for t in tokens]

    def _cut_left(self, tokens: Tokens, limit: int) -> Tokens:
        if len(tokens.ids) <= limit:
            return tokens
        keep = self._kept(tokens.ids, limit)
        return Tokens(tokens.ids[keep], tokens.reply[keep], truncated=True)

    def _kept(self, ids: Ids, limit: int) -> NDArray[np.int64]:
        """The last `limit` positions of `ids`, the first of them given to the begin token where there is one."""
        keep = np.arange(len(ids) - limit, len(ids))
        if self.chat.bos and ids[0] == self.backend.token_to_id(self.chat.bos):
            keep[0] = 0
        return keep

    def _draft(self, prompt: Prompt, ids: Ids) -> Draft:
        if len(ids) < self.max_length:
            return Draft(prompt, ids, min(prompt.max_tokens, self.max_length - len(ids)))
        room = min(prompt.max_tokens, self.max_length // 2)
        return Draft(prompt, ids[self._kept(ids, self.max_length - room)], room, truncated=True)


def _chat(tokenizer: Any, template: str) -> ChatFormat:
    own = tokenizer.chat_template
    if isinstance(own, dict):  # some tokenizers carry several, by use
        own = own.get("default")
    return chat_format(tokenizer.backend_tokenizer, tokenizer.eos_token, template, own, tokenizer.bos_token)


def load_checkpoint(checkpoint: Checkpoint, **options: Any) -> LocalModel:
    """The model of a training run: whole weights, or the adapter at `checkpoint.path` on its base model."""
    if (checkpoint.path / ADAPTER).exists():
        return LocalModel.load(checkpoint.base, adapter=checkpoint.path, **options)
    return LocalModel.load(str(checkpoint.path), **options)

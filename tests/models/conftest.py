"""The models that this room's tests share."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from models.chat import ChatFormat
from models.local import LocalModel
from models.tokens import load_tokenizer


@pytest.fixture(scope="session")
def tiny(tiny_model_dir: Path) -> LocalModel:
    """float32 on the processor, one row per forward pass: the reference that batches must equal."""
    return LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu", batch_tokens=1)


@pytest.fixture(scope="session")
def toy(tiny_model_dir: Path) -> tuple[Tokenizer, ChatFormat]:
    return load_tokenizer(tiny_model_dir)

"""The real all-MiniLM-L6-v2, from its wheel, through sentence-transformers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from model_rows import said

from models.encoder import SentenceEncoder, row_text
from models.fingerprint import MINILM, resolve
from warehouse.errors import InputError

TEXTS = ["What is 2 plus 3?", "Add two and three.", "The cat sleeps on the sofa. " * 30, ""]


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(MINILM, device="cpu")


def test_embeddings_have_unit_length_and_mean_something(encoder: SentenceEncoder) -> None:
    vectors = encoder.embed(TEXTS)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_neither_company_nor_order_change_an_embedding(encoder: SentenceEncoder) -> None:
    together = encoder.embed(TEXTS)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS[::-1]])[::-1]
    assert np.abs(together - alone).max() < 1e-5


def test_no_texts_no_vectors(encoder: SentenceEncoder) -> None:
    assert encoder.embed([]).shape == (0, 384)


def test_a_prompt_is_put_before_every_text(encoder: SentenceEncoder) -> None:
    asking = SentenceEncoder(MINILM, device="cpu", prompt="query: ")
    assert asking.embed(["cats"]) == pytest.approx(encoder.embed(["query: cats"]), abs=1e-5)
    assert asking.fingerprint != encoder.fingerprint


def test_the_fingerprint_is_of_the_content(encoder: SentenceEncoder, tmp_path: Path) -> None:
    copy = shutil.copytree(resolve(MINILM).folder, tmp_path / "copy")
    assert SentenceEncoder(str(copy)).fingerprint == encoder.fingerprint
    (copy / "1_Pooling" / "config.json").write_text("{}")
    assert SentenceEncoder(str(copy)).fingerprint != encoder.fingerprint


def test_pickled_modules_and_foreign_code_are_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(resolve(MINILM).folder, tmp_path / "copy")
    modules = (copy / "modules.json").read_text()
    (copy / "modules.json").write_text(modules.replace("sentence_transformers.models.Pooling", "os.system"))
    with pytest.raises(InputError, match="trust_remote_code"):
        SentenceEncoder(str(copy)).embed(["x"])
    (copy / "2_Dense").mkdir()
    (copy / "2_Dense" / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match="is a pickle"):
        SentenceEncoder(str(copy))


def test_the_text_of_a_row_is_its_turns_joined_by_line_ends() -> None:
    assert row_text(said(" question ", "answer", "more?")) == "question\nanswer\nmore?"

"""The real all-MiniLM-L6-v2, from its wheel, through sentence-transformers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from model_rows import said

from models.encoder import SentenceEncoder, prompt_text, row_text
from models.fingerprint import MINILM, resolve
from warehouse.errors import InputError
from warehouse.records import Message

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


@pytest.mark.parametrize("prompt", ["", "query: "])
def test_embeddings_are_those_of_sentence_transformers(encoder: SentenceEncoder, prompt: str) -> None:
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(encoder.folder), device="cpu")
    expected = peer.encode(TEXTS, prompt=prompt or None, normalize_embeddings=True)
    found = SentenceEncoder(MINILM, device="cpu", prompt=prompt, batch_tokens=50).embed(TEXTS)
    assert np.abs(found - expected).max() < 1e-5


def test_bfloat16_gives_the_same_directions(encoder: SentenceEncoder) -> None:
    rough = SentenceEncoder(MINILM, device="cpu", dtype="bfloat16").embed(TEXTS)
    assert rough.dtype == np.float32
    assert (rough * encoder.embed(TEXTS)).sum(1).min() > 0.999
    assert np.linalg.norm(rough, axis=1) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match="unknown dtype 'int3'"):
        SentenceEncoder(MINILM, dtype="int3").embed(TEXTS)


def test_chunks_of_texts_do_not_show(encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    together = encoder.embed(TEXTS)
    monkeypatch.setattr("models.encoder.CHUNK_TEXTS", 3)
    assert np.abs(encoder.embed(TEXTS) - together).max() < 1e-5


def test_modules_without_a_transformer_are_left_to_the_library(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(resolve(MINILM).folder / "tokenizer.json"))
    weights = np.random.default_rng(0).standard_normal((words.get_vocab_size(), 8)).astype(np.float32)
    library = SentenceTransformer(modules=[StaticEmbedding(words, embedding_weights=weights)], device="cpu")
    library.save(str(tmp_path))
    encoder = SentenceEncoder(str(tmp_path), device="cpu")
    assert np.abs(encoder.embed(TEXTS[:3]) - library.encode(TEXTS[:3], normalize_embeddings=True)).max() < 1e-6


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
    assert prompt_text((Message("system", "Be terse."), *said("question", "answer"))) == "Be terse.\nquestion"
    assert prompt_text(said("question")) == "question"

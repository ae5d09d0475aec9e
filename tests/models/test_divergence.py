"""How far two models' predictions lie apart: worked numbers, a direct computation, and no trace of batches."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_rows import ROWS, said

from models.divergence import divergence, jsd
from models.local import LocalModel
from warehouse.errors import InputError


@pytest.fixture(scope="module")
def damaged(tiny_model_dir: Path) -> LocalModel:
    """The same model with one layer's output cut off."""
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")
    model.network.model.layers[1].mlp.down_proj.weight.data.zero_()
    return model


def of(p: list[float], q: list[float]) -> float:
    return float(jsd(torch.tensor([p]).log(), torch.tensor([q]).log()))


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.5, 0.5], [0.9, 0.1], 0.1017492),
        ([0.3, 0.7], [0.3, 0.7], 0),
        ([1, 0], [0, 1], math.log(2)),
        ([0.5, 0.5, 0], [0, 0, 1], math.log(2)),
    ],
)
def test_divergence_by_hand(p: list[float], q: list[float], expected: float) -> None:
    assert of(p, q) == pytest.approx(expected, abs=1e-6)
    assert of(q, p) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=2, max_size=6))
def test_divergence_lies_between_0_and_ln_2(weights: list[tuple[int, int]]) -> None:
    p, q = np.array(weights, np.float64).T
    found = of((p / p.sum()).tolist(), (q / q.sum()).tolist())
    m = (p / p.sum() + q / q.sum()) / 2
    expected = sum((w / w.sum() * np.log(w / w.sum() / m)).sum() for w in (p, q)) / 2
    assert found == pytest.approx(expected, abs=1e-5)
    assert 0 <= found <= math.log(2)


def test_a_row_is_the_mean_over_its_reply_tokens(damaged: LocalModel, tiny: LocalModel) -> None:
    found = divergence(damaged, tiny, ROWS)
    assert found.dtype == np.float32
    for value, tokens in zip(found, tiny.encode(ROWS), strict=True):
        ids = torch.tensor(tokens.ids[None], dtype=torch.int64)
        with torch.inference_mode():
            p, q = (model.network(ids).logits[0].softmax(-1).double() for model in (damaged, tiny))
        m = (p + q) / 2
        each = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
        before = np.flatnonzero(tokens.reply) - 1
        assert (np.isnan(value) and not len(before)) or value == pytest.approx(each[before].mean().item(), rel=1e-4)
    assert np.nanmin(found) > 1e-4


def test_a_model_does_not_differ_from_itself(tiny: LocalModel) -> None:
    assert np.nanmax(divergence(tiny, tiny, ROWS)) < 1e-8


def test_neither_batches_nor_chunks_nor_order_change_a_row(
    damaged: LocalModel, tiny: LocalModel, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")
    together = divergence(damaged, whole, ROWS)
    monkeypatch.setattr("models.divergence.CHUNK_LOGITS", 1000)
    alone = divergence(damaged, tiny, ROWS[::-1])[::-1]  # `tiny` runs one row at a time
    assert np.allclose(together, alone, atol=1e-6, equal_nan=True)


def test_tokens_count_for_both_models(damaged: LocalModel, tiny: LocalModel) -> None:
    before = damaged.tokens_processed, tiny.tokens_processed
    divergence(damaged, tiny, [said("x", "y"), said("never run")])
    n = len(tiny.encode([said("x", "y")])[0].ids)
    assert (damaged.tokens_processed - before[0], tiny.tokens_processed - before[1]) == (n, n)


def test_other_vocabularies_are_refused(tiny: LocalModel, tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        divergence(LocalModel.load("winnow-tiny", dtype="float32", device="cpu"), tiny, ROWS)
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    text = (copy / "tokenizer.json").read_text(encoding="utf-8")
    (copy / "tokenizer.json").write_text(text.replace("<|pad|>", "<|fad|>"), encoding="utf-8")
    with pytest.raises(InputError, match="cannot be compared"):
        divergence(LocalModel.load(str(copy), dtype="float32", device="cpu"), tiny, ROWS)

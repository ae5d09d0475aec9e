"""Magnitude pruning: which weights go, what is written, and that training keeps them at zero."""

import json
from dataclasses import replace
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from models.local import LocalModel
from training.prune import prune, smallest
from training.sft import Sft
from training.tuning.full import Full
from warehouse.errors import InputError


def test_the_smallest_by_hand() -> None:
    weight = torch.tensor([[0.5, -0.1, 0.2], [-0.2, 3.0, 0.0]])
    assert smallest(weight, 0.5).tolist() == [[False, True, True], [False, False, True]]  # of two 0.2 the first
    assert not smallest(weight, 0.01).any()


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.floats(-4, 4, width=16)),
       st.floats(0.01, 0.99))  # fmt: skip
def test_exactly_the_share_goes_and_nothing_smaller_stays(values: np.ndarray, share: float) -> None:
    weight = torch.from_numpy(values)
    gone = smallest(weight, share)
    assert int(gone.sum()) == round(share * weight.numel())
    if gone.any() and not gone.all():
        assert weight[gone].abs().max() <= weight[~gone].abs().min()


@pytest.fixture(scope="module")
def pruned(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "model"
    prune(str(tiny_model_dir), 0.5, out)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_what_is_pruned(tiny_model_dir: Path, pruned: Path) -> None:
    before, after = weights(tiny_model_dir), weights(pruned)
    facts = json.loads((pruned / "pruned.json").read_text())
    linear = [name for name in before if "_proj" in name]
    assert sorted(facts["layers"]) == sorted(name.removesuffix(".weight") for name in linear)
    assert facts["zeros"] == sum(facts["layers"].values()) == facts["weights"] // 2
    for name, weight in after.items():
        kept = weight != 0 if name in linear else torch.ones_like(weight, dtype=torch.bool)
        assert torch.equal(weight[kept], before[name][kept])
        assert int((~kept).sum()) == (weight.numel() // 2 if name in linear else 0)
    assert LocalModel.load(str(pruned)).fingerprint != LocalModel.load(str(tiny_model_dir)).fingerprint


def test_some_layers_can_be_named(tiny_model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = prune(str(tiny_model_dir), 0.25, tmp_path / "out", ["up_proj"])
    assert {name.rpartition(".")[2] for name in facts.layers} == {"up_proj"}
    assert facts.zeros == facts.weights // 4
    assert capfd.readouterr() == ("", "")
    with pytest.raises(InputError, match="is named nothing; it has down_proj, gate_proj"):
        prune(str(tiny_model_dir), 0.25, tmp_path / "none", "nothing")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_is_none_is_refused(tiny_model_dir: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match="give one between 0 and 1"):
        prune(str(tiny_model_dir), share, tmp_path / "out")


def test_zeros_stay_zero_where_they_are_kept(pruned: Path, tmp_path: Path) -> None:
    """With a high rate and weight decay."""
    before = weights(pruned)
    data = write_rows(tmp_path / "rows.parquet", sums(24))
    sft = Sft(learning_rate=1e-2, epochs=1, batch_size=4, gradient_accumulation=1, max_length=64, weight_decay=0.1,
              precision="float32")  # fmt: skip
    for keep, tuning in ((True, Full(keep_zeros=True)), (False, Full())):
        replace(sft, tuning=tuning)(str(pruned), data, tmp_path / str(keep), 0)
        after = weights(tmp_path / str(keep))
        zeros = {name: weight == 0 for name, weight in before.items() if "_proj" in name}
        moved = sum(int((after[name][zero] != 0).sum()) for name, zero in zeros.items())
        assert moved == 0 if keep else moved > 1000
        assert all((after[name][~zero] != before[name][~zero]).float().mean() > 0.9 for name, zero in zeros.items())
        assert not torch.equal(after["model.norm.weight"], before["model.norm.weight"])

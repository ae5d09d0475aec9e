"""The warm-up of LESS: what it keeps, that gradients can be taken there, and what a killed one leaves."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sft_rows import sums, write_rows

from models.gradients import gradients
from models.local import LocalModel
from models.lora import warm_factors
from training.sft import ATTENTION, Sft
from training.warmup import Warmup, kept, less
from warehouse.errors import InputError

FACTORS = {"name": "lora", "rank": 4, "alpha": 8, "targets": list(ATTENTION)}
SMALL = less(tuning=FACTORS, epochs=2, batch_size=4, gradient_accumulation=1, max_length=64)


@pytest.fixture(scope="module")
def warmed(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    data = write_rows(folder / "rows.parquet", sums(24))
    Warmup(SMALL, checkpoints=3)(str(tiny_model_dir), data, folder / "out", 0)
    return folder / "out"


def test_evenly_spaced_checkpoints_are_kept_with_their_share_of_the_learning_rate(warmed: Path) -> None:
    steps = [int(folder.name) for folder, _ in kept(warmed)]
    assert steps == [4, 8, 12]
    rates = pq.read_table(warmed / "loss.parquet")["learning_rate"].to_numpy()
    means = np.array([rates[start : start + 4].mean() for start in (0, 4, 8)])
    assert np.allclose([share for _, share in kept(warmed)], means / means.sum())


def test_gradients_are_taken_at_each_of_them(warmed: Path, tiny_model_dir: Path) -> None:
    rows, found = sums(5), []
    for folder, _ in kept(warmed):
        model = LocalModel.load(str(tiny_model_dir), dtype="float32", adapter=folder)
        factors = warm_factors(model, folder)
        assert any(float(each.moments[1].second.abs().max()) > 0 for each in factors if each.moments)
        found.append(gradients(model, factors, rows, adam=True, dims=32, half=False))
    assert np.allclose(np.linalg.norm(found, axis=2), 1, atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_whole_weights_and_no_checkpoint_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="must be lora or rslora"):
        Warmup(Sft())
    with pytest.raises(InputError, match="checkpoints is 0; give 1 to 64"):
        Warmup(SMALL, checkpoints=0)

"""Tuning and assessing meet: a model that has learnt its rows is found to have learnt them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.assess import Assessment, assess
from eval.compare import compare
from eval.tasks import ExactMatch
from models.local import LocalModel
from training.sft import tiny
from warehouse.records import Dataset, Example, Message

WORDS = ["river", "stone", "cloud", "lamp", "north", "paper"]
EXAMPLES = tuple(
    Example((Message("user", f"Reverse the word {word}."), Message("assistant", word[::-1])), "made") for word in WORDS
)


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    messages = [[{"role": m.role, "content": m.content} for m in e.messages] for e in EXAMPLES]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "rows.parquet")
    return Dataset(tmp_path / "rows.parquet", "rows")


def assessed(model: LocalModel) -> Assessment:
    return assess(ExactMatch(EXAMPLES, max_tokens=12), model, "key", np.random.default_rng(0))


def test_learnt_rows_are_answered_and_stopped(tiny_model_dir: Path, rows: Dataset, tmp_path: Path) -> None:
    tiny(learning_rate=5e-3, epochs=60, batch_size=6)(str(tiny_model_dir), rows, tmp_path / "out", 0)
    after = assessed(LocalModel.load(str(tmp_path / "out"), dtype="float32"))
    before = assessed(LocalModel.load(str(tiny_model_dir), dtype="float32"))
    assert after.report.metrics["exact_match"].value == 1.0
    assert {row.finish_reason for row in after.items} == {"stop"}
    assert before.report.metrics["exact_match"].value == 0.0
    gained = compare({0: after.table()}, {0: before.table()}, "nll", np.random.default_rng(0))
    assert gained.verdict == "better"
    assert gained.difference.high < -3


def test_an_adapter_gains_what_its_training_loss_says(tiny_model_dir: Path, rows: Dataset, tmp_path: Path) -> None:
    train = tiny(tuning="lora", learning_rate=1e-2, epochs=40, batch_size=6, precision="float32")
    train(str(tiny_model_dir), rows, tmp_path / "out", 0)
    tuned = assessed(LocalModel.load(str(tiny_model_dir), dtype="float32", adapter=tmp_path / "out"))
    curve = pq.read_table(tmp_path / "out" / "loss.parquet")["loss"].to_pylist()
    assert curve[-1] < curve[0] - 2
    # the last step's update comes after its loss, and its learning rate is almost nought
    assert tuned.report.metrics["nll"].value == pytest.approx(curve[-1], abs=0.02)

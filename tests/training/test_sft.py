"""Fine-tuning a small random model: exactness, repetition, weights, what is written and refused."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from sft_rows import sums, write_rows

from models.local import LocalModel
from models.protocol import Want
from training.sft import Sft
from training.tuning.adapters import Lora
from warehouse.errors import InputError
from warehouse.records import Dataset, Message, Messages

ROWS = sums(24)
SHORT = Sft(learning_rate=1e-3, epochs=1, batch_size=4, gradient_accumulation=1, max_length=64, precision="float32")
WHOLE = replace(SHORT, batch_size=24)  # all rows in one step, so that its loss is that of the base model


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return write_rows(tmp_path / "rows.parquet", ROWS)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(folder.glob("*.safetensors")))


def distance(a: Path, b: Path) -> float:
    """The largest difference between two models' weights."""
    one, two = weights_of(a), weights_of(b)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def losses(folder: Path) -> list[float]:
    return pq.read_table(folder / "loss.parquet")["loss"].to_pylist()


def reference_loss(model: Path, rows: list[Messages], weights: np.ndarray) -> float:
    """Σ w · nll / Σ tokens from the log-probabilities that the model reports when it measures the same rows."""
    measured = LocalModel.load(str(model), dtype="float32").measure(rows, frozenset({Want.RESPONSE_LOGPROBS}))
    logprobs = measured.response_logprobs
    assert logprobs is not None
    total = sum(w * -float(x.sum()) for w, x in zip(weights, logprobs, strict=True))
    return total / sum(len(x) for x in logprobs)


def test_loss_is_what_measuring_the_rows_gives(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    WHOLE(str(tiny_model_dir), data, tmp_path / "out", 0)
    assert losses(tmp_path / "out")[0] == pytest.approx(reference_loss(tiny_model_dir, ROWS, np.ones(24)), abs=1e-5)


def test_packing_is_exact(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    for name, sft in {"plain": WHOLE, "packed": replace(WHOLE, packing=True)}.items():
        sft(str(tiny_model_dir), data, tmp_path / name, 0)
    facts = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("plain", "packed")]
    assert facts[0]["tokens"] == facts[1]["tokens"]
    assert losses(tmp_path / "packed")[0] == pytest.approx(losses(tmp_path / "plain")[0], abs=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_same_seed_same_bits(tiny_model_dir: Path, data: Dataset, tmp_path: Path, precision: Any) -> None:
    sft = replace(SHORT, precision=precision)
    for name, seed in {"a": 7, "b": 7, "c": 8}.items():
        sft(str(tiny_model_dir), data, tmp_path / name, seed)
    assert distance(tmp_path / "a", tmp_path / "b") == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert distance(tmp_path / "a", tmp_path / "c") > 0


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (4, 2)])
def test_batches_and_accumulation_make_the_same_step(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, batch: int, accumulation: int
) -> None:
    replace(SHORT, batch_size=8)(str(tiny_model_dir), data, tmp_path / "whole", 0)
    parts = replace(SHORT, batch_size=batch, gradient_accumulation=accumulation)
    parts(str(tiny_model_dir), data, tmp_path / "parts", 0)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-5


def test_equal_weights_are_the_plain_run(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    SHORT(str(tiny_model_dir), data, tmp_path / "plain", 0)
    SHORT(str(tiny_model_dir), replace(data, weights=np.full(24, 3.7)), tmp_path / "equal", 0)
    assert distance(tmp_path / "plain", tmp_path / "equal") == 0


@pytest.mark.parametrize("packing", [False, True])
def test_weights_multiply_the_loss_of_their_rows(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, packing: bool
) -> None:
    weights = np.random.default_rng(0).uniform(0.1, 4, 24)
    replace(WHOLE, packing=packing)(str(tiny_model_dir), replace(data, weights=weights), tmp_path / "out", 0)
    expected = reference_loss(tiny_model_dir, ROWS, weights / weights.mean())
    assert losses(tmp_path / "out")[0] == pytest.approx(expected, abs=1e-5)


def test_weights_belong_to_the_rows_of_the_file(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Rows that the guard rejects keep their weight to themselves, and it does not count in the mean."""
    bad = tuple(m for m in ROWS[0] if m.role == "user")
    weights = np.r_[50.0, np.linspace(0.5, 2, 24)]
    data = write_rows(tmp_path / "mixed.parquet", [bad, *ROWS], weights)
    WHOLE(str(tiny_model_dir), data, tmp_path / "out", 0)
    expected = reference_loss(tiny_model_dir, ROWS, weights[1:] / weights[1:].mean())
    assert losses(tmp_path / "out")[0] == pytest.approx(expected, abs=1e-5)


def test_what_is_written(
    tiny_model_dir: Path,
    data: Dataset,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a training run called the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("CI", raising=False)  # trl reports runs elsewhere
    out = tmp_path / "out"
    made = replace(SHORT, epochs=2, save_every=4)(str(tiny_model_dir), data, out, 3)
    assert capfd.readouterr() == ("", "")
    assert (made.path, made.base, made.data_key, made.seed) == (out, str(tiny_model_dir), "rows", 3)
    assert not [p for p in out.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl") or p.name == "checkpoints"]
    curve = pq.read_table(out / "loss.parquet").to_pydict()
    assert curve["step"] == list(range(1, 13))
    assert curve["epoch"][-1] == pytest.approx(2)
    assert curve["learning_rate"][-1] < curve["learning_rate"][1]
    assert np.diff(curve["seconds"]).min() > 0
    facts = json.loads((out / "training.json").read_text())
    assert facts["funnel"]["kept"] == 24
    assert facts["tokens"] == 2 * facts["tokens_per_epoch"] == curve["tokens"][-1]
    assert facts["flops"] == 6 * facts["trainable_parameters"] * facts["tokens"]
    assert facts["peak_memory_bytes"] > 100 * 2**20
    assert LocalModel.load(str(out)).fingerprint != LocalModel.load(str(tiny_model_dir)).fingerprint


def test_training_learns(tiny_model_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "few.parquet", ROWS[:4])
    replace(SHORT, epochs=30, learning_rate=3e-3)(str(tiny_model_dir), data, tmp_path / "out", 0)
    curve = losses(tmp_path / "out")
    assert curve[-1] < curve[0] / 3


def test_rows_are_cut_where_the_positions_of_the_model_end(tiny_model_dir: Path, tmp_path: Path) -> None:
    long = (Message("user", "Count."), Message("assistant", " ".join(map(str, range(400)))))
    data = write_rows(tmp_path / "long.parquet", [long])
    replace(SHORT, max_length=4096)(str(tiny_model_dir), data, tmp_path / "out", 0)
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (facts["tokens"], facts["rows_cut"]) == (512, 1)
    assert 0.3 < facts["share_of_label_tokens_lost"] < 0.8


def test_schedules(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    sft = replace(SHORT, batch_size=2, warmup=0.25)
    rates = {}
    for schedule in ("cosine", "linear", "constant"):
        replace(sft, schedule=schedule)(str(tiny_model_dir), data, tmp_path / schedule, 0)
        curve = pq.read_table(tmp_path / schedule / "loss.parquet")
        rates[schedule] = np.array(curve["learning_rate"].to_pylist()) / sft.learning_rate
    steps = np.arange(12)
    rise, progress = steps / 3, (steps - 3) / 9
    for schedule, fall in {
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": 1.0,
    }.items():
        assert rates[schedule] == pytest.approx(np.where(steps < 3, rise, fall), abs=1e-9)


def test_a_run_of_one_step_learns_and_says_what_it_left_out(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path
) -> None:
    sft = replace(SHORT, batch_size=64, warmup=0.03)
    sft(str(tiny_model_dir), data, tmp_path / "one", 0)
    assert pq.read_table(tmp_path / "one" / "loss.parquet")["learning_rate"].to_pylist() == [sft.learning_rate]
    long = write_rows(tmp_path / "long.parquet", [*sums(8), *[(Message("user", "why " * 400), ROWS[0][1])] * 2])
    replace(sft, warmup=0.0)(str(tiny_model_dir), long, tmp_path / "cut", 0)
    [note] = json.loads((tmp_path / "cut" / "training.json").read_text())["notes"]
    assert note.startswith("trained on 8 of 10 rows, 2 no_label_tokens (max_length is ")


def test_an_adapter_is_saved_with_its_base_and_reloads_exactly(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from models.tokens import load_tokenizer
    from training import loop
    from training.guard import guard
    from training.quiet import quiet

    sft = replace(SHORT, tuning=Lora(targets=("q_proj", "v_proj")), learning_rate=1e-2)
    out = tmp_path / "out"
    sft(str(tiny_model_dir), data, out, 0)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model_dir)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert not (out / "model.safetensors").exists()
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
        reloaded = PeftModel.from_pretrained(base, out).eval()
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    rows = guard(data.path, tokenizer, chat, 64)
    again = tmp_path / "again"
    trainer = loop.build(sft, loop.load(sft, str(tiny_model_dir), chat.template), rows, None, 0, again, (4, 1))
    trainer.train()
    ids = torch.tensor([rows.table["input_ids"][0].as_py()])
    with torch.inference_mode():
        trained = trainer.model.eval()(input_ids=ids).logits
        assert (reloaded(input_ids=ids).logits - trained).abs().max() < 1e-4
        assert (reloaded.get_base_model()(input_ids=ids).logits - trained).abs().max() < 1e-4
        with reloaded.disable_adapter():
            assert (reloaded(input_ids=ids).logits - trained).abs().max() > 1e-3


def test_a_loss_that_is_no_number_names_step_and_rows(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model_dir, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"at step 1, in the batch of rows \d+, \d+, \d+, \d+ \(row numbers"):
        SHORT(str(broken), data, tmp_path / "out", 0)


@pytest.mark.parametrize("step", [3, 6])  # the last one has no loss after it
def test_a_gradient_that_is_no_number_leaves_the_weights_before_it(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    from training.row_trainer import RowTrainer

    sft, out = replace(SHORT, save_every=1), tmp_path / "out"
    backward = RowTrainer.training_step

    def spoilt(self: Any, model: Any, inputs: Any, labels: Any = None) -> Any:
        loss = backward(self, model, inputs, labels)
        if self.state.global_step == step - 1:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(torch.nan)
        return loss

    monkeypatch.setattr(RowTrainer, "training_step", spoilt)
    said = rf"the gradient stopped .* at step {step}, in the step over rows \d+, .* of step {step - 1} are"
    with pytest.raises(InputError, match=said):
        sft(str(tiny_model_dir), data, out, 0)
    assert not (out / "model.safetensors").exists()
    monkeypatch.undo()
    sft(str(tiny_model_dir), data, out, 0)  # goes on from there
    sft(str(tiny_model_dir), data, tmp_path / "straight", 0)
    one, other = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "straight"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_data_that_cannot_be_trained_on_is_refused(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    base, out = str(tiny_model_dir), tmp_path / "out"
    with pytest.raises(InputError, match="holds preference data"):
        SHORT(base, replace(data, kind="preference"), out, 0)
    with pytest.raises(InputError, match="has 24 rows but the dataset names 3 weights"):
        SHORT(base, replace(data, weights=np.ones(3)), out, 0)
    with pytest.raises(InputError, match="finite and above 0"):
        SHORT(base, replace(data, weights=np.r_[0.0, np.ones(23)]), out, 0)
    with pytest.raises(InputError, match="there is no such folder"):
        SHORT(str(tmp_path / "nowhere"), data, out, 0)
    with pytest.raises(InputError, match="no such file"):
        SHORT(base, replace(data, path=tmp_path / "nowhere.parquet"), out, 0)
    with pytest.raises(InputError, match=r"fsdp 'full_shard' spreads .* over several processes, and this run has one"):
        replace(SHORT, fsdp="full_shard")(base, data, out, 0)

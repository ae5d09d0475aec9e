"""Preference tuning of a small random model: the paper's loss, repetition, resuming, what is written and refused."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pair_rows import polite, write_pairs
from safetensors.torch import load_file, save_file

from models.local import LocalModel, load_checkpoint
from models.protocol import Want
from training.dpo import SMOOTHED, Dpo, Loss
from training.table import TRAINERS
from training.tuning.adapters import Lora
from warehouse.errors import InputError
from warehouse.records import Dataset, Message, Messages

PAIRS = polite(24)
SHORT = Dpo(
    learning_rate=1e-3, epochs=1, batch_size=4, gradient_accumulation=1, max_length=64, precision="float32", warmup=0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet", PAIRS)


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights, three passes."""
    out = tmp_path_factory.mktemp("plain") / "out"
    replace(SHORT, epochs=3)(str(tiny_model_dir), data, out, 7)
    return out


def curve(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = pq.read_table(folder / "loss.parquet").to_pydict()
    return found


def distance(a: Path, b: Path) -> float:
    one, two = (load_file(next(folder.glob("*.safetensors"))) for folder in (a, b))
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def conversations(side: str) -> list[Messages]:
    return [tuple(Message(t["role"], t["content"]) for t in (*row["prompt"], *row[side])) for row in PAIRS]


def logps(model: LocalModel, side: str) -> np.ndarray:
    """log π(y|x) of every pair's reply, by the forward pass that measures pools."""
    found = model.measure(conversations(side), frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
    assert found is not None
    return np.array([float(each.sum()) for each in found])


def test_the_loss_is_the_papers(tiny_model_dir: Path, data: Dataset, tmp_path: Path, plain: Path) -> None:
    """-log σ(β · (gain of the chosen - gain of the rejected)), of all pairs in one step, after some training.

    The second run starts from trained weights and its reference is those: margins begin at 0. Its own loss after a
    step of known size is recomputed from the weights it ends with, by measuring them.
    """
    whole = replace(SHORT, batch_size=24, epochs=2, beta=0.3)
    whole(str(plain), data, tmp_path / "out", 0)
    found = curve(tmp_path / "out")
    assert found["loss"][0] == pytest.approx(np.log(2), abs=1e-5)
    assert found["margin"][0] == pytest.approx(0, abs=1e-4)
    one = replace(whole, epochs=1, schedule="constant")
    one(str(plain), data, tmp_path / "one", 0)
    base = LocalModel.load(str(plain), dtype="float32")
    tuned = LocalModel.load(str(tmp_path / "one"), dtype="float32")
    gains = {side: logps(tuned, side) - logps(base, side) for side in ("chosen", "rejected")}
    margins = 0.3 * (gains["chosen"] - gains["rejected"])
    again = replace(one, epochs=2)
    again(str(plain), data, tmp_path / "two", 0)  # its second step sees what the first run ended with
    second = {name: values[1] for name, values in curve(tmp_path / "two").items()}
    assert second["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)
    assert second["margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert second["chosen_gain"] == pytest.approx(0.3 * gains["chosen"].mean(), abs=1e-4)
    assert second["rejected_gain"] == pytest.approx(0.3 * gains["rejected"].mean(), abs=1e-4)
    assert second["accuracy"] == (margins > 0).mean()


def test_training_prefers_what_was_chosen(tiny_model_dir: Path, plain: Path) -> None:
    found = curve(plain)
    assert found["loss"][-1] < found["loss"][0] / 2
    assert found["accuracy"][-1] == 1
    base, tuned = (LocalModel.load(str(folder), dtype="float32") for folder in (tiny_model_dir, plain))
    before, after = (logps(model, "chosen") - logps(model, "rejected") for model in (base, tuned))
    assert (after > before).all()


def test_same_seed_same_bits(tiny_model_dir: Path, data: Dataset, tmp_path: Path, plain: Path) -> None:
    for name, seed in {"a": 7, "b": 8}.items():
        replace(SHORT, epochs=3)(str(tiny_model_dir), data, tmp_path / name, seed)
    assert distance(tmp_path / "a", plain) == 0
    assert curve(tmp_path / "a")["loss"] == curve(plain)["loss"]
    assert distance(tmp_path / "b", plain) > 0


def test_batches_and_accumulation_make_the_same_step(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    for name, (batch, accumulation) in {"whole": (8, 1), "parts": (2, 4)}.items():
        sized = replace(SHORT, batch_size=batch, gradient_accumulation=accumulation, learning_rate=1e-4)
        sized(str(tiny_model_dir), data, tmp_path / name, 0)
    losses = [curve(tmp_path / name)["loss"] for name in ("whole", "parts")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-4


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_killed_run_ends_with_the_same_weights(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: Any
) -> None:
    from training import dpo_loop

    dpo = replace(SHORT, tuning=tuning, save_every=2)
    dpo(str(tiny_model_dir), data, tmp_path / "straight", 0)
    log = dpo_loop.PairTrainer.log

    def killed(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        log(self, logs, start_time)

    with monkeypatch.context() as patch:
        patch.setattr(dpo_loop.PairTrainer, "log", killed)
        with pytest.raises(KeyboardInterrupt):
            dpo(str(tiny_model_dir), data, tmp_path / "resumed", 0)
    assert [p.name for p in (tmp_path / "resumed" / "checkpoints").glob("checkpoint-4")] == ["checkpoint-4"]
    dpo(str(tiny_model_dir), data, tmp_path / "resumed", 0)
    assert json.loads((tmp_path / "resumed" / "training.json").read_text())["notes"] == ["goes on from step 4"]
    assert distance(tmp_path / "straight", tmp_path / "resumed") == 0
    assert curve(tmp_path / "straight")["loss"] == curve(tmp_path / "resumed")["loss"]
    assert curve(tmp_path / "straight")["tokens"] == curve(tmp_path / "resumed")["tokens"]


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
    dpo = replace(SHORT, tuning=Lora(), learning_rate=1e-2, epochs=2, save_every=4)
    made = dpo(str(tiny_model_dir), data, out, 3)
    assert capfd.readouterr() == ("", "")
    assert (made.path, made.base, made.data_key, made.seed, made.trainer) == (
        out, str(tiny_model_dir), "pairs", 3, dpo.spec,
    )  # fmt: skip
    assert not [p for p in out.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl") or p.name == "checkpoints"]
    facts = json.loads((out / "training.json").read_text())
    assert facts["funnel"]["kept"] == 24
    assert facts["tokens"] == 2 * facts["tokens_per_epoch"] == curve(out)["tokens"][-1]
    assert facts["trainer"] == dict(dpo.spec.params)
    assert facts["final_accuracy"] == 1
    tuned, base = load_checkpoint(made, dtype="float32"), LocalModel.load(str(tiny_model_dir), dtype="float32")
    assert (logps(tuned, "chosen") - logps(base, "chosen")).mean() > 1
    assert not any("ref" in name for name in load_file(out / "adapter_model.safetensors"))


@pytest.mark.parametrize("tuning", ["dora", "pissa", "hft", "lisa", {"name": "galore", "rank": 8}])
def test_whatever_is_tuned_starts_from_the_base(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, tuning: Any
) -> None:
    """The reference is the base model, not what a tuning makes of its weights before the first step."""
    made = replace(SHORT, tuning=tuning)(str(tiny_model_dir), data, tmp_path / "out", 0)
    found = curve(made.path)
    assert abs(found["margin"][0]) < 1e-4
    assert found["accuracy"][-1] == 1
    tuned = load_checkpoint(made, dtype="float32")
    base = LocalModel.load(str(tiny_model_dir), dtype="float32")
    gains = [logps(tuned, side) - logps(base, side) for side in ("chosen", "rejected")]
    assert (gains[0] > gains[1]).mean() > 0.9


def test_every_loss_runs(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    few = write_pairs(tmp_path / "few.parquet", PAIRS[:4])
    for loss in get_args(Loss):
        smoothing = 0.01 if loss in SMOOTHED else 0.0
        replace(SHORT, loss=loss, label_smoothing=smoothing, epochs=3)(str(tiny_model_dir), few, tmp_path / loss, 0)
        found = curve(tmp_path / loss)
        assert np.isfinite(found["loss"]).all()
        if loss != "discopop":  # which is not convex: around a margin of 0 its loss rises with the margin
            assert found["chosen_gain"][-1] > found["rejected_gain"][-1], loss


def test_a_loss_that_is_no_number_names_step_and_pairs(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at step \d+, in the batch of pairs \d+, \d+, \d+, \d+ \(row numbers"):
        SHORT(str(broken(tiny_model_dir, tmp_path)), data, tmp_path / "out", 0)


def broken(model: Path, tmp_path: Path) -> Path:
    """The model with a weight that is no number."""
    shutil.copytree(model, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    return tmp_path / "broken"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "kto"}, "unknown loss 'kto'; known: sigmoid, hinge"),
        ({"beta": 0}, "beta is 0; expected"),
        ({"beta": "x"}, "preference tuning: beta is 'x'; give a number"),
        ({"epochs": "x"}, "preference tuning: epochs is 'x'; give a number"),
        ({"batch_size": 1.5}, "preference tuning: batch_size is 1.5; give a whole number"),
        ({"max_length": 12.5}, "preference tuning: max_length is 12.5; give a whole number"),
        ({"label_smoothing": True}, "preference tuning: label_smoothing is True; give a number"),
        ({"loss": ["sigmoid"]}, "unknown loss"),
        ({"tuning": "mezo"}, "tuning 'mezo' takes steps of its own"),
        ({"loss": "exo_pair"}, "needs a label_smoothing"),
        ({"label_smoothing": 0.1}, "has no label_smoothing"),
        ({"loss": "robust", "label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"tuning": "nothing"}, "unknown tuning 'nothing'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"schedule": "step"}, "unknown schedule 'step'; known: cosine, linear, constant$"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dpo(**params)


def test_data_that_cannot_be_trained_on_is_refused(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    base, out = str(tiny_model_dir), tmp_path / "out"
    with pytest.raises(InputError, match="holds chat data"):
        SHORT(base, replace(data, kind="chat"), out, 0)
    with pytest.raises(InputError, match="pairs have no weights"):
        SHORT(base, replace(data, weights=np.ones(24)), out, 0)


def test_the_trainer_is_in_the_table() -> None:
    made = TRAINERS["dpo"]()
    assert isinstance(made, Dpo)
    assert (made.beta, made.learning_rate, made.schedule, made.epochs, made.loss) == (0.1, 5e-7, "linear", 3, "sigmoid")
    assert TRAINERS["dpo"](**json.loads(json.dumps(dict(made.spec.params)))) == made
    assert set(made.spec.params) == set(Dpo.__dataclass_fields__)
    assert Dpo(tuning=Lora()).spec.key != made.spec.key

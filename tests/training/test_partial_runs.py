"""Whole runs of the partial tunings: what moved in the written weights, repetition, going on after a stop, steps."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from training import resume
from training.sft import Sft
from training.tuning.alternation import active_layers
from training.tuning.protocol import Tuning
from training.tuning.table import tuning_of
from warehouse.records import Dataset

LAYERS = 4
TUNINGS: dict[str, dict[str, Any]] = {
    "hft": {},
    "lisa": {"layers": 1, "interval": 2},
    "s2ft": {"ratio": 0.1, "heads": 0.25},
    "galore": {"rank": 4, "gap": 2},
    "mezo": {"eps": 1e-2},
}
# everything that could move a weight which should stay, or tell a resumed run from a straight one
SFT = Sft(
    learning_rate=1e-2, epochs=1, batch_size=4, gradient_accumulation=2, max_length=48, weight_decay=0.1,
    precision="bf16", gradient_checkpointing=True, warmup=0.0, save_every=0,
)  # fmt: skip
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama of 4 layers with 2 key-value heads and tied embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(tiny_model_dir, folder)
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=LAYERS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        family: Any = AutoModelForCausalLM
        family.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", sums(48))


def trained(sft: Sft, base: str, data: Dataset, out: Path, seed: int = 5) -> Weights:
    sft(base, data, out, seed)
    return load_file(out / "model.safetensors")


def sft_of(name: str) -> Sft:
    return replace(SFT, tuning=tuning_of({"name": name, **TUNINGS[name]}))


@pytest.fixture(scope="module")
def runs(base: str, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of 6 steps with each tuning."""
    folder = tmp_path_factory.mktemp("runs")
    for name in TUNINGS:
        sft_of(name)(base, data, folder / name, 5)
    return {name: folder / name for name in TUNINGS}


def base_weights(base: str) -> Weights:
    return load_file(Path(base) / "model.safetensors")


def layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if ".layers." in name else None


def moved(after: Weights, before: Weights) -> set[str]:
    assert after.keys() == before.keys()
    return {name for name in after if not torch.equal(after[name], before[name])}


class Stopped(Exception):
    """A run dies here."""


@pytest.mark.parametrize("name", TUNINGS)
def test_a_run_that_is_stopped_within_an_interval_ends_as_the_straight_one(
    name: str, runs: dict[str, Path], base: str, data: Dataset, tmp_path: Path, monkeypatch: Any
) -> None:
    mark, sft = resume.mark_whole, replace(sft_of(name), save_every=3)

    def die(checkpoint: Path) -> None:
        mark(checkpoint)
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(resume, "mark_whole", die)
        with pytest.raises(Stopped):
            sft(base, data, tmp_path / "out", 5)
    after = trained(sft, base, data, tmp_path / "out")
    assert not moved(after, load_file(runs[name] / "model.safetensors"))
    losses = [pq.read_table(folder / "loss.parquet")["loss"] for folder in (tmp_path / "out", runs[name])]
    assert losses[0] == losses[1]


def test_half_of_the_layers_moved_and_the_rest_kept_its_bits(runs: dict[str, Path], base: str) -> None:
    before, after = base_weights(base), load_file(runs["hft"] / "model.safetensors")
    found = moved(after, before)
    inside = [name for name in before if layer_of(name) is not None]
    share = sum(before[n].numel() for n in inside if n in found) / sum(before[n].numel() for n in inside)
    assert share == pytest.approx(0.5, abs=0.02)
    assert {name for name in before if layer_of(name) is None} <= found


def test_only_layers_that_had_their_turn_moved(runs: dict[str, Path], base: str) -> None:
    found = moved(load_file(runs["lisa"] / "model.safetensors"), base_weights(base))
    turns = {number for interval in range(3) for number in active_layers(LAYERS, 1, 5, interval)}
    assert len(turns) < LAYERS
    assert {layer_of(name) for name in found} == {*turns, None}


def test_a_few_columns_moved_and_nothing_else(runs: dict[str, Path], base: str) -> None:
    before, after = base_weights(base), load_file(runs["s2ft"] / "model.safetensors")
    found = moved(after, before)
    assert {name.rpartition("layers.")[2] for name in found} == {
        f"{number}.{matrix}.weight" for number in range(LAYERS) for matrix in ("mlp.down_proj", "self_attn.o_proj")
    }
    for name in found:
        columns = (after[name] != before[name]).any(0)
        assert int(columns.sum()) == (round(0.1 * 128) if "down_proj" in name else 64 // 4)


@pytest.mark.parametrize("name", ["galore", "mezo"])
def test_every_weight_moved(name: str, runs: dict[str, Path], base: str) -> None:
    before = base_weights(base)
    assert moved(load_file(runs[name] / "model.safetensors"), before) == set(before)


@pytest.mark.parametrize("name", ["hft", "lisa", "s2ft"])
def test_another_seed_is_another_choice(
    name: str, runs: dict[str, Path], base: str, data: Dataset, tmp_path: Path
) -> None:
    before = base_weights(base)

    def touched(after: Weights) -> dict[str, list[int]]:
        return {n: (after[n] != before[n]).reshape(-1, before[n].shape[-1]).any(0).nonzero().tolist() for n in before}

    other = trained(sft_of(name), base, data, tmp_path / "other", seed=6)
    assert touched(other) != touched(load_file(runs[name] / "model.safetensors"))


def test_another_round_is_another_half(runs: dict[str, Path], base: str, data: Dataset, tmp_path: Path) -> None:
    later = replace(SFT, tuning=tuning_of({"name": "hft", "round": 1}))
    before = base_weights(base)
    found = moved(trained(later, base, data, tmp_path / "later"), before)
    assert found != moved(load_file(runs["hft"] / "model.safetensors"), before)


@pytest.mark.parametrize("name", TUNINGS)
def test_batches_and_accumulation_make_the_same_step(name: str, base: str, data: Dataset, tmp_path: Path) -> None:
    exact = replace(sft_of(name), precision="float32", epochs=0.5, learning_rate=1e-3)
    whole = trained(replace(exact, batch_size=8, gradient_accumulation=1), base, data, tmp_path / "whole")
    parts = trained(replace(exact, batch_size=2, gradient_accumulation=4), base, data, tmp_path / "parts")
    assert moved(whole, base_weights(base))
    assert max(float((whole[n] - parts[n]).abs().max()) for n in whole) < (1e-3 if name == "mezo" else 1e-5)


def test_losses_alone_are_taken_in_float32_and_tokens_count_once(runs: dict[str, Path]) -> None:
    facts, other = (json.loads((runs[name] / "training.json").read_text()) for name in ("mezo", "hft"))
    assert facts["precision"] == "float32"
    assert other["precision"] == "bf16"
    assert facts["tokens"] == other["tokens"]
    assert set(pq.read_table(runs["mezo"] / "loss.parquet")["gradient_norm"].to_pylist()) == {0.0}


@pytest.mark.parametrize("name", TUNINGS)
def test_the_recipe_of_a_tuning_rebuilds_it(name: str) -> None:
    made: Tuning = sft_of(name).tuning
    assert TUNINGS[name].items() <= dict(made.spec.params).items()
    assert Sft(**dict(sft_of(name).spec.params)) == sft_of(name)

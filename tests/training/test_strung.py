"""Rows strung together without padding give the loss and the gradients of the padded batch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sft_rows import sums, write_rows
from torch.nn.functional import cross_entropy

from training import loop, strung
from training.guard import IGNORED
from training.row_trainer import RowCollator
from training.sft import Sft
from training.strung import string_rows
from training.tuning.adapters import Lora

VOCABULARY, PAD = 60, 0
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2,
    "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
SUITED: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped heads, tied": ("llama", {"tie_word_embeddings": True}),
    "one key head": ("llama", {"num_key_value_heads": 1}),
    "as many heads": ("llama", {"num_key_value_heads": 4, "attention_bias": True}),
    "biases": ("qwen2", {}),
    "normed heads": ("qwen3", {}),
    "no window": ("mistral", {"sliding_window": None}),
    "learned positions": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
}
UNSUITED: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("mistral", {"sliding_window": 4}),
    "wide window": ("mistral", {"sliding_window": 4096}),
    "soft caps": ("gemma2", {"query_pre_attn_scalar": 8}),
    "biases by distance": ("bloom", {"n_layer": 2, "n_head": 4}),
    "state space": ("mamba", {"state_size": 4}),
}
BATCHES = {"mixed": (3, 19, 7, 2, 11), "one row": (9,), "one label": (2,), "alike": (6, 6)}


def built(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | changes)
    family: Any = transformers.AutoModelForCausalLM
    return family.from_config(config, attn_implementation="eager").eval()


def examples(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Rows whose last tokens, at least one, have labels."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, VOCABULARY, length).tolist() for length in lengths]
    return [
        {"input_ids": ids, "labels": [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :], "rows": [number] * len(ids)}
        for number, ids in enumerate(rows)
    ]


def collate(lengths: Sequence[int], together: bool) -> dict[str, Any]:
    return RowCollator.of(PAD, together)(examples(lengths))


def learnt(network: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of the batch's mean."""
    given = {name: value for name, value in batch.items() if name not in ("labels", "rows")}
    logits, targets = network(**given, use_cache=False).logits[:, :-1], batch["labels"][:, 1:]
    loss = cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED])
    network.zero_grad()
    torch.autograd.backward(loss)
    return loss.detach(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize(("longest", "step"), [(512, 64), (512, 4), (8, 4)], ids=["at once", "in groups", "fused"])
@pytest.mark.parametrize("name", SUITED)
def test_loss_and_gradients_are_those_of_padded_rows(
    name: str, longest: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strung, "WRITTEN_OUT", longest)
    monkeypatch.setattr(strung, "STEP", step)
    strung._later.cache_clear()
    kind, changes = SUITED[name]
    network = built(kind, **changes)
    padded = {batch: learnt(network, collate(lengths, False)) for batch, lengths in BATCHES.items()}
    assert string_rows(network, RowCollator.of(PAD, True))
    assert network.config._attn_implementation == "rows"
    for batch, lengths in BATCHES.items():
        together = collate(lengths, True)
        assert together["input_ids"].shape == (1, sum(lengths))
        for found, expected in zip(learnt(network, together), padded[batch], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    strung._later.cache_clear()


@pytest.mark.parametrize("name", UNSUITED)
def test_architectures_that_tell_attention_more_are_left_alone(name: str) -> None:
    kind, changes = UNSUITED[name]
    network = built(kind, **changes)
    before = network.config._attn_implementation
    expected = learnt(network, collate(BATCHES["mixed"], False))
    assert not string_rows(network, RowCollator.of(PAD, True))
    assert network.config._attn_implementation == before
    for found, known in zip(learnt(network, collate(BATCHES["mixed"], False)), expected, strict=True):
        assert torch.equal(found, known)


def test_a_network_without_numbers_is_left_alone() -> None:
    network = built("llama")
    torch.nn.init.constant_(network.model.norm.weight, torch.nan)
    assert not string_rows(network, RowCollator.of(PAD, True))


def test_other_calls_give_what_they_gave() -> None:
    network, batch = built("llama"), collate(BATCHES["mixed"], False)
    row = torch.tensor([examples((6,))[0]["input_ids"]])

    def called() -> list[torch.Tensor]:
        with torch.inference_mode():
            logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            return [
                logits[batch["attention_mask"] > 0],
                network(input_ids=row).logits,
                network.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=6, do_sample=False).float(),
            ]

    expected = called()
    assert string_rows(network, RowCollator.of(PAD, True))
    for found, known in zip(called(), expected, strict=True):
        torch.testing.assert_close(found, known, rtol=1e-4, atol=1e-5)


def test_activations_that_are_computed_again_are_the_same() -> None:
    network = built("llama")
    assert string_rows(network, RowCollator.of(PAD, True))
    plain = learnt(network.train(), collate(BATCHES["mixed"], True))
    network.gradient_checkpointing_enable()
    for found, expected in zip(learnt(network, collate(BATCHES["mixed"], True)), plain, strict=True):
        torch.testing.assert_close(found, expected)


def test_dropout_of_attention_falls_on_strung_rows() -> None:
    network = built("llama", attention_dropout=0.5)
    assert string_rows(network, RowCollator.of(PAD, True))
    batch = collate(BATCHES["mixed"], True)
    assert torch.equal(learnt(network, batch)[0], learnt(network, batch)[0])
    assert not torch.equal(learnt(network.train(), batch)[0], learnt(network, batch)[0])


SFT = Sft(
    learning_rate=1e-3,
    epochs=2,
    batch_size=4,
    gradient_accumulation=2,
    max_length=64,
    precision="float32",
    save_every=0,
)
CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {},
    "packed": {"packing": True, "epochs": 4},
    "hidden replies": {"masked_thought": 0.4},
    "adapter": {"tuning": Lora(), "learning_rate": 1e-2},
    "activations again": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_that_of_padded_rows(
    name: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sft, weights = replace(SFT, **CHANGES[name]), np.linspace(0.5, 2, 21) if name == "weighted" else None
    data, found = write_rows(tmp_path / "rows.parquet", sums(21), weights), []
    for attention in ("rows", "eager"):
        if attention == "eager":
            monkeypatch.setattr(loop, "string_rows", lambda *_: False)
        sft(str(tiny_model_dir), data, out := tmp_path / attention, 0)
        facts = json.loads((out / "training.json").read_text())
        assert facts["attention"] == attention
        [file] = out.glob("*.safetensors")
        found.append((facts["tokens"], torch.cat([w.flatten() for _, w in sorted(load_file(file).items())])))
    (tokens, one), (known, other) = found
    assert tokens == known
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 if name != "adapter" else 1e-4)


def test_noise_on_embeddings_keeps_the_length_of_its_rows(tiny_model_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.parquet", sums(8))
    replace(SFT, neftune=5.0)(str(tiny_model_dir), data, tmp_path / "out", 0)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["attention"] == "eager"

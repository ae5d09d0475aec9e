"""The head multiplied for label positions alone gives the loss and the gradients of the whole head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sft_rows import sums, write_rows
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from training import label_scores, row_trainer
from training.guard import IGNORED
from training.label_scores import score_labels
from training.sft import Sft

VOCABULARY = 50


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    network: Any = LlamaForCausalLM(config)
    return network.eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    """Three rows of 9, the last padded, with labels here and there."""
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (3, 9), generator=rng)
    labels = torch.where(torch.rand(3, 9, generator=rng) < 0.4, ids, IGNORED)
    mask = torch.ones_like(ids)
    mask[2, 6:] = 0
    labels[2, 6:] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def by_hand(network: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(k,) log-probabilities from the logits of all positions."""
    logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    targets = batch["labels"][:, 1:]
    return -cross_entropy(logits[targets != IGNORED], targets[targets != IGNORED], reduction="none")


def gradients(network: Any) -> torch.Tensor:
    found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return found


@pytest.mark.parametrize("chunk", [1 << 26, 2 * VOCABULARY], ids=["whole", "chunks"])
@pytest.mark.parametrize("adapted", [False, True], ids=["weights", "adapter"])
def test_values_and_gradients_are_those_of_the_whole_head(
    batch: dict[str, torch.Tensor], chunk: int, adapted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_scores, "CHUNK_LOGITS", chunk)
    network = llama()
    if adapted:
        network = get_peft_model(network, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    expected = by_hand(network, batch)
    torch.autograd.backward(expected.mean())
    wanted = gradients(network)
    assert score_labels(network)
    found, mask = network(**batch, use_cache=False, labels_alone=True)
    torch.autograd.backward(found.mean())
    assert torch.equal(mask, batch["labels"][:, 1:] != IGNORED)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients(network), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(by_hand(network, batch), expected)  # other calls are what they were


def test_a_batch_without_labels_gives_nothing_and_no_gradient(batch: dict[str, torch.Tensor]) -> None:
    network = llama()
    score_labels(network)
    found, mask = network(**batch | {"labels": torch.full((3, 9), IGNORED)}, use_cache=False, labels_alone=True)
    found.sum().backward()
    assert len(found) == 0
    assert not mask.any()
    assert not gradients(network).any()


def test_logits_that_are_not_understood_are_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    network = llama()
    plain = network.forward

    def doubled(*args: Any, **given: Any) -> Any:
        out = plain(*args, **given)
        out.logits = 2 * out.logits + 1
        return out

    network.forward = doubled
    assert not score_labels(network)
    assert network.forward is doubled


def test_a_run_is_that_of_trl_s_own_loss(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "rows.parquet", sums(24))
    sft = Sft(learning_rate=1e-3, epochs=1, batch_size=4, gradient_accumulation=2, max_length=64, precision="float32")
    taught = []

    def teach(network: Any) -> bool:
        taught.append(score_labels(network))
        return taught[-1]

    monkeypatch.setattr(row_trainer, "score_labels", teach)
    sft(str(tiny_model_dir), data, tmp_path / "alone", 0)
    assert taught == [True]
    monkeypatch.setattr(row_trainer, "score_labels", lambda network: False)
    sft(str(tiny_model_dir), data, tmp_path / "whole", 0)
    one, other = (
        torch.cat([p.flatten() for p in LlamaForCausalLM.from_pretrained(tmp_path / name).parameters()])
        for name in ("alone", "whole")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)

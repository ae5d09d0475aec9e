"""A network of which every process held a part is whole again before it is written."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from training.gathered import hold_whole

IDS = torch.arange(12).reshape(1, -1)


def fresh(base: Path) -> Any:
    torch.manual_seed(0)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))


def trained(base: Path) -> Any:
    network = fresh(base)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return network


def trainer_of(network: Any, **spread: bool) -> Any:
    """What `hold_whole` asks of a trainer, of which the only process holds all."""
    plain = {"is_fsdp_enabled": False, "is_deepspeed_enabled": False}
    accelerator = SimpleNamespace(is_main_process=True, get_state_dict=lambda model: model.state_dict())
    return SimpleNamespace(model=network, model_wrapped=network, accelerator=accelerator, **plain | spread)


@pytest.mark.parametrize("how", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_the_whole_network_is_the_trained_one(tiny_model_dir: Path, how: str) -> None:
    network = trained(tiny_model_dir)
    trainer = trainer_of(network, **{how: True})
    hold_whole(trainer, lambda: fresh(tiny_model_dir))
    assert trainer.model is not network
    with torch.inference_mode():
        expected, base = network(IDS).logits, fresh(tiny_model_dir)(IDS).logits
        assert torch.equal(trainer.model(IDS).logits, expected)
        assert not torch.allclose(base, expected)


def test_a_network_that_is_whole_stays(tiny_model_dir: Path) -> None:
    network = trained(tiny_model_dir)
    trainer = trainer_of(network)
    hold_whole(trainer, lambda: fresh(tiny_model_dir))
    assert trainer.model is network

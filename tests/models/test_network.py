"""Loading: number formats, devices, adapters, and models that cannot be loaded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model_rows import ROWS

from models.local import LocalModel, load_checkpoint
from models.network import choose_dtype
from models.protocol import Want
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Spec

REPRESENTATION = frozenset({Want.REPRESENTATION})


@pytest.fixture(scope="session")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter that changes its base."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder)
    with torch.inference_mode():
        np.save(folder / "logits.npy", adapted(torch.arange(1, 9)[None]).logits.numpy())
    return folder


def test_an_adapter_is_merged_exactly(tiny_model_dir: Path, adapter_dir: Path, tiny: LocalModel) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", adapter=adapter_dir)
    with torch.inference_mode():
        logits = model.network(torch.arange(1, 9)[None]).logits.numpy()
    assert logits == pytest.approx(np.load(adapter_dir / "logits.npy"), abs=1e-5)
    assert model.parameters == tiny.parameters
    assert model.fingerprint != tiny.fingerprint
    merged = model.measure(ROWS, REPRESENTATION).representation
    assert np.abs(merged - tiny.measure(ROWS, REPRESENTATION).representation).max() > 1e-3


def test_a_checkpoint_is_an_adapter_or_whole_weights(tiny_model_dir: Path, adapter_dir: Path) -> None:
    for folder in (adapter_dir, tiny_model_dir):
        checkpoint = Checkpoint(folder, str(tiny_model_dir), Spec("sft"), "data", 0)
        adapter = folder if folder == adapter_dir else None
        expected = LocalModel.load(str(tiny_model_dir), adapter=adapter)
        assert load_checkpoint(checkpoint).fingerprint == expected.fingerprint


def test_an_adapter_whose_shapes_do_not_fit_is_refused(tiny_model_dir: Path, adapter_dir: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(adapter_dir, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "somewhere/else", "r": 7}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="does not fit"):
        LocalModel.load(str(tiny_model_dir), adapter=adapter)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", torch.device("cpu")) == expected
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "known: auto, float32"),
        ({"layout": "woven"}, "known layouts: padded, packed"),
        ({"template": "alpaca"}, "known templates: tulu, grape, raw, own"),
        ({"template": "own"}, "carries no chat template"),
        ({"device": "cuda:77"}, "not on this machine; here: auto, cpu"),
    ],
)
def test_options_that_cannot_be(tiny_model_dir: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LocalModel.load(str(tiny_model_dir), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "novel"}, "upgrade it"),
        ({"model_type": "novel", "auto_map": {"AutoConfig": "code.Config"}}, "trust_remote_code: true"),
        ({"model_type": "gpt2"}, "lacks .* weights of a 'gpt2' language model"),
        ({"hidden_size": 32}, "lacks 20 weights of a 'llama' language model"),
        ({"model_type": "clip"}, "no causal language model of this type"),
    ],
)
def test_models_that_cannot_be_loaded(
    tiny_model_dir: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=message):
        LocalModel.load(str(folder))


def test_its_own_template_is_used_when_asked_for(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "own"))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    own = LocalModel.load(str(folder), template="own")
    assert own.chat.render(ROWS[-1]).text == "[x][y]"
    assert LocalModel.load(str(folder)).chat.render(ROWS[-1]).text.startswith("<|user|>")

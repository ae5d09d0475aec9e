"""Whether a tuning fits a model: known from headers without torch, in the same words as from the network."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors.torch import load_file, save_file

from training.tuning import fitting
from training.tuning.anatomy import Anatomy, stored
from training.tuning.fitting import anatomy_of, check_fit
from training.tuning.table import TUNINGS, tuning_of
from warehouse.errors import InputError

KNOWN = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj$"


def network(folder: Path) -> Any:
    family: Any = transformers.AutoModelForCausalLM
    return family.from_pretrained(folder)


def test_headers_tell_what_the_network_is(tiny_model_dir: Path) -> None:
    assert stored(tiny_model_dir) == anatomy_of(network(tiny_model_dir))
    assert stored(tiny_model_dir).layers == 2


def test_embeddings_heads_and_norms_are_no_linear_modules(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=64, n_positions=32)
    made: Any = transformers.GPT2LMHeadModel(config)
    made.save_pretrained(tmp_path)
    assert stored(tmp_path) == anatomy_of(made)
    assert (stored(tmp_path).layers, stored(tmp_path).names) == (3, "c_attn, c_fc, c_proj")


@pytest.mark.parametrize("name", TUNINGS)
def test_every_tuning_fits_a_usual_model(name: str, tiny_model_dir: Path) -> None:
    check_fit(tuning_of(name), tiny_model_dir)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "lora", "targets": ["nosuch"]}, f"no linear module nosuch, which targets names; .* are {KNOWN}"),
        ({"name": "dora", "targets": ["q_proj", "v"]}, f"no linear module v, which targets names; .* are {KNOWN}"),
        ({"name": "lora", "targets": ["lm_head"]}, f"get no adapter: take lm_head out of targets; known: {KNOWN}"),
        ({"name": "ia3", "targets": ["embed_tokens", "down_proj"]}, "take embed_tokens out of targets"),
        (
            {"name": "shira", "targets": "q_.*"},
            r"targets is 'q_.*', a pattern that no .* give a list of names: down_proj",
        ),
        (
            {"name": "lift", "rank": 30},
            r"rank is 30, which moves 2,880 entries, but .*k_proj has 2,048; .* at most 21,",
        ),
        ({"name": "shira", "rank": 22, "targets": ["v_proj"]}, r"moves 2,112 entries, .*v_proj has 2,048; .* most 21,"),
        ({"name": "pissa", "rank": 33}, r"rank is 33, but .*k_proj has 32 directions; give at most 32"),
        ({"name": "lisa", "layers": 3}, "layers is 3, but the model has 2; give fewer"),
    ],
)
def test_what_does_not_fit_is_said_with_what_would(given: dict[str, Any], message: str, tiny_model_dir: Path) -> None:
    tuning = tuning_of(given)
    for refused in (lambda: check_fit(tuning, tiny_model_dir), lambda: tuning.check(stored(tiny_model_dir))):
        with pytest.raises(InputError, match=message):
            refused()


@pytest.mark.parametrize(
    "given",
    [
        {"name": "shira", "rank": 21},
        {"name": "olora", "rank": 32},
        {"name": "pissa", "rank": 33, "targets": ["q_proj"]},
        {"name": "shira", "rank": 30, "targets": r".*\.q_proj"},  # smaller modules are left alone
        {"name": "lora", "targets": ["layers.1.mlp.up_proj"]},
        {"name": "lisa", "layers": 2},
    ],
)
def test_what_just_fits(given: dict[str, Any], tiny_model_dir: Path) -> None:
    check_fit(tuning_of(given), tiny_model_dir)


def test_the_network_has_the_last_word(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "stored", lambda folder: Anatomy(1, {"model.layers.0.w_pack": (8, 8)}))
    check_fit(tuning_of({"name": "pissa", "rank": 32, "targets": ["q_proj", "k_proj"]}), tiny_model_dir)
    check_fit(tuning_of({"name": "lisa", "layers": 2}), tiny_model_dir)
    with pytest.raises(InputError, match=f"no linear module x, .* are {KNOWN}"):
        check_fit(tuning_of({"name": "lora", "targets": ["x"]}), tiny_model_dir)


def test_where_the_network_cannot_be_built_the_headers_have_it(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model_dir / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "novel", "num_hidden_layers": 2}')
    check_fit(tuning_of("lora"), tmp_path)
    with pytest.raises(InputError, match=f"no linear module x, .* are {KNOWN}"):
        check_fit(tuning_of({"name": "lora", "targets": ["x"]}), tmp_path)


def test_a_tuning_that_fits_is_found_so_without_torch(tiny_model_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from training.tuning.fitting import check_fit; "
        "from training.tuning.table import TUNINGS, tuning_of; "
        "[check_fit(tuning_of(name), Path(sys.argv[1])) for name in TUNINGS]; "
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tiny_model_dir)], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_shards_are_read_together(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_model_dir / "config.json").read_text())
    weights = sorted(load_file(tiny_model_dir / "model.safetensors").items())
    for number, part in enumerate((weights[:9], weights[9:])):
        save_file(dict(part), tmp_path / f"model-{number}.safetensors", {"format": "pt"})
    assert stored(tmp_path) == stored(tiny_model_dir)

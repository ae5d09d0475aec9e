"""The contract of every trainer in the table."""

import json
import subprocess
import sys
from typing import Any

import pytest

from training.dpo import Dpo
from training.sft import Sft, deita_scorer, rds_plus
from training.table import TRAINERS
from training.tuning.full import Full
from warehouse.errors import InputError
from warehouse.records import canonical


@pytest.mark.parametrize("name", TRAINERS)
def test_spec_rebuilds_the_trainer(name: str) -> None:
    trainer = TRAINERS[name]()
    params = json.loads(canonical(dict(trainer.spec.params)))
    assert TRAINERS[trainer.spec.name](**params) == trainer


@pytest.mark.parametrize("name", TRAINERS)
def test_every_parameter_is_in_the_key(name: str) -> None:
    plain, changed = TRAINERS[name](), TRAINERS[name](weight_decay=0.07)
    assert isinstance(plain, Sft | Dpo)
    assert plain.spec.key != changed.spec.key
    assert set(plain.spec.params) == set(type(plain).__dataclass_fields__)


def test_the_published_recipe() -> None:
    recipe = rds_plus()
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup, recipe.weight_decay) == (2e-5, "linear", 0.03, 0.0)
    assert (recipe.epochs, recipe.step_rows, recipe.max_length) == (2, 128, 2048)
    assert not recipe.packing
    assert not recipe.group_by_length


def test_the_published_settings_of_scorers() -> None:
    made = deita_scorer()
    assert (made.learning_rate, made.schedule, made.warmup, made.epochs) == (2e-5, "cosine", 0.1, 6)
    assert (made.step_rows, made.max_length, made.tuning, made.template) == (512, 2048, Full(), "raw")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tuning": "qlora"}, "unknown tuning 'qlora'; known tunings: full, lora"),
        ({"schedule": "step"}, "unknown schedule 'step'; known: cosine, linear, constant"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"template": "chatml"}, "unknown template"),
        ({"epochs": 0}, "epochs is 0; expected"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"epochs": "three"}, "supervised fine-tuning: epochs is 'three'; give a number"),
        ({"batch_size": 8.0}, "batch_size is 8.0; give a whole number"),
        ({"packing": 1}, "packing is 1; give true or false"),
        ({"deepspeed": 3}, "deepspeed is 3; give a mapping or a text or nothing"),
        ({"deepspeed": {}}, "deepspeed is empty, which changes nothing; give its settings, or leave it out"),
        ({"deepspeed": ""}, "deepspeed is empty"),
        ({"fsdp": "full_shard", "fsdp_config": {}}, "fsdp_config is empty"),
        ({"fsdp_config": {"min_num_params": 7}}, "fsdp_config does nothing without fsdp"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sft(**params)


def test_naming_a_trainer_loads_no_heavy_library() -> None:
    training = "import sys, training.table, training.guard, training.resume"
    code = f"{training}, eval.table, eval.compare, eval.overlap, eval.statistics"
    check = "print(sorted({'torch', 'transformers', 'trl', 'peft', 'datasets', 'scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"

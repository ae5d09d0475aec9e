"""The contract of every trainer in the table."""

import json
import subprocess
import sys
from typing import Any

import pytest

from training.sft import Sft, deita_scorer, rds_plus
from training.table import TRAINERS
from warehouse.errors import InputError
from warehouse.records import canonical


@pytest.mark.parametrize("name", TRAINERS)
def test_spec_rebuilds_the_trainer(name: str) -> None:
    trainer = TRAINERS[name]()
    assert isinstance(trainer, Sft)
    params = json.loads(canonical(dict(trainer.spec.params)))
    assert TRAINERS[trainer.spec.name](**params) == trainer


@pytest.mark.parametrize("name", TRAINERS)
def test_every_parameter_is_in_the_key(name: str) -> None:
    plain, changed = TRAINERS[name](), TRAINERS[name](weight_decay=0.07)
    assert isinstance(plain, Sft)
    assert isinstance(changed, Sft)
    assert plain.spec.key != changed.spec.key
    assert set(plain.spec.params) == set(Sft.__dataclass_fields__)


def test_the_published_recipe() -> None:
    recipe = rds_plus()
    assert (recipe.learning_rate, recipe.schedule, recipe.warmup, recipe.weight_decay) == (2e-5, "linear", 0.03, 0.0)
    assert (recipe.epochs, recipe.step_rows, recipe.max_length) == (2, 128, 2048)
    assert not recipe.packing
    assert not recipe.group_by_length


def test_the_published_settings_of_scorers() -> None:
    made = deita_scorer()
    assert (made.learning_rate, made.schedule, made.warmup, made.epochs) == (2e-5, "cosine", 0.1, 6)
    assert (made.step_rows, made.max_length, made.method, made.template) == (512, 2048, "full", "raw")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "qlora"}, "unknown method 'qlora'; known: full, lora"),
        ({"schedule": "step"}, "unknown schedule 'step'; known: cosine, linear, constant"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"template": "chatml"}, "unknown template"),
        ({"epochs": 0}, "epochs is 0; expected"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sft(**params)


def test_naming_a_trainer_loads_no_heavy_library() -> None:
    code = "import sys, training.table, training.guard, eval.table, eval.compare, eval.overlap, eval.statistics"
    check = "print(sorted({'torch', 'transformers', 'trl', 'peft', 'datasets', 'scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"

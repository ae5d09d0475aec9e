"""Whether a tuning fits a model, before work starts and again when it is prepared."""

from pathlib import Path
from typing import Any

from training.tuning.anatomy import Anatomy, stored
from training.tuning.protocol import Tuning
from warehouse.errors import InputError


def check_fit(tuning: Tuning, folder: Path, trust_remote_code: bool = False) -> None:
    """Raise `InputError` where `tuning` does not fit the model in `folder`, whose weights are not read.

    Where the files' headers speak against it, the network itself has the last word: that loads torch, and takes
    seconds.
    """
    told = stored(folder)
    try:
        tuning.check(told)
    except InputError:
        if (built := _built(folder, trust_remote_code)) is None:
            raise
        tuning.check(built)


def _built(folder: Path, trust_remote_code: bool) -> Anatomy | None:
    """Of a network without weights; None for a model that cannot be built here, which is said where it is loaded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        with torch.device("meta"):
            network = family.from_config(config, trust_remote_code=trust_remote_code)
    except (ImportError, OSError, ValueError):
        return None
    return anatomy_of(network)


def anatomy_of(network: Any) -> Anatomy:
    """Of a network of transformers."""
    from training.tuning.zeros import linear_layers

    modules: dict[str, Any] = dict(linear_layers(network))
    layers = getattr(network.config.get_text_config(), "num_hidden_layers", None)
    return Anatomy(layers, {name: tuple(module.weight.shape) for name, module in modules.items()})

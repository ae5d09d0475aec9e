"""trl's configuration of a run."""

from pathlib import Path
from typing import Any

import torch
from trl.trainer.sft_config import SFTConfig

from models.network import choose_dtype
from training.sft import Sft
from training.world import ALONE, World
from warehouse.errors import InputError

# "wsd" and "power" are given to the trainer as functions; the name only has to be one that it knows
SCHEDULES = {
    "cosine": "cosine",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "wsd": "constant",
    "power": "constant",
}


def settings(sft: Sft, device: torch.device, checkpoints: Path, seed: int, batch: tuple[int, int]) -> dict[str, Any]:
    """What trl's configurations of all trainers have in common; `batch` is rows at once and batches per step.

    The order of rows is decided before, so a run is one epoch, read in order.
    """
    return {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": batch[0],
        "gradient_accumulation_steps": batch[1],
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": sft.learning_rate,
        "lr_scheduler_type": SCHEDULES[sft.schedule],
        "warmup_steps": sft.warmup,
        "weight_decay": sft.weight_decay,
        "max_grad_norm": sft.max_grad_norm,
        "remove_unused_columns": False,
        "bf16": runs_in_bf16(sft, device),
        "use_cpu": device.type == "cpu",
        "gradient_checkpointing": sft.gradient_checkpointing,
        "save_strategy": "steps" if sft.save_every else "no",
        "save_steps": sft.save_every or 1,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": seed,
        "data_seed": seed,
    }


def arguments(
    sft: Sft,
    device: torch.device,
    checkpoints: Path,
    seed: int,
    batch: tuple[int, int],
    strung: bool,
    world: World = ALONE,
) -> SFTConfig:
    """trl's configuration of this run; with `strung`, the rows of a batch follow each other in one sequence."""
    own: dict[str, Any] = {
        "neftune_noise_alpha": sft.neftune or None,
        "max_length": sft.max_length if sft.packing else None,  # rows are cut already
        "packing": sft.packing,
        "padding_free": strung,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "ddp_backend": "gloo" if device.type == "cpu" and world.size > 1 else None,
        "ddp_find_unused_parameters": False,  # a tuning whose weights rest for a while says otherwise
        "fsdp": sft.fsdp or None,
        "fsdp_config": None if sft.fsdp_config is None else dict(sft.fsdp_config),  # which transformers changes
        "deepspeed": sft.deepspeed,
    }
    try:
        return SFTConfig(**settings(sft, device, checkpoints, seed, batch) | own | sft.tuning.arguments())
    except ImportError as error:
        raise InputError(f"`fsdp` or `deepspeed` needs a package that is not installed: {error}") from error


def runs_in_bf16(sft: Sft, device: torch.device) -> bool:
    """Whether products are made in bfloat16 ("auto": where the hardware does)."""
    if sft.precision == "auto":
        return choose_dtype("auto", device) == torch.bfloat16
    return sft.precision == "bf16"

"""The trainers by name.

A new one is a file, a line here, a line in the contract test and a part of docs/training.md.
"""

from collections.abc import Callable

from training import dpo, sft
from training.protocol import Trainer

TRAINERS: dict[str, Callable[..., Trainer]] = {
    "sft": sft.Sft,
    "sft_tiny": sft.tiny,
    "sft_lora": sft.lora,
    "sft_rds_plus": sft.rds_plus,
    "sft_rds_plus_lora": sft.rds_plus_lora,
    "deita_scorer": sft.deita_scorer,
    "dpo": dpo.Dpo,
    "dpo_tiny": dpo.tiny,
}

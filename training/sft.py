"""Supervised fine-tuning, of all weights or of a LoRA adapter, with trl's trainer.

The loss is the negative log-likelihood of assistant tokens (end token included), averaged over the label tokens of an
optimizer step, so that a step of 8 × 1 rows and one of 1 × 8 are the same step. Rows are tokenised here with the
model's chat format and checked by `training.guard`; trl is handed ids and labels.

Imports neither torch nor trl: they load when a run starts.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from models.chat import TEMPLATES
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Dataset, Spec

Tuned = Literal["full", "lora"]
Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["auto", "float32", "bf16"]
ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class Sft:
    """Hyper-parameters of one run.

    epochs             passes over the rows; 0.5 trains on a random half
    batch_size         rows (packs of rows, where packing) in memory at once, on each device
    gradient_accumulation  batches per optimizer step
    max_length         tokens of a row, and of a pack; longer rows are cut on the right, as they are at the model's
                       last position
    packing            several rows per sequence (best-fit decreasing), kept apart by the attention mask: exact, and
                       worth it on a GPU; on a processor grouping by length is quicker
    group_by_length    rows of like length share a step, which saves padding; the order stays nearly random
    schedule, warmup   learning rate after a linear rise over the share `warmup` of all steps
    lora_*             rank, alpha, dropout, and the module names that get an adapter: "all-linear" or some of them
    precision          "auto" is bf16 where the hardware multiplies it, else float32; weights stay float32 either way
    save_every         steps between checkpoints for resuming; 0 saves none
    template           "tulu", "raw" for prompts and replies with nothing around them, or "own" for the one that the
                       base model carries
    """

    method: Tuned = "full"
    learning_rate: float = 2e-5
    epochs: float = 2.0
    batch_size: int = 8
    gradient_accumulation: int = 4
    max_length: int = 1024
    packing: bool = False
    group_by_length: bool = True
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_targets: str | tuple[str, ...] = ALL_LINEAR
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    save_every: int = 500
    template: str = "tulu"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.lora_targets, str):
            object.__setattr__(self, "lora_targets", tuple(self.lora_targets))  # a recipe gives a list
        for name, known in KNOWN.items():
            if (found := getattr(self, name)) not in known:
                raise InputError(f"unknown {name} {found!r}; known: {', '.join(known)}")
        for name, (low, high) in RANGES.items():
            if not low <= (found := getattr(self, name)) <= high:
                raise InputError(f"{name} is {found}; expected {low} to {high}")

    @property
    def spec(self) -> Spec:
        """Rebuilds this trainer: `TRAINERS["sft"](**params)`. Presets have no name of their own in it."""
        params: dict[str, Any] = asdict(self)
        targets = self.lora_targets
        return Spec("sft", params | {"lora_targets": targets if isinstance(targets, str) else list(targets)})

    @property
    def step_rows(self) -> int:
        """Rows (or packs) per optimizer step on one device."""
        return self.batch_size * self.gradient_accumulation

    def __call__(self, base: str, data: Dataset, out: Path, seed: int) -> Checkpoint:
        """Train `base` on the rows of `data` and write the result under `out`.

        Written: weights as safetensors (for LoRA the adapter, with `base` recorded), tokenizer and chat template,
        `loss.parquet` (a row per step), `training.json` (what was read, dropped and spent). With `data.weights` the
        loss of every token of row i is multiplied by w_i / mean(w); equal weights are exactly the unweighted run.

        A run that was killed resumes from its last whole checkpoint when it is called again with the same arguments,
        and ends with the same weights. `out` must then be the same folder.

        Raises `InputError` for data that cannot be trained on, and `Diverged` where the loss stops being a number.
        """
        if data.kind != "chat":
            raise InputError(f"{data.path} holds {data.kind} data; supervised fine-tuning needs chat data")
        from training.loop import train

        train(self, base, data, out, seed)
        return Checkpoint(out, base, self.spec, data.key, seed)


KNOWN: dict[str, tuple[str, ...]] = {
    "method": get_args(Tuned),
    "schedule": get_args(Schedule),
    "precision": get_args(Precision),
    "template": TEMPLATES,
}
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-9, 1.0),
    "epochs": (1e-3, 1e4),
    "batch_size": (1, 1 << 16),
    "gradient_accumulation": (1, 1 << 16),
    "max_length": (2, 1 << 20),
    "warmup": (0.0, 0.99),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (1e-6, 1e6),
    "lora_rank": (1, 4096),
    "lora_alpha": (1, 1 << 16),
    "lora_dropout": (0.0, 0.99),
    "save_every": (0, np.inf),
}


def tiny(**changes: Any) -> Sft:
    """For models of a few million parameters on a processor: all weights, 3 epochs, a high rate, small steps."""
    defaults: dict[str, Any] = {
        "learning_rate": 1e-3,
        "epochs": 3.0,
        "batch_size": 16,
        "gradient_accumulation": 1,
        "max_length": 256,
        "warmup": 0.05,
    }
    return Sft(**defaults | changes)


def lora(**changes: Any) -> Sft:
    """LoRA on every linear layer, rank 16: what fits where all weights do not."""
    defaults: dict[str, Any] = {"method": "lora", "learning_rate": 2e-4, "epochs": 3.0}
    return Sft(**defaults | changes)


def rds_plus(**changes: Any) -> Sft:
    """The full fine-tuning recipe of Ivison et al. 2025 (§3): 2e-5 linear, 3 % warm-up, 2 epochs, 128 rows a step."""
    defaults: dict[str, Any] = {
        "learning_rate": 2e-5,
        "epochs": 2.0,
        "batch_size": 8,
        "gradient_accumulation": 16,
        "max_length": 2048,
        "packing": False,
        "group_by_length": False,
        "schedule": "linear",
        "warmup": 0.03,
    }
    return Sft(**defaults | changes)


def rds_plus_lora(**changes: Any) -> Sft:
    """The LoRA variant of `rds_plus`: rank 128, alpha 512, dropout 0.1, on the four attention projections."""
    defaults: dict[str, Any] = {
        "method": "lora",
        "lora_rank": 128,
        "lora_alpha": 512,
        "lora_dropout": 0.1,
        "lora_targets": ("q_proj", "k_proj", "v_proj", "o_proj"),
    }
    return rds_plus(**defaults | changes)


def deita_scorer(**changes: Any) -> Sft:
    """What DEITA's scorers were trained by (Liu et al. 2024, §2 and its script), on prompts without a chat format."""
    defaults: dict[str, Any] = {
        "learning_rate": 2e-5,
        "epochs": 6.0,
        "batch_size": 8,
        "gradient_accumulation": 64,
        "max_length": 2048,
        "schedule": "cosine",
        "warmup": 0.1,
        "template": "raw",
    }
    return Sft(**defaults | changes)

"""Supervised fine-tuning, of all weights or of some of them, with trl's trainer.

The loss is the negative log-likelihood of assistant tokens (end token included), averaged over the label tokens of an
optimizer step, so that a step of 8 × 1 rows and one of 1 × 8 are the same step. Rows are tokenised here with the
model's chat format and checked by `training.guard`; trl is handed ids and labels.

Imports neither torch nor trl: they load when a run starts.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from models.chat import TEMPLATES
from training.kinds import check_fields, spec_of
from training.tuning.full import Full
from training.tuning.protocol import Tuning
from training.tuning.table import tuning_of
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Dataset, Spec

Schedule = Literal["cosine", "linear", "constant", "wsd", "power"]
Precision = Literal["auto", "float32", "bf16"]
DECAYING = ("wsd", "power")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True)
class Sft:
    """Hyper-parameters of one run.

    tuning             which weights move and how the result is written: an entry of `training.tuning.table`, its name,
                       or a mapping of `name` and parameters
    epochs             passes over the rows; 0.5 trains on a random half
    batch_size         rows (packs of rows, where packing) in memory at once; halved, with twice the accumulation, where
                       they do not fit
    gradient_accumulation  batches per optimizer step
    max_length         tokens of a row, and of a pack; longer rows are cut on the right, as they are at the model's
                       last position
    packing            several rows per sequence (best-fit decreasing), kept apart in attention: exact, and worth it on
                       a GPU; a processor trains without padding anyway
    group_by_length    rows of like length share a step, which saves padding where there is any. Length goes with what a
                       row is about, so steps are less mixed and the model may be worse: on 480 rows of 16 skills, 2
                       epochs, held-out loss 1.89 against 1.32 and 1.38 (two seeds) in random order
    schedule, warmup   learning rate after a linear rise over the share `warmup` of all steps (`training.schedules`)
    decay              share of all steps over which "wsd" and "power" fall to zero at the end
    power_a, power_b   "power" is rate · min(1, a · n^b) at step n
    masked_thought     share of the reply tokens that are hidden from the model as inputs, once it has risen from 0 over
                       the first two thirds of the steps; labels stay (Chen et al. 2024); 0 hides none
    neftune            size of the noise on input embeddings (Jain et al. 2024); 0 adds none
    response_only      train on replies alone, without the prompts they answer: a control that shows what instructions
                       add (Hewitt et al. 2024)
    precision          "auto" is bf16 where the hardware multiplies it, else float32; weights stay float32 either way
    save_every         steps between checkpoints for resuming; 0 saves none
    fsdp, fsdp_config, deepspeed  given to transformers as they are, for models that one device does not hold
    template           "tulu", "raw" for prompts and replies with nothing around them, or "own" for the one that the
                       base model carries
    """

    tuning: Tuning = field(default_factory=Full)
    learning_rate: float = 2e-5
    epochs: float = 2.0
    batch_size: int = 8
    gradient_accumulation: int = 4
    max_length: int = 1024
    packing: bool = False
    group_by_length: bool = False
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    decay: float = 0.1
    power_a: float = 4.6
    power_b: float = -0.51
    masked_thought: float = 0.0
    neftune: float = 0.0
    response_only: bool = False
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    save_every: int = 500
    fsdp: str = ""
    fsdp_config: dict[str, Any] | None = None
    deepspeed: dict[str, Any] | str | None = None
    template: str = "tulu"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tuning", tuning_of(self.tuning))
        check_fields("supervised fine-tuning", self, KNOWN, RANGES)
        if self.schedule in DECAYING and self.warmup + self.decay > 1:
            raise InputError(f"warmup {self.warmup} and decay {self.decay} are more than all steps together")
        for name, empty in (("deepspeed", self.deepspeed in ({}, "")), ("fsdp_config", self.fsdp_config == {})):
            if empty:
                raise InputError(f"{name} is empty, which changes nothing; give its settings, or leave it out")
        if self.fsdp_config is not None and not self.fsdp:
            raise InputError("fsdp_config does nothing without fsdp; give fsdp, such as full_shard, or leave it out")

    @property
    def spec(self) -> Spec:
        """Rebuilds this trainer: `TRAINERS["sft"](**params)`. Presets have no name of their own in it."""
        return spec_of("sft", self)

    @property
    def step_rows(self) -> int:
        """Rows (or packs) per optimizer step, whatever devices share them."""
        return self.batch_size * self.gradient_accumulation

    def __call__(self, base: str, data: Dataset, out: Path, seed: int) -> Checkpoint:
        """Train `base` on the rows of `data` and write the result under `out`.

        Written: weights as safetensors (or an adapter, with `base` recorded), tokenizer and chat template,
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


def check_alone(sft: Sft) -> None:
    """Raise `InputError` where one process cannot do what `sft` asks for."""
    if sft.fsdp:
        raise InputError(
            f"fsdp {sft.fsdp!r} spreads the weights over several processes, and this run has one: share it among "
            "workers (`scale: {workers: 2, gpus: 1}`), or leave fsdp out"
        )


KNOWN: dict[str, tuple[str, ...]] = {
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
    "decay": (0.0, 1.0),
    "power_a": (1e-9, 1e9),
    "power_b": (-10.0, 0.0),
    "masked_thought": (0.0, 1.0),
    "neftune": (0.0, 1e3),
    "weight_decay": (0.0, 1.0),
    "max_grad_norm": (1e-6, 1e6),
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
    defaults: dict[str, Any] = {"tuning": "lora", "learning_rate": 2e-4, "epochs": 3.0}
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
        "tuning": {"name": "lora", "rank": 128, "alpha": 512, "dropout": 0.1, "targets": ATTENTION},
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

"""Direct preference optimisation with trl's trainer: from pairs of replies, one of which was preferred.

With the log-probability of a reply y to a prompt x under the trained model π and under the base model, the loss of a
pair is -log σ(β [log π(y₊|x)/base(y₊|x) - log π(y₋|x)/base(y₋|x)]), averaged over the pairs of an optimizer step
(Rafailov et al. 2023, eq. 7). The base's log-probabilities are measured once before the first step, so no second model
is held, whatever is tuned.

Imports neither torch nor trl: they load when a run starts.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from training.kinds import check_fields, spec_of
from training.sft import KNOWN as KNOWN_OF_SFT
from training.sft import RANGES as RANGES_OF_SFT
from training.sft import Precision, Sft
from training.tuning.full import Full
from training.tuning.protocol import Stepping, Tuning
from training.tuning.table import tuning_of
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Dataset, Spec

Loss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
Schedule = Literal["cosine", "linear", "constant"]
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")


@dataclass(frozen=True, slots=True)
class Dpo:
    """Hyper-parameters of one run. Where a name is one of `Sft`, it means the same; a row is a pair.

    beta             how much a reply's log-probability may move away from the base's: larger stays closer. For "ipo" it
                     is τ of that paper
    loss             "sigmoid" is DPO; the others are trl's: hinge (SLiC), ipo, exo_pair, nca_pair, robust, bco_pair,
                     sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft (the chosen reply alone) and
                     sigmoid_norm (per token)
    label_smoothing  chance that a pair is the wrong way round, below 0.5: of "robust" and "aot"; "exo_pair" needs one
    max_length       tokens of a prompt with one of its replies; what is longer is cut on the right, and a pair of which
                     no different reply is left is dropped
    """

    beta: float = 0.1
    loss: Loss = "sigmoid"
    label_smoothing: float = 0.0
    tuning: Tuning = field(default_factory=Full)
    learning_rate: float = 5e-7
    epochs: float = 3.0
    batch_size: int = 4
    gradient_accumulation: int = 8
    max_length: int = 1024
    group_by_length: bool = False
    schedule: Schedule = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    save_every: int = 500
    template: str = "tulu"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tuning", tuning_of(self.tuning))
        choices = KNOWN_OF_SFT | {"loss": get_args(Loss), "schedule": get_args(Schedule)}
        own = {"beta": (1e-6, 1e3), "label_smoothing": (0.0, 0.499)}
        check_fields("preference tuning", self, choices, RANGES_OF_SFT | own)
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise InputError("loss 'exo_pair' needs a label_smoothing above 0, such as 0.001")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise InputError(f"loss {self.loss!r} has no label_smoothing; of {', '.join(SMOOTHED)} it is one")
        if isinstance(self.tuning, Stepping):
            raise InputError(
                f"tuning {self.tuning.spec.name!r} takes steps of its own, from a loss over tokens; preference tuning "
                "needs another"
            )

    @property
    def spec(self) -> Spec:
        """Rebuilds this trainer: `TRAINERS["dpo"](**params)`. Presets have no name of their own in it."""
        return spec_of("dpo", self)

    @property
    def step_rows(self) -> int:
        """Pairs per optimizer step."""
        return self.batch_size * self.gradient_accumulation

    @property
    def shared(self) -> Sft:
        """What this run has in common with supervised fine-tuning, as such a run."""
        return Sft(
            **{each.name: getattr(self, each.name) for each in fields(Sft) if each.name in Dpo.__dataclass_fields__}
        )

    def __call__(self, base: str, data: Dataset, out: Path, seed: int) -> Checkpoint:
        """Train `base` on the pairs of `data` and write the result under `out`, as `Sft.__call__` does.

        `loss.parquet` also holds, per step, `margin` (β times what the chosen reply gained over the base more than the
        rejected one), `accuracy` (the share of pairs in which that is above 0), and both gains. A run that was killed
        resumes and ends with the same weights.

        Raises `InputError` for data that cannot be trained on, and `Diverged` where the loss stops being a number.
        """
        if data.kind != "preference":
            raise InputError(f"{data.path} holds {data.kind} data; preference tuning needs preference data")
        if data.weights is not None:
            raise InputError(f"{data.path}: pairs have no weights; leave some out instead")
        from training.dpo_loop import train

        train(self, base, data, out, seed)
        return Checkpoint(out, base, self.spec, data.key, seed)


def tiny(**changes: Any) -> Dpo:
    """For models of a few million parameters on a processor: a high rate, small steps."""
    defaults: dict[str, Any] = {
        "learning_rate": 1e-4,
        "batch_size": 16,
        "gradient_accumulation": 1,
        "max_length": 256,
    }
    return Dpo(**defaults | changes)

"""The warm-up run of LESS: a LoRA adapter, kept at several steps with its optimizer's state (Xia et al. 2024, §4.1)."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from training.sft import Sft, rds_plus_lora
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Dataset, Spec

KEPT = "kept"
RATES = "rates.json"
MOST = 64
PLAIN = ("lora", "rslora")  # whose factors alone say how a weight has changed


def less(**changes: object) -> Sft:
    """LESS's settings: LoRA of rank 128 and alpha 512 on the attention projections, 4 epochs, 2e-5, 32 rows a step."""
    return rds_plus_lora(**{"epochs": 4.0, "gradient_accumulation": 4} | changes)


@dataclass(frozen=True, slots=True)
class Warmup:
    """An adapter trained as `sft` says and kept `checkpoints` times, evenly spaced, the last at the end."""

    sft: Sft = field(default_factory=less)
    checkpoints: int = 4

    def __post_init__(self) -> None:
        if self.sft.tuning.spec.name not in PLAIN:
            raise InputError(f"a warm-up trains a plain adapter: its tuning must be {' or '.join(PLAIN)}")
        if not 1 <= self.checkpoints <= MOST:
            raise InputError(f"checkpoints is {self.checkpoints}; give 1 to {MOST}")

    @property
    def spec(self) -> Spec:
        return Spec("warmup", {"sft": dict(self.sft.spec.params), "checkpoints": self.checkpoints})

    def __call__(self, base: str, data: Dataset, out: Path, seed: int) -> Checkpoint:
        """Train as `Sft.__call__` does, and keep adapters and optimizer states under `out`/kept, a folder per step."""
        from training.loop import train

        train(self.sft, base, data, out, seed, keep=self.checkpoints)
        return Checkpoint(out, base, self.spec, data.key, seed)


def kept(out: Path) -> list[tuple[Path, float]]:
    """The kept checkpoints of a warm-up, first to last, each with its share of the learning rates; shares sum to 1.

    A checkpoint's rate is the mean of those of the steps since the one before it.
    """
    rates = json.loads((out / KEPT / RATES).read_text(encoding="utf-8"))
    total = sum(rates.values())
    return [(out / KEPT / step, rate / total if total else 1 / len(rates)) for step, rate in rates.items()]

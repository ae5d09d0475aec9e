"""What every trainer answers to."""

from pathlib import Path
from typing import Protocol

from warehouse.records import Checkpoint, Dataset, Spec


class Trainer(Protocol):
    """A frozen dataclass of hyper-parameters. Writes weights, tokenizer and `loss.parquet` under `out`.

    The same base, data and seed give the same weights, bit for bit on a CPU. `spec` rebuilds the trainer.
    """

    @property
    def spec(self) -> Spec: ...

    def __call__(self, base: str, data: Dataset, out: Path, seed: int) -> Checkpoint: ...

"""What every synthesizer answers to."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np

from models.dialogue import Dialogue
from warehouse.records import Example

Seeds: TypeAlias = Sequence[Example]


class Synthesizer(Protocol):
    """One dialogue for a whole job. Rows leave it by `Emit` as they are made. `seeds` may be empty.

    Implementations are frozen dataclasses of hyper-parameters; all randomness comes from `rng`.
    """

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]: ...

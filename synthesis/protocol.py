"""What every synthesizer answers to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from models.dialogue import Dialogue
from warehouse.records import Example

Seeds: TypeAlias = Sequence[Example]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a synthesizer asks for: models, encoders and verifiers by their roles, and whether it reads seeds.

    A role of `scored` must be a model that gives log-probabilities of any text: one on this machine.
    """

    models: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    verifiers: tuple[str, ...] = ()
    scored: tuple[str, ...] = ()
    seeds: bool = False


class Synthesizer(Protocol):
    """One dialogue for a whole job. Rows leave it by `Emit` as they are made. `seeds` may be empty.

    Implementations are frozen dataclasses of hyper-parameters; all randomness comes from `rng`. The `meta` of a row
    holds `parents` (sample ids of the seeds it was made from) and `template` (keys of what models were told) where
    there are any; the flow adds models, licence and seed. `reasons` is the closed list of why a row is rejected.
    """

    reasons: ClassVar[frozenset[str]]

    @property
    def needs(self) -> Needs: ...

    @property
    def told(self) -> str:
        """Changes with every word that a model is told; part of the key of what is made. Empty where none is asked."""

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]: ...

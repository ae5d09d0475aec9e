"""Dialogues: generators that yield requests to models by role and are sent the replies.

Synthesizers and evaluation tasks are dialogues, so neither knows which model answers, how requests are batched or what
is cached. `converse` advances many of them together, one round of requests at a time.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.protocol import Completion, Prompt
from warehouse.records import Example, Messages

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Complete:
    """Ask the model in `role` ("generator", "judge", "tuned", ...) for one reply; answered by a `Completion`."""

    role: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Score:
    """Ask for the log-probability of each assistant token of `messages`; answered by a float32 array."""

    role: str
    messages: Messages


@dataclass(frozen=True, slots=True)
class Embed:
    """Ask for the embedding of `text`; answered by a (d,) float32 array."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finished row."""

    example: Example


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not kept, with a reason from the closed list of its synthesizer or filter."""

    reason: str
    detail: str = ""
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand finished rows out as they are made, so that a crash keeps them; answered by None."""

    rows: tuple[Accepted | Rejected, ...]


Request: TypeAlias = Complete | Score | Embed | Emit
Reply: TypeAlias = Completion | NDArray[np.float32] | None
Dialogue: TypeAlias = Generator[list[Request], list[Reply], Result]

"""The nouns of Winnow. Read this file first: every room speaks in these values.

A pool version is immutable and ordered, so a row number is an identity inside it and every signal array is aligned to
it. Across versions a row is known by `sample_id`, the hash of its canonical messages.

This module imports numpy and the standard library only.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


def canonical(value: Any) -> str:
    """JSON of `value` in the one spelling used for keys: sorted names, no spaces, no NaN.

    Raises `TypeError` for a value that JSON cannot hold (a path, an array, a set): keys must not depend on how such a
    value happens to print. Raises `ValueError` for NaN and infinities.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> str:
    """First 128 bits of the SHA-256 of `text`, as 32 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"unknown role {self.role!r}; known roles: {', '.join(ROLES)}")


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of instruction data.

    `sample_id` is a function of the messages alone (duplicates share it, so joins are on (pool, row)); `prompt_id` of
    the user turns alone, with case and white space folded (rows that ask the same thing share it).
    """

    messages: Messages
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sample_id(self) -> str:
        return digest(canonical([[m.role, m.content.strip()] for m in self.messages]))

    @property
    def prompt_id(self) -> str:
        return digest("\n".join(" ".join(m.content.casefold().split()) for m in self.messages if m.role == "user"))


@dataclass(frozen=True, slots=True)
class Pool:
    """An immutable, ordered set of `n` candidates. New rows make a new version under a new key."""

    name: str
    key: str
    n: int


@dataclass(frozen=True, slots=True)
class Spec:
    """What rebuilds a thing (a signal, a method, a trainer, a task): its name and every parameter.

    `key` changes iff the name or any parameter changes.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return digest(canonical({"name": self.name, "params": self.params}))


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen rows of one pool, best first: `rows`, `weights` (> 0), `scores` and `reasons`, all of shape (k,).

    `diagnostics` holds what the method measured about itself and the direction of its scores
    (`"direction": "higher is better"`).
    """

    rows: Rows
    weights: Floats
    scores: Floats
    reasons: Sequence[str]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k = len(self.rows)
        lengths = {"weights": len(self.weights), "scores": len(self.scores), "reasons": len(self.reasons)}
        if wrong := {name: n for name, n in lengths.items() if n != k}:
            raise ValueError(f"a selection of {k} rows has {wrong}")
        if len(np.unique(self.rows)) != k:
            raise ValueError("a selection names a row twice")
        if k and self.rows.min() < 0:
            raise ValueError("a selection names a negative row")
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise ValueError("the weights of a selection must be finite and above 0")


DatasetKind = Literal["chat", "preference"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a trainer is given: a Parquet file with a `messages` column, its content key, one weight per row or None."""

    path: Path
    key: str
    kind: DatasetKind = "chat"
    weights: Floats | None = None


@dataclass(frozen=True, slots=True)
class Mixture:
    """Shares of selections (by key) that sum to 1, and the seed that draws the rows."""

    parts: Mapping[str, float]
    seed: int

    def __post_init__(self) -> None:
        total = math.fsum(self.parts.values())
        if abs(total - 1) > 1e-9 or any(share <= 0 for share in self.parts.values()):
            raise ValueError(f"the shares of a mixture must be above 0 and sum to 1; they sum to {total}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on disk, and the names of all they came from. `base` is the path or hub name the user gave."""

    path: Path
    base: str
    trainer: Spec
    data_key: str
    seed: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its 95 % interval and the number of items it rests on. No bare float is ever reported."""

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"estimate {self.value} lies outside its interval [{self.low}, {self.high}]")


@dataclass(frozen=True, slots=True)
class EvalReport:
    """One task on one checkpoint: metric name to estimate. The outcome of every item is kept beside it."""

    task: Spec
    checkpoint_key: str
    metrics: Mapping[str, Estimate]

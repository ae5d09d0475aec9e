"""DMT (dual-stage mixed fine-tuning): specialised rows first, then general rows with a few of the specialised again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selection.advice import Advice, Evidence, Manifest
from warehouse.errors import InputError
from warehouse.records import Rows

FRACTION = 1 / 256


def replayed(size: int, fraction: float) -> int:
    """`fraction` of `size` rows as a whole number, halves up: 1/256 of 110142 are 430, of 20022 are 78."""
    return int(np.floor(size * fraction + 0.5))


def source_rng(seed: int, source: str) -> np.random.Generator:
    """A stream of numbers of its own for `source`: other sources coming or going change nothing."""
    word = int.from_bytes(hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return np.random.default_rng(np.random.SeedSequence([seed, word]))


def sampled(rows: Rows, fraction: float, seed: int, source: str) -> Rows:
    """`replayed` many of the rows (k,) of `source`, drawn without replacement, in their order."""
    drawn = source_rng(seed, source).permutation(len(rows))[: replayed(len(rows), fraction)]
    return rows[np.sort(drawn)]


@dataclass(frozen=True, slots=True)
class Dmt:
    """Two manifests: all rows of the specialised sources, then all others with `fraction` of each specialised source.

    specialised  names of sources
    fraction     of a specialised source that stage 2 sees again: more keeps more of the skill and costs general ability
    seed         of the rows drawn

    Rows of a manifest are in the order of their keys. Raises `InputError` without rows, for a source that is not there,
    where none or all sources are specialised, and for a fraction that is not between 0 and 1.
    """

    specialised: tuple[str, ...]
    fraction: float = FRACTION
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise InputError(f"dmt: the fraction is {self.fraction}; give one between 0 and 1, such as 1/256")

    def __call__(self, evidence: Evidence) -> Advice:
        if evidence.source_of is None or evidence.keys is None:
            raise InputError("dmt names rows: give the source and the key of every row of the pool")
        named = np.asarray([str(source) for source in evidence.source_of])
        order = np.argsort(evidence.keys, kind="stable").astype(np.int64)
        rows = {source: order[named[order] == source] for source in np.unique(named).tolist()}
        _check_sources(self.specialised, rows)
        again = {source: sampled(rows[source], self.fraction, self.seed, source) for source in self.specialised}
        general = {source: each for source, each in rows.items() if source not in self.specialised}
        first = _manifest("specialised", {source: rows[source] for source in self.specialised}, evidence.keys)
        second = _manifest("general", {**general, **again}, evidence.keys)
        seen_again = sum(len(each) for each in again.values())
        says = (
            f"First {len(first.rows)} rows of {', '.join(self.specialised)}, then {len(second.rows)} rows, "
            f"{seen_again} of them seen before."
        )
        facts = {"fraction": self.fraction, "seen_again": seen_again, "share_seen_again": seen_again / len(second.rows)}
        return Advice(says, manifests=(first, second), diagnostics=facts)


def _check_sources(specialised: tuple[str, ...], rows: Mapping[str, Rows]) -> None:
    if missing := sorted(set(specialised) - rows.keys()):
        raise InputError(f"dmt: the pool has no source {', '.join(missing)}; its sources are {', '.join(rows)}")
    if not specialised or len(set(specialised)) == len(rows):
        raise InputError(f"dmt: {len(set(specialised))} of {len(rows)} sources are specialised; each stage needs one")


def _manifest(name: str, rows: Mapping[str, Rows], keys: NDArray[np.uint64]) -> Manifest:
    together = np.sort(np.concatenate(list(rows.values())))
    ordered = together[np.argsort(keys[together], kind="stable")]
    return Manifest(name, ordered, {source: len(each) for source, each in sorted(rows.items())})

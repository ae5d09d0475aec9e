"""Rows whose licence is not wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_mask
from warehouse.cleaning.parameters import check_switch, check_texts
from warehouse.errors import InputError
from warehouse.licences import TOGETHER

UNKNOWN = ("unknown", "other")  # what data set cards say where they say nothing


@dataclass(frozen=True, slots=True)
class Licence:
    """Patterns (`*` and `?`) of licences to refuse, and whether to refuse rows without a known one."""

    deny: Sequence[str]
    deny_unknown: bool = False

    reasons: ClassVar[tuple[str, ...]] = ("licence_denied", "licence_unknown")
    reads: ClassVar[tuple[str, ...]] = ("licence",)
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_texts("deny", self.deny)
        check_switch("deny_unknown", self.deny_unknown)
        if not self.deny and not self.deny_unknown:
            raise InputError("deny is empty and deny_unknown is false: the filter would do nothing; name a licence")

    def __call__(self, block: Block) -> Findings:
        licences = block.column("licence")
        known = [name for name in pc.unique(licences).to_pylist() if name is not None]
        denied = [name for name in known if any(map(self._denies, (name, *name.split(TOGETHER))))]
        found = [of_mask("licence_denied", _among(licences, denied), lambda row: str(licences[row]))]
        if self.deny_unknown:
            vague = [name for name in known if not set(UNKNOWN).isdisjoint(name.split(TOGETHER))]
            unknown = _among(licences, vague) | np.asarray(pc.is_null(licences))
            found.append(of_mask("licence_unknown", unknown, lambda row: licences[row].as_py() or ""))
        return findings(found)

    def _denies(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern.lower()) for pattern in self.deny)


def _among(licences: pa.StringArray, names: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(pc.is_in(licences, value_set=pa.array(names, pa.string())))

"""Rows in a language that is not wanted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_mask
from warehouse.cleaning.parameters import check_switch, check_texts
from warehouse.errors import InputError
from warehouse.language import UNDETERMINED


@dataclass(frozen=True, slots=True)
class Language:
    """The languages to keep, as ISO 639-1 codes; `keep_undetermined` is for rows too short or too odd to tell."""

    keep: Sequence[str]
    keep_undetermined: bool = True

    reasons: ClassVar[tuple[str, ...]] = ("other_language",)
    reads: ClassVar[tuple[str, ...]] = ("language",)
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_texts("keep", self.keep)
        check_switch("keep_undetermined", self.keep_undetermined)
        if not self.keep:
            raise InputError("keep is empty: name the languages to keep, for example en")
        for code in self.keep:
            if not re.fullmatch("[a-z]{2}", code):
                raise InputError(
                    f"keep holds {code!r}; languages are ISO 639-1 codes of two lower-case letters, like en"
                )

    def __call__(self, block: Block) -> Findings:
        spoken = block.column("language")
        kept = [*self.keep, UNDETERMINED] if self.keep_undetermined else [*self.keep]
        other = ~np.asarray(pc.is_in(spoken, value_set=pa.array(kept)))
        return findings([of_mask("other_language", other, lambda row: str(spoken[row]))])

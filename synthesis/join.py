"""An instruction that counts as another one, because it is nearly the same text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Join:
    """The instruction that one is joined to, and the Jaccard similarity of their runs of three words, in [0, 1]."""

    centre: str
    similarity: float

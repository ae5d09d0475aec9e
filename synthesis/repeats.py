"""Finding replies that say the same as an earlier one, among the few replies to one question."""

from dataclasses import dataclass, field

GRAM = 5


@dataclass(eq=False, slots=True)
class Repeats:
    """The texts that were kept so far. Two are one where they are equal but for case and white space, or where their
    sets of 5 words in a row have a Jaccard similarity of at least `near`."""

    near: float = 0.9
    _words: set[str] = field(default_factory=set)
    _grams: list[frozenset[tuple[str, ...]]] = field(default_factory=list)

    def of(self, text: str) -> str:
        """How `text` repeats an earlier one: "exact" or "near"; "" where it does not, and is now one of them."""
        folded = text.casefold().split()
        if (joined := " ".join(folded)) in self._words:
            return "exact"
        grams = frozenset(tuple(folded[i : i + GRAM]) for i in range(max(1, len(folded) - GRAM + 1)))
        if any(jaccard(grams, earlier) >= self.near for earlier in self._grams):
            return "near"
        self._words.add(joined)
        self._grams.append(grams)
        return ""


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Shared members over all members of two sets; 1 for two empty ones."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0

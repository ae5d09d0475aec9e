"""Whether an instruction says what one of a growing pool says already, by ROUGE-L against all of the pool.

Comparing each with all others is quadratic. Two bounds leave out most pairs and lose none: a longest common
subsequence is no longer than the shorter text, and none of its words is one that the texts do not share.
"""

import math
import re
from array import array
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Indel

from synthesis.languages import CJK

WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
EXACT = 1e-9  # what rounding may take off a product of a share and a whole number
LOOSE = 1e-4  # rapidfuzz 3.14 loses pairs that are just as like as its cut-off


@dataclass(frozen=True, slots=True)
class Near:
    """A text of the pool and the ROUGE-L (F1) to it, 0 to 1; higher is closer."""

    text: str
    similarity: float


@dataclass(eq=False, slots=True)
class Novelty:
    """Texts to compare with. Two are alike where their ROUGE-L (F1) over words is `least` or more; 0 < least <= 1.

    Words are runs of letters and digits, as in the rouge-score package, and single Chinese and Japanese characters;
    their case does not count.
    """

    least: float = 0.7
    _texts: list[str] = field(default_factory=list)
    _codes: list[str] = field(default_factory=list)  # a character for each word: one string is compared fast
    _signs: dict[str, str] = field(default_factory=dict)
    _lengths: "array[int]" = field(default_factory=lambda: array("q"))
    _places: "defaultdict[str, array[int]]" = field(default_factory=lambda: defaultdict(lambda: array("q")))

    def add(self, text: str) -> None:
        code = self._code(text)
        for sign in set(code):
            self._places[sign].append(len(self._codes))
        self._lengths.append(len(code))
        self._codes.append(code)
        self._texts.append(text)

    def nearest(self, text: str) -> Near | None:
        """The text of the pool that is most like `text`, of several the first; None where none is alike."""
        code = self._code(text)
        places = self._candidates(code)
        found = process.extractOne(
            code,
            [self._codes[place] for place in places],
            scorer=Indel.normalized_similarity,  # 1 - (a + b - 2 LCS) / (a + b): ROUGE-L (F1)
            score_cutoff=self.least - LOOSE,
        )
        if found is None or found[1] < self.least - EXACT:
            return None
        return Near(self._texts[places[found[2]]], found[1])

    def _candidates(self, code: str) -> list[int]:
        """Places of all texts that can be alike, and of some that are not, in order.

        A text that is alike shares at least `needed` of the n words, so it has one of any n - needed + 1 of them: of
        the rarest.
        """
        if not self._codes:
            return []
        shortest = math.ceil(self.least * len(code) / (2 - self.least) - EXACT)
        longest = math.floor(len(code) * (2 - self.least) / self.least + EXACT)
        needed = shared_words(self.least, len(code), shortest)
        rarest = sorted(code, key=lambda sign: len(self._places.get(sign, ())))[: len(code) - needed + 1]
        listed = [np.frombuffer(self._places[sign], np.int64) for sign in set(rarest) & self._places.keys()]
        found = np.unique(np.concatenate([np.zeros(0, np.int64), *listed]))
        lengths = np.frombuffer(self._lengths, np.int64)[found]
        kept: list[int] = found[(lengths >= shortest) & (lengths <= longest)].tolist()
        return kept

    def _code(self, text: str) -> str:
        return "".join(self._signs.setdefault(word, chr(len(self._signs) + 1)) for word in rouge_words(text))


def rouge_words(text: str) -> list[str]:
    """The words that ROUGE-L is counted over."""
    return WORD.findall(text.casefold())


def shared_words(least: float, a: int, b: int) -> int:
    """How long a common subsequence of texts of `a` and `b` words must be for a ROUGE-L (F1) of `least`."""
    return max(1, math.ceil(least * (a + b) / 2 - EXACT))

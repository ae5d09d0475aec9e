"""How close two texts are: chrF over characters, ROUGE-L over words, and the share of words copied in runs."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from rapidfuzz.distance import LCSseq

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF


def chrf(text: str, reference: str) -> float:
    """chrF of `text` (Popović 2015), 0 to 100; higher is closer."""
    return float(_chrf().sentence_score(text, [reference]).score)


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF  # 0.8 s to import, and only translations need it

    return CHRF()


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L (F1) of two texts as words: of the longest common subsequence, 0 to 1; higher is closer."""
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 0.0


def coverage(words: Sequence[str], others: Sequence[str], n: int = 3) -> float:
    """The share of `words` that stand in a run of `n` words that `others` has too; 0 where there are no words.

    Texts of fewer than `n` words are compared whole.
    """
    n = min(n, len(words))
    if not n:
        return 0.0
    known = {tuple(others[i : i + n]) for i in range(len(others) - n + 1)}
    covered: set[int] = set()
    for i in range(len(words) - n + 1):
        if tuple(words[i : i + n]) in known:
            covered.update(range(i, i + n))
    return len(covered) / len(words)

"""Comparing short answers as SQuAD does (Rajpurkar et al. 2016, §6.1): normalised text, F1 over its words.

Unlike there the point of a decimal number and the sign of a negative one are kept: "3.5" is not "35".
"""

import re
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = re.compile(r"(?!(?<![a-z])\.\d|(?<!\w)-\.?\d)[!-/:-@\[-`{-~]")


def normalised(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words parted by one space.

    A text that is nothing but those ("The") stays as it is, in lower case: it is an answer too.
    """
    lowered = text.lower()
    bare = " ".join(ARTICLES.sub(" ", PUNCTUATION.sub("", lowered)).split())
    return bare or " ".join(lowered.split())


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the words of the two normalised texts, in [0, 1]."""
    a, b = Counter(normalised(answer).split()), Counter(normalised(gold).split())
    shared = (a & b).total()
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def best_f1(answer: str, golds: Sequence[str]) -> float:
    """The highest `f1` over the gold answer and its aliases. An exact match of the normalised texts gives 1."""
    return max((f1(answer, gold) for gold in golds), default=0.0)

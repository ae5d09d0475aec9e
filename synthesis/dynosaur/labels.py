"""Whether a task has few enough answers to list, and even enough ones to be kept (Dynosaur, step 4)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synthesis.dynosaur.card import is_null, is_scalar
from synthesis.fault import Fault

MOST_LABELS = 10
MOST_OF_TWO, MOST_OF_MORE = 0.70, 0.50  # shares of the commonest label: 70 and 50 of the 100 rows of the paper
LABEL_CHARS = 15


@dataclass(frozen=True, slots=True)
class Labels:
    """`listed` are the answers to name in the instruction, in the order in which they first come up; empty where there
    are too many or too long ones. `spelling` has the one spelling of each label by its case-folded text; empty where
    the outputs are no labels.
    """

    listed: tuple[str, ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)

    def instruction(self, text: str) -> str:
        return f"{text} Answers must be one of {', '.join(self.listed)}." if self.listed else text

    def output(self, value: Any) -> str:
        text = str(value).strip()
        return self.spelling.get(text.casefold(), text)


def labels_of(outputs: Sequence[Any]) -> Labels | Fault:
    """The label space of the output cells of a table, nulls and empty ones left out; spellings that differ in case are
    one label.

    output_not_scalar  a cell is a list or nested
    no_values          there is no cell with something in it
    one_label          all answers are the same
    unbalanced         of at most `MOST_LABELS` labels one is too common
    """
    given = [value for value in outputs if not is_null(value)]
    if not all(map(is_scalar, given)):
        return Fault("output_not_scalar")
    texts = [text for value in given if (text := str(value).strip())]
    if not texts:
        return Fault("no_values")
    counts = Counter(text.casefold() for text in texts)
    if len(counts) > MOST_LABELS:
        return Labels()
    if len(counts) == 1:
        return Fault("one_label", texts[0][:80])
    share = max(counts.values()) / len(texts)
    if share > (MOST_OF_TWO if len(counts) == 2 else MOST_OF_MORE):
        return Fault("unbalanced", f"{share:.2f} of {len(texts)} are {counts.most_common(1)[0][0][:80]!r}")
    spelling = dict[str, str]()
    for text in texts:
        spelling.setdefault(text.casefold(), text)
    short = all(len(text) <= LABEL_CHARS for text in spelling.values())
    return Labels(tuple(spelling.values()) if short else (), spelling)

"""Tasks that choose among given replies by how likely the model finds each; nothing is generated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eval.calibration import brier_score
from eval.likelihoods import loss_of, reply_turn, scored, scoring, softmax
from eval.protocol import Item, Score
from eval.rows import RowTask, gold_of, prompt_of
from models.dialogue import Dialogue
from models.verify.reference import reference_of, right_label
from warehouse.errors import InputError
from warehouse.records import Example, Floats, Message, Messages

LENGTHS = ("characters", "bytes", "tokens")
OWN_LABEL = re.compile(r"\s*[(\[]?([A-Z])[)\].:]\s+")


@dataclass(frozen=True, slots=True)
class Choice(RowTask):
    """Right where the gold choice is the likeliest reply (`accuracy`), and likeliest per character (`accuracy_norm`).

    A choice is scored as a reply exactly as training writes one, with no space put before it: Σ ln p of its tokens.
    `p_correct`, `brier` and `confidence` are of the softmax over these sums; `nll` is the gold choice's loss per token,
    end token included. A tie goes to the choice that comes first, and `detail` says so.

    Rows hold meta `choices`, a list of texts or a mapping from labels to texts, and meta `label`, the place of the
    right one (0 is the first) or its label. Without `label` it is meta `answer`, else the gold reply.

    letters    write the choices under the question as "A. ...", and choose among the letters
    normalise  what `accuracy_norm` divides a choice's sum by: its "characters", "bytes" or "tokens"
    end_token  count the end token too: then a reply is scored whole, and "5" is not always likelier than "55"
    """

    letters: bool = False
    normalise: str = "characters"
    end_token: bool = False

    name: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        RowTask.__post_init__(self)
        if self.normalise not in LENGTHS:
            raise InputError(f"task 'choice': normalise is {self.normalise!r}; give one of {', '.join(LENGTHS)}")

    def problem(self, row: Example) -> str:
        if not prompt_of(row):
            return "has no question before its choices"
        choices = reference_of(row).choices
        if len(choices) < 2:
            return f"must name at least two choices in meta `choices`; found {len(choices)}"
        if empty := [label for label, text in choices if not text.strip()]:
            return f"has an empty choice ({', '.join(empty)})"
        if _place(row) is None:
            known = ", ".join(label for label, _ in choices)
            return f"names none of its choices as right: meta `label` must be one of {known}, or a place from 0"
        return ""

    def asked(self, row: Example) -> Messages:
        turns = prompt_of(row)
        if not self.letters:
            return turns
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, _texts(row), strict=False))
        return (*turns[:-1], Message(turns[-1].role, f"{turns[-1].content.rstrip()}\n{listed}"))

    def gold(self, row: Example) -> str:
        place = _place(row)
        assert place is not None  # `problem` has seen the row
        return self.choices(row)[place]

    def choices(self, row: Example) -> tuple[str, ...]:
        texts = _texts(row)
        return tuple(ascii_uppercase[: len(texts)]) if self.letters else texts

    def attempt(self, item: Item) -> Dialogue[Score]:
        logprobs = yield from choice_logprobs(item)
        place = _place(item.example)
        assert place is not None  # `problem` has seen the row
        return self.score(item.choices, place, logprobs)

    def score(self, choices: Sequence[str], gold: int, logprobs: Sequence[NDArray[np.float32]]) -> Score:
        """Values of the k `choices` from the log-probabilities of each one's tokens, the end token last."""
        scored = [each if self.end_token else each[:-1] for each in logprobs]
        sums = np.array([np.sum(each, dtype=np.float64) for each in scored])
        per_unit = sums / self._lengths(choices, scored)
        chances, best, best_norm = softmax(sums), int(sums.argmax()), int(per_unit.argmax())
        nll, detail = loss_of(logprobs[gold])
        values = {
            "accuracy": float(best == gold),
            "accuracy_norm": float(best_norm == gold),
            "p_correct": float(chances[gold]),
            "brier": float(brier_score(chances[None], np.array([gold]))[0]),
            "confidence": float(chances[best]),
        }
        tied = int((sums == sums[best]).sum()) > 1
        detail |= {"logprobs": sums.tolist(), "label": gold, "chosen": best, "chosen_norm": best_norm, "tied": tied}
        return Score(values | nll, choices[best], ascii_uppercase[best], detail)

    def _lengths(self, choices: Sequence[str], scored: Sequence[NDArray[np.float32]]) -> Floats:
        if self.normalise == "tokens":
            return np.array([len(each) for each in scored], np.float64)
        texts = [choice.strip() for choice in choices]
        return np.array([len(t if self.normalise == "characters" else t.encode()) for t in texts], np.float64)


@dataclass(frozen=True, slots=True)
class LowestPerplexity(RowTask):
    """Right where the gold reply has a lower perplexity than every other candidate (`lowest_perplexity`, 0 or 1).

    DoIT (Song et al. 2024) scores open-ended replies so; chance is 1 / candidates. Rows hold the others in meta
    `candidates`, a list of texts; the gold reply among them counts once. Perplexity is of the whole reply, end token
    included, per token. A tie is not lower.
    """

    name: ClassVar[str] = "lowest_perplexity"

    def problem(self, row: Example) -> str:
        if why := RowTask.problem(self, row):
            return why
        others = row.meta.get("candidates")
        if not isinstance(others, Sequence) or isinstance(others, str):
            return "must hold a list of other replies in meta `candidates`"
        return "" if len(self.choices(row)) > 1 else "has no candidate beside its gold reply"

    def choices(self, row: Example) -> tuple[str, ...]:
        others = [str(text).strip() for text in row.meta["candidates"]]
        return tuple(dict.fromkeys([gold_of(row).strip(), *others]))

    def attempt(self, item: Item) -> Dialogue[Score]:
        logprobs = yield from choice_logprobs(item)
        losses = np.array([-np.mean(each, dtype=np.float64) for each in logprobs])
        nll, detail = loss_of(logprobs[0])
        values = {"lowest_perplexity": float(losses[0] < losses[1:].min())}
        best = int(losses.argmin())
        return Score(values | nll, item.choices[best], None, detail | {"nlls": losses.tolist(), "chosen": best})


def choice_logprobs(item: Item) -> Dialogue[list[NDArray[np.float32]]]:
    """Natural log-probabilities of the tokens of each of the item's choices, the end token last, in one round."""
    replies = yield scoring(item.prompt, [reply_turn(text) for text in item.choices], item.heard)
    return scored(replies, len(item.choices), item.heard)


def _texts(row: Example) -> tuple[str, ...]:
    """The texts of the choices; labels that all of them carry themselves, "(A) ...", are taken off."""
    texts = [text.strip() for _, text in reference_of(row).choices]
    marks = [OWN_LABEL.match(text) for text in texts]
    if [mark and mark[1] for mark in marks] == list(ascii_uppercase[: len(texts)]):
        return tuple(text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark)
    return tuple(texts)


def _place(row: Example) -> int | None:
    """The place of the right choice; None where none is named."""
    choices = reference_of(row).choices
    label = row.meta.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        return label if 0 <= label < len(choices) else None
    labels = [known.casefold() for known, _ in choices]
    wanted = label if isinstance(label, str) else right_label(row, reference_of(row))
    return labels.index(wanted.strip().casefold()) if wanted.strip().casefold() in labels else None

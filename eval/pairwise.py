"""A judge that compares a reply with the reference reply, asked twice with the two in either place."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eval.protocol import TUNED, Item, Score
from eval.replying import Replying
from models.dialogue import Complete, Dialogue
from models.protocol import UNANSWERED, Completion, Prompt
from models.telling import telling
from warehouse.errors import InputError
from warehouse.records import Message

JUDGE = "judge"
TEMPLATES = Path(__file__).parent / "templates"
VERDICT = re.compile(r"[\s\"'*`(\[]*([ABC])[\s\"'*`)\].!]*")
MAX_TOKENS = 8
WON = {"A": (1.0, 0.0), "B": (0.0, 1.0), "C": (0.5, 0.5)}  # for the reply in place A, and in place B


@dataclass(frozen=True, slots=True)
class Pairwise(Replying):
    """Whether a judge finds the reply better than the gold one (`win_rate`: 1 better, 0.5 as good, 0 worse).

    The judge, any model in the role "judge", is asked greedily, once with the reply in place A and once in place B. A
    win or a loss counts only where both answers say so; all else is a tie. `position_bias` is 1 where the two answers
    differ. Where an answer cannot be read `undecided` is 1, and the item counts as a tie; `detail` holds both answers.

    template  the judge's prompt: the file of this name in eval/templates, slots conversation, a and b
    """

    max_tokens: int = 1024
    template: str = "pairwise.v1"

    name: ClassVar[str] = "pairwise"
    needs: ClassVar[tuple[str, ...]] = (TUNED, JUDGE)

    def __post_init__(self) -> None:
        Replying.__post_init__(self)
        known = sorted(path.stem for path in TEMPLATES.glob("pairwise.*.jinja"))
        if self.template not in known:
            raise InputError(f"task 'pairwise': unknown template {self.template!r}; known: {', '.join(known)}")

    def attempt(self, item: Item) -> Dialogue[Score]:
        asked = yield from self.ask(item)
        reply = asked.completion.text
        first, second = yield [self._judged(item, reply, item.gold), self._judged(item, item.gold, reply)]
        return asked.score(compared(first, second))

    def _judged(self, item: Item, a: str, b: str) -> Complete:
        conversation = item.prompt[item.given :]
        text = telling(TEMPLATES, self.template)(conversation=conversation, a=a.strip(), b=b.strip())
        return Complete(JUDGE, Prompt((Message("user", text),), MAX_TOKENS))


def compared(first: Completion, second: Completion) -> Score:
    """What the judge's two answers say of the reply that was in place A first, and in place B second."""
    letters = [letter_of(first), letter_of(second)]
    decided = "" not in letters
    shares = [WON[letters[0]][0], WON[letters[1]][1]] if decided else [0.5, 0.5]
    values = {
        "win_rate": shares[0] if shares[0] == shares[1] else 0.5,
        "position_bias": float(shares[0] != shares[1]),
        "undecided": float(not decided),
    }
    detail = {"verdicts": letters, "heard": [first.text[:80], second.text[:80]]}
    lost = next((each for each in (first, second) if each.failure in UNANSWERED), None)
    return Score(
        values, detail=detail | ({"failure": lost.failure, "said": f"the judge: {lost.detail}"} if lost else {})
    )


def letter_of(heard: Completion) -> str:
    """ "A", "B" or "C", "" for an answer that is none of them, was cut, or was given to a cut prompt."""
    said = VERDICT.fullmatch(heard.text)
    if heard.failure or heard.truncated or said is None or heard.finish_reason == "length":
        return ""
    return said[1]

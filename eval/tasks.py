"""Tasks whose reply is compared with the gold one, and the loss of the gold one alone.

Every task that scores replies also asks for the log-probability of the gold reply, because on small models accuracy
stands still where the loss already moves (Schaeffer et al. 2023).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from eval.answers import compile_answer, extract, number_in, same_text
from eval.likelihoods import loss_of, reply_turn, scored, scoring
from eval.protocol import Item, Score
from eval.replying import Replying
from eval.rows import RowTask, gold_of
from models.dialogue import Dialogue
from warehouse.records import Example


@dataclass(frozen=True, slots=True)
class ExactMatch(Replying):
    """Right where the answer equals the gold one after white space around both is removed (`exact_match`, 0 or 1).

    answer    a regular expression; its last match (first group, if it has one) in reply and gold is the answer.
              None compares the whole texts
    casefold  compare without regard to case
    """

    casefold: bool = False
    answer: str | None = None

    name: ClassVar[str] = "exact_match"

    def __post_init__(self) -> None:
        Replying.__post_init__(self)
        compile_answer(self.answer)

    def grade(self, item: Item, reply: str) -> Score:
        parsed, right = self.judge(reply, item.gold)
        return Score({"exact_match": float(right)}, parsed=parsed)

    def judge(self, reply: str, gold: str) -> tuple[str | None, bool]:
        """The answer found in `reply`, and whether it is the gold one. A gold reply without a match counts whole."""
        pattern = compile_answer(self.answer)
        parsed, wanted = extract(reply, pattern), extract(gold, pattern)
        return parsed, same_text(parsed, gold if wanted is None else wanted, self.casefold)


@dataclass(frozen=True, slots=True)
class NumericMatch(Replying):
    """Right where the number of the reply equals the gold one (`numeric_match`, 0 or 1); see `eval.answers.number_in`.

    `answer` is that of `ExactMatch`; the number is then looked for in the answer alone. Every gold reply must hold a
    number.
    """

    max_tokens: int = 512
    answer: str | None = None

    name: ClassVar[str] = "numeric_match"

    def __post_init__(self) -> None:
        Replying.__post_init__(self)
        compile_answer(self.answer)

    def problem(self, row: Example) -> str:
        if why := RowTask.problem(self, row):
            return why
        gold = gold_of(row)
        return f"has no number in its gold reply {gold[:80]!r}" if self.number(gold) is None else ""

    def grade(self, item: Item, reply: str) -> Score:
        parsed, right = self.judge(reply, item.gold)
        return Score({self.name: float(right)}, parsed=parsed)

    def number(self, text: str) -> Decimal | None:
        """The number that `text` gives as its answer."""
        return number_in(extract(text, compile_answer(self.answer)))

    def judge(self, reply: str, gold: str) -> tuple[str | None, bool]:
        """The number found in `reply`, and whether it equals the gold one as a decimal number (18 = 18.0)."""
        found = self.number(reply)
        return None if found is None else str(found), found is not None and found == self.number(gold)


@dataclass(frozen=True, slots=True)
class HeldOutLoss(RowTask):
    """The loss of the gold replies (`nll`): what training minimises, on rows it did not see. Nothing is generated.

    Examples with several assistant turns are scored on all of them, as in training; worked examples are not scored.
    """

    name: ClassVar[str] = "held_out_loss"

    def attempt(self, item: Item) -> Dialogue[Score]:
        given, own = item.prompt[: item.given], item.prompt[item.given :]
        heard = None if any(turn.role == "assistant" for turn in own) else item.heard
        logprobs = yield scoring(given, [(*own, *reply_turn(item.gold))], heard)
        values, detail = loss_of(*scored(logprobs, 1, heard))
        return Score(values, detail=detail)

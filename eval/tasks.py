"""Tasks made of rows: what is asked of the tuned model for each test example, and how its reply is scored.

The last assistant turn of an example is the gold reply; the turns before it are the prompt. Every task that scores
replies also asks for the log-probability of the gold reply, because on small models accuracy stands still where the
loss already moves (Schaeffer et al. 2023).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import numpy as np

from eval.answers import compile_answer, extract, number_in, same_text
from eval.protocol import Item, Score
from models.dialogue import Complete, Dialogue
from models.dialogue import Score as ScoreRequest
from models.protocol import Completion, Prompt
from warehouse.errors import InputError
from warehouse.records import Example, Messages, Spec

ROLE = "tuned"


def gold_of(example: Example) -> str:
    """The gold reply: the content of the last turn."""
    return example.messages[-1].content


def prompt_of(example: Example) -> Messages:
    """The turns before the gold reply."""
    return example.messages[:-1]


def items_of(examples: Sequence[Example], limit: int | None) -> tuple[Item, ...]:
    """Items for the first `limit` examples, known by `sample_id`; a repeated example gets its count behind it.

    Raises `InputError` for an example without a prompt or a gold reply.
    """
    seen: Counter[str] = Counter()
    items = []
    for number, example in enumerate(examples[:limit]):
        _check(number, example)
        sample = example.sample_id
        items.append(Item(f"{sample}-{seen[sample]}" if seen[sample] else sample, example))
        seen[sample] += 1
    if not items:
        raise InputError("the test set is empty; give at least one example")
    return tuple(items)


def _check(number: int, example: Example) -> None:
    if len(example.messages) < 2 or example.messages[-1].role != "assistant":
        raise InputError(
            f"test example {number} (source {example.source!r}) must end with a gold reply after a prompt: its last "
            "turn must be the assistant's, with another before it"
        )


def loss_of(logprobs: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Per-token loss of a gold reply, in nats, and its tokens; no value where truncation left no token."""
    count = len(logprobs)
    values = {"nll": -float(np.sum(logprobs, dtype=np.float64)) / count} if count else {}
    return values, {"n_tokens": count}


def attempt_reply(
    item: Item, prompt: Prompt, metric: str, judge: Callable[[str, str], tuple[str | None, bool]]
) -> Dialogue[Score]:
    """Ask for a reply and for the loss of the gold reply, in one round; `judge(reply, gold)` parses and decides."""
    completion, logprobs = yield [Complete(ROLE, prompt), ScoreRequest(ROLE, item.example.messages)]
    if not isinstance(completion, Completion):
        raise TypeError(f"a Complete request must be answered by a Completion, not {type(completion).__name__}")
    loss, detail = loss_of(logprobs)
    parsed, right = judge(completion.text, gold_of(item.example))
    detail["finish_reason"] = completion.finish_reason
    return Score({metric: float(right)} | loss, completion.text, parsed, detail)


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Right where the answer equals the gold one after white space around both is removed (`exact_match`, 0 or 1).

    answer    a regular expression; its last match (first group, if it has one) in reply and gold is the answer.
              None compares the whole texts
    casefold  compare without regard to case
    stop      texts that end a reply besides the model's end token
    limit     only the first so many examples
    """

    examples: tuple[Example, ...]
    max_tokens: int = 256
    casefold: bool = False
    answer: str | None = None
    stop: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        compile_answer(self.answer)
        object.__setattr__(self, "stop", tuple(self.stop))  # a recipe gives a list

    @property
    def spec(self) -> Spec:
        return _spec("exact_match", self)

    def items(self) -> Sequence[Item]:
        return items_of(self.examples, self.limit)

    def attempt(self, item: Item) -> Dialogue[Score]:
        prompt = Prompt(prompt_of(item.example), self.max_tokens, stop=self.stop)
        return attempt_reply(item, prompt, "exact_match", self.judge)

    def judge(self, reply: str, gold: str) -> tuple[str | None, bool]:
        """The answer found in `reply`, and whether it is the gold one. A gold reply without a match counts whole."""
        pattern = compile_answer(self.answer)
        parsed, wanted = extract(reply, pattern), extract(gold, pattern)
        return parsed, same_text(parsed, gold if wanted is None else wanted, self.casefold)


@dataclass(frozen=True, slots=True)
class NumericMatch:
    """Right where the number of the reply equals the gold one (`numeric_match`, 0 or 1); see `eval.answers.number_in`.

    `answer`, `stop` and `limit` are those of `ExactMatch`; the number is then looked for in the answer alone. Every
    gold reply must hold a number.
    """

    examples: tuple[Example, ...]
    max_tokens: int = 512
    answer: str | None = None
    stop: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))
        for number, example in enumerate(self.examples[: self.limit]):
            if self.number(gold_of(example)) is None:
                raise InputError(f"test example {number} has no number in its gold reply {gold_of(example)[:80]!r}")

    @property
    def spec(self) -> Spec:
        return _spec("numeric_match", self)

    def items(self) -> Sequence[Item]:
        return items_of(self.examples, self.limit)

    def attempt(self, item: Item) -> Dialogue[Score]:
        prompt = Prompt(prompt_of(item.example), self.max_tokens, stop=self.stop)
        return attempt_reply(item, prompt, "numeric_match", self.judge)

    def number(self, text: str) -> Decimal | None:
        """The number that `text` gives as its answer."""
        return number_in(extract(text, compile_answer(self.answer)))

    def judge(self, reply: str, gold: str) -> tuple[str | None, bool]:
        """The number found in `reply`, and whether it equals the gold one as a decimal number (18 = 18.0)."""
        found = self.number(reply)
        return None if found is None else str(found), found is not None and found == self.number(gold)


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The loss of the gold replies (`nll`): what training minimises, on rows it did not see. Nothing is generated.

    Examples with several assistant turns are scored on all of them, as in training.
    """

    examples: tuple[Example, ...]
    limit: int | None = None

    @property
    def spec(self) -> Spec:
        return _spec("held_out_loss", self)

    def items(self) -> Sequence[Item]:
        return items_of(self.examples, self.limit)

    def attempt(self, item: Item) -> Dialogue[Score]:
        (logprobs,) = yield [ScoreRequest(ROLE, item.example.messages)]
        values, detail = loss_of(logprobs)
        return Score(values, detail=detail)


def _spec(name: str, task: ExactMatch | NumericMatch | HeldOutLoss) -> Spec:
    """Name and parameters without the examples, which have a key of their own."""
    params = {f.name: getattr(task, f.name) for f in fields(task) if f.name != "examples"}
    return Spec(name, {k: list(v) if isinstance(v, tuple) else v for k, v in params.items()})

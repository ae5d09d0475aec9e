"""A language model that says whether a reply is right, where no program can."""

import re
from pathlib import Path
from typing import get_args

from models.dialogue import Complete, Dialogue
from models.protocol import Completion, Failure, Prompt, Verdict
from models.telling import Telling, telling
from models.verify.answer import MAX_CHARS
from models.verify.reference import question_of, reference_of
from warehouse.records import Example, Message

JUDGE = "judge"
TEMPLATE = telling(Path(__file__).parent / "templates", "judge.v1")
JUDGE_REASONS = frozenset(
    {"wrong", "no_answer", "too_long", "no_reference", "judge_unclear", "judge_prompt_too_long"}
) | (frozenset(get_args(Failure)) - {""})
MAX_TOKENS = 8
YES_OR_NO = re.compile(r"[\s\"'*`(]*(yes|no)[\s\"'*`).!]*", re.IGNORECASE)


def judged(role: str, reply: str, item: Example, template: Telling = TEMPLATE) -> Dialogue[Verdict]:
    """Ask the model in `role`, greedily, whether `reply` says what the reference of `item` says.

    `template` has the slots question, answers and reply, and must ask for "yes" or "no" alone. Anything else that the
    judge says is not a yes: the reply is not right, and the reason says that the judge was the cause. Where the judge
    gave no reply the reason is why, as it would be for the reply itself: see `undecided`.
    """
    reference = reference_of(item)
    answers = reference.answers or ((reference.gold_reply,) if reference.gold_reply.strip() else ())
    if not answers:
        return Verdict(False, reason="no_reference")
    if not reply.strip():
        return Verdict(False, reason="no_answer")
    if len(reply) > MAX_CHARS:
        return Verdict(False, reason="too_long", detail=f"{len(reply)} characters; at most {MAX_CHARS} are read")
    question = "\n\n".join(turn.content for turn in question_of(item))
    asked = template(question=question, answers=answers, reply=reply.strip())
    (heard,) = yield [Complete(role, Prompt((Message("user", asked),), max_tokens=MAX_TOKENS))]
    assert isinstance(heard, Completion)  # what `Complete` is answered by
    return _verdict(heard, reply)


def _verdict(heard: Completion, reply: str) -> Verdict:
    answer = reply.strip()
    if heard.failure:
        return Verdict(False, answer, heard.failure, f"the judge: {heard.detail}")
    if heard.truncated:
        return Verdict(False, answer, "judge_prompt_too_long")
    said = YES_OR_NO.fullmatch(heard.text)
    if said is None or heard.finish_reason == "length":
        return Verdict(False, answer, "judge_unclear", heard.text.strip()[:80])
    right = said[1].lower() == "yes"
    return Verdict(right, answer, "" if right else "wrong")

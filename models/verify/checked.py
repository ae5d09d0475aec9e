"""One call for whoever must know whether a reply is right, whatever tells it: a verifier or a judge."""

from typing import get_args

from models.dialogue import Dialogue, Verify
from models.protocol import UNANSWERED, Completion, Failure, Verdict
from models.verify.judge import JUDGE, JUDGE_REASONS, TEMPLATE, judged
from models.verify.reference import question_of, reference_of
from models.verify.table import VERIFIERS
from warehouse.errors import InputError
from warehouse.records import Example

OF_THE_REPLY: frozenset[str] = frozenset({"cut_off", "prompt_too_long"} | set(get_args(Failure))) - {""}
"""Why a reply is not right before anybody looks at it; truncated replies are wrong by definition (DART-Math)."""
AT_ONCE = ("exact", "numeric", "choice")  # verifiers that start no process


def checked(verifier: str, reply: Completion | str, item: Example) -> Dialogue[Verdict]:
    """Whether `reply` is right about `item`: by the verifier of that name, or the model in role "judge"."""
    check_verifier(verifier)
    if isinstance(reply, Completion) and (fault := _fault(reply)):
        return Verdict(False, reason=fault, detail=reply.detail)
    text = reply.text if isinstance(reply, Completion) else reply
    if verifier == JUDGE:
        return (yield from judged(JUDGE, text, item))
    (verdict,) = yield [Verify(verifier, text, item)]
    assert isinstance(verdict, Verdict)  # what `Verify` is answered by
    return verdict


def undecided(verdict: Verdict) -> bool:
    """Whether nobody has said yet if the reply is right: a judge that did not answer is asked again by a later run."""
    return verdict.reason in UNANSWERED


def check_verifier(verifier: str) -> None:
    if verifier not in VERIFIERS and verifier != JUDGE:
        raise InputError(f"unknown verifier {verifier!r}; known verifiers: {', '.join((*VERIFIERS, JUDGE))}")


def verifier_roles(verifier: str) -> tuple[str, ...]:
    """The roles of verifiers that `checked` asks."""
    return () if verifier == JUDGE else (verifier,)


def judge_roles(verifier: str) -> tuple[str, ...]:
    """The roles of models that `checked` asks."""
    return (JUDGE,) if verifier == JUDGE else ()


def told_of(verifier: str) -> str:
    """The key of what the judge is told; "" where none is asked."""
    return TEMPLATE.key if verifier == JUDGE else ""


def reasons_of(verifier: str) -> frozenset[str]:
    """Every reason that `checked` can give with this verifier."""
    check_verifier(verifier)
    return OF_THE_REPLY | (JUDGE_REASONS if verifier == JUDGE else VERIFIERS[verifier].reasons)


ALL_REASONS: frozenset[str] = frozenset().union(*(reasons_of(name) for name in (*VERIFIERS, JUDGE)))


def unusable(verifier: str, item: Example) -> str:
    """Why no reply to `item` can be checked: "no_question", "no_reference", or "" where one can."""
    reference = reference_of(item)
    if not question_of(item):
        return "no_question"
    if verifier == "unit_test":
        known = bool(reference.tests)
    elif verifier in AT_ONCE:
        known = VERIFIERS[verifier]().verify([("0", item)])[0].reason != "no_reference"
    else:
        known = bool(reference.answers or reference.gold_reply.strip())
    return "" if known else "no_reference"


def _fault(reply: Completion) -> str:
    if reply.failure:
        return reply.failure
    if reply.finish_reason == "length":
        return "cut_off"
    return "prompt_too_long" if reply.truncated else ""

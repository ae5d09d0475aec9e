"""Learning from own programs: which of them count as right so far, what is kept of them, and what each row says."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from attempt_worlds import Rows, Talker, accepted, asks, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Rejected
from models.protocol import Measures, Prompt, Want
from models.verify.sandbox import Ran
from models.verify.trace import Step, Trace, Traced, straight
from models.verify.tracer import steps
from synthesis.self_samples import SelfSamples, continued, softmax
from synthesis.tracing import Known, Part, candidate, exported, kept, refused
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages

GOLD = "eggs = 3 * 4\neaten = 5\nanswer = eggs - eaten"
TASK = asks("Three boxes of 4 eggs, 5 are eaten. How many are left?", GOLD)


def traced(program: str) -> Trace:
    """A program of the test's own, traced in this process."""
    found = straight(program)
    return Trace(found, tuple(Step(**step) for step in steps(found.statements)))  # type: ignore[arg-type]


def whole(program: str, draw: int = 0) -> Part:
    trace = traced(program)
    return Part(trace, trace.answered, True, draw)


def begun(program: str, draw: int = 1) -> Part:
    trace = traced(program)
    return Part(trace, len(trace.steps), False, draw)


def in_this_process(program: str, given: Sequence[str], *_: Any) -> list[Ran]:
    """Stands in for the jail, for programs of the test's own."""

    def one(text: str) -> Ran:
        lines = []
        try:
            for step in steps(json.loads(text)):
                lines.append(json.dumps(step) + "\n")
        except (ArithmeticError, NameError) as error:
            return Ran("crashed", "".join(lines), str(error))
        return Ran("finished", "".join(lines))

    return [one(text) for text in given]


@pytest.fixture
def unjailed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.verify.trace.run_all", in_this_process)


# --- what is known to be right

KNOWN = Known(complete=(whole(GOLD),))


def test_the_states_of_a_right_program_before_its_answer_are_known() -> None:
    assert sorted(KNOWN.shortest.values()) == [1, 2]
    assert set(KNOWN.shortest) == {step.state for step in traced(GOLD).steps[:2]}


@pytest.mark.parametrize(
    ("program", "right", "k", "complete"),
    [
        ("answer = 3 * 4 - 5", True, 1, True),
        ("a = 12\nb = 5\nanswer = a + b", False, 2, False),  # right up to the wrong step, whatever the names
        ("x = 4 * 3\nfoo = 99", False, 1, False),
        ("b = 5\na = 12\nanswer = 0", False, 2, False),  # another order, the same state in the end
        ("b = 5\nanswer = 0\na = 12", False, 0, False),  # nothing counts after a wrong answer
        ("x = 13", False, 0, False),
        ("a = 12\nprint(a)\nb = a", False, 1, False),  # statements that bring no new value reach no state
    ],
)
def test_how_far_a_program_is_right(program: str, right: bool, k: int, complete: bool) -> None:
    part = candidate(KNOWN, traced(program), right, 1)
    assert (part.k, part.complete) == (k, complete) if part else k == 0


@pytest.mark.parametrize(
    ("part", "tolerance", "reason"),
    [
        (whole("answer = 12 - 5"), 0, None),
        (whole("eggs = 3 * 4 # twelve\neaten  = 5\nanswer = (eggs - eaten)"), 0, "duplicate"),
        (whole("a = 3\nb = 4\nc = a * b\nanswer = c - 5"), 0, "longer"),
        (whole("a = 3\nb = 4\nc = a * b\nanswer = c - 5"), 1, None),
        (begun("eggs = 3 * 4"), 0, "duplicate"),  # a beginning of the gold program
        (begun("a = 12\nb = 5"), 0, None),
        (begun("a = 6\na = a * 2"), 0, "longer"),
        (begun("a = 6\na = a * 2"), 1, None),
    ],
)
def test_why_a_candidate_is_refused(part: Part, tolerance: int, reason: str | None) -> None:
    assert refused(KNOWN, part, tolerance) == reason


def test_without_a_known_program_the_first_right_one_sets_the_length() -> None:
    long = whole("a = 3\nb = 4\nc = a * b\nanswer = c - 5", 1)
    assert refused(Known(), long, 0) is None
    known, _ = kept(Known(), long)
    assert refused(known, whole(GOLD, 2), 0) is None
    assert candidate(Known(), traced("a = 12"), False, 1) is None


def test_a_continuation_takes_the_place_of_its_beginning() -> None:
    first, other = begun("a = 12", 1), begun("b = 5 + 7", 2)
    known, gone = kept(kept(KNOWN, first)[0], other)
    assert gone == ()
    known, gone = kept(known, begun("a = 12\nb = 5", 3))
    assert gone == (first,)
    known, gone = kept(known, whole("a = 12\nb = 5\nanswer = a - b", 4))
    assert [part.draw for part in gone] == [3]
    assert [part.draw for part in known.parts] == [0, 4, 2]


def test_states_of_partial_programs_are_known_too() -> None:
    known, _ = kept(KNOWN, begun("five = 5\na = 12", 1))
    part = candidate(known, traced("x = 5\nanswer = 1"), False, 2)
    assert part is not None
    assert part.k == 1


def test_whole_programs_come_first_and_the_longest_beginnings_then() -> None:
    known = Known((whole(GOLD), whole("answer = 7", 3)), (begun("a = 12", 1), begun("a = 12.0\nb = 5", 2)))
    assert [part.draw for part in exported(known, 3)] == [3, 0, 2]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a = 12", "b = 5", "c = 3", "a = 4 * 3", "answer = 7", "answer = 1"]), max_size=6))
def test_what_is_kept_is_right_so_far_and_never_twice(lines: list[str]) -> None:
    known = KNOWN
    for draw in range(1, len(lines) + 1):
        trace = traced("\n".join(lines[-draw:]))
        part = candidate(known, trace, trace.answer == "7", draw)
        if part is not None and refused(known, part, 1) is None:
            known, _ = kept(known, part)
    for part in known.parts:
        assert not any(part.begins(other) for other in known.parts if other is not part)
        last = part.trace.steps[part.k - 1]
        assert last.answer == "7" if part.complete else last.state in known.shortest


# --- the job


class Weighed(Talker):
    """A reply of n characters has log-probability -n / 10, and its end token -1."""

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        found = [np.array([-len(row[-1].content) / 10, -1], np.float32) for row in rows]
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=found)


def rows_of(job: SelfSamples, seeds: list[Example], says: Callable[[Prompt], str], **more: Any) -> Rows:
    return made(job, seeds, {"learner": Weighed(says)}, verifiers={"trace": Traced()}, **more)


def sayer(*replies: str) -> Callable[[Prompt], str]:
    """The reply of each draw, from 1; the last one for all after it."""
    return lambda prompt: replies[min(prompt.draw, len(replies)) - 1]


REPLIES = (
    "```python\na = 12\nb = 5\nanswer = a + b\n```",  # right so far
    "answer = 12 - 5",
    "I do not know.",
    "x = 99\nanswer = x",
)


def test_programs_and_beginnings_are_told_apart_in_a_jail() -> None:
    rows = rows_of(SelfSamples(rounds=1), [TASK], sayer(*REPLIES))
    assert [(row.messages[-1].content, row.meta["complete"], row.meta["origin"]) for row in accepted(rows)] == [
        ("answer = 12 - 5", True, "self"),
        (GOLD, True, "gold"),
        ("a = 12\nb = 5", False, "self"),
    ]
    assert all(row.messages[:-1] == TASK.messages[:-1] for row in accepted(rows))
    assert reasons(rows) == {"": 3, "no_answer": 1, "wrong": 1}
    assert [row.meta for row in accepted(rows)][2] == {
        "parents": [TASK.sample_id], "template": [SelfSamples.told], "origin": "self", "draw": 1, "complete": False,
        "statements": 2, "weight": 1.0,
    }  # fmt: skip


@pytest.mark.usefixtures("unjailed")
def test_later_rounds_go_on_from_what_was_right() -> None:
    asked: list[str] = []

    def says(prompt: Prompt) -> str:
        asked.append(prompt.messages[-1].content)
        return "a = 12\nb = 5\nanswer = 0" if prompt.draw == 1 else "answer = a - b"

    rows = rows_of(SelfSamples(rounds=12, samples=1), [TASK], says)
    begun = [text for text in asked if "begins as follows" in text]
    assert begun
    assert all(text.endswith("a = 12\nb = 5") for text in begun)
    assert {row.messages[-1].content for row in accepted(rows)} == {GOLD, "a = 12\nb = 5\nanswer = a - b"}
    assert reasons(rows)["superseded"] == 1


@pytest.mark.usefixtures("unjailed")
def test_a_sample_that_gets_no_further_than_where_it_began_has_gone_wrong() -> None:
    rows = rows_of(SelfSamples(rounds=12, samples=1), [TASK], sayer("a = 12\nb = 5\nanswer = 0", "answer = 1"))
    assert reasons(rows) == {"": 2, "wrong": 11}


@pytest.mark.usefixtures("unjailed")
def test_each_sample_ends_in_one_row() -> None:
    replies = (*REPLIES, "answer = 12 - 5 # again", "<unreachable>", "a = 1 / 0", "for i in range(7): answer = i + 1",
               "a = 3\nb = 4\nc = a * b\nanswer = c - 5", " ")  # fmt: skip
    rows = rows_of(SelfSamples(rounds=1, samples=10, most=2), [TASK], sayer(*replies))
    assert len(rows) == 10 + 1
    assert reasons(rows) == {
        "": 2, "over_most": 1, "no_answer": 3, "wrong": 1, "duplicate": 1, "unreachable": 1, "crashed": 1, "longer": 1,
    }  # fmt: skip
    [lost] = [row for row in rows if isinstance(row, Rejected) and row.reason == "unreachable"]
    assert lost.detail == "as told"


@pytest.mark.usefixtures("unjailed")
def test_a_gold_reply_that_is_no_right_program_is_reported_and_its_answer_still_counts() -> None:
    told = asks("How many?", "There are 7.", answer=7)
    rows = rows_of(SelfSamples(rounds=1, samples=1), [told], sayer("answer = 7"))
    assert reasons(rows) == {"": 1, "gold_not_right": 1}
    bare = Example((Message("user", "How many?"),), "s", {"answer": "7"})
    assert reasons(rows_of(SelfSamples(rounds=1, samples=1), [bare], sayer("answer = 7"))) == {"": 1}


@pytest.mark.usefixtures("unjailed")
def test_seeds_of_no_use_are_rejected_unasked() -> None:
    seeds = [
        Example((), "s"),
        Example((Message("user", "How many?"),), "s"),
        Example((Message("assistant", "1"),), "s"),
    ]
    rows = rows_of(SelfSamples(), seeds, sayer("never asked"))
    assert reasons(rows) == {"no_question": 2, "no_reference": 1}


@pytest.mark.usefixtures("unjailed")
def test_the_last_line_of_a_reply_that_was_cut_off_does_not_count() -> None:
    class Cut(Talker):
        def complete(self, prompts: Sequence[Prompt]) -> Any:
            return [replace(reply, finish_reason="length") for reply in super().complete(prompts)]

    rows = made(
        SelfSamples(rounds=1, samples=1), [TASK], {"learner": Cut(lambda _: "a = 12\nanswer = 7")},
        verifiers={"trace": Traced()},
    )  # fmt: skip
    assert {row.messages[-1].content for row in accepted(rows)} == {GOLD, "a = 12"}


@pytest.mark.usefixtures("unjailed")
def test_weights_are_the_gradient_of_beta_mml() -> None:
    says = sayer("answer = 7", "a = 12\nb = 5\nanswer = 0")
    job = SelfSamples(rounds=1, samples=2, beta=0.5)
    rows = accepted(rows_of(job, [TASK], says))
    lengths = [len("answer = 7") / 10 + 1, len(GOLD) / 10 + 1, len("a = 12\nb = 5") / 10]  # no end token for the last
    powers = np.exp(-0.5 * np.array(lengths))
    assert [row.meta["weight"] for row in rows] == pytest.approx((powers / powers.sum()).tolist(), rel=1e-5)
    assert job.needs.scored == ("learner",)
    assert SelfSamples().needs.scored == ()


def test_softmax_by_hand() -> None:
    assert softmax([], 1.0) == []
    assert softmax([-3.0, -5.0], 0.0) == [0.5, 0.5]
    assert softmax([0.0, float(np.log(3))], 1.0) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("prefix", "reply", "program"),
    [
        (None, "Sure:\n```\na = 1\n```", "a = 1\n"),
        (begun("a = 12"), "b = 5", "a = 12\nb = 5"),
        (begun("a = 12"), "```python\n    b = 5\n    c = 6\n```", "a = 12\nb = 5\nc = 6"),
        (begun("a = 12"), "a = 12  # again\nb = 5", "a = 12  # again\nb = 5"),
    ],
)
def test_a_reply_goes_on_with_its_beginning_or_repeats_it(prefix: Part | None, reply: str, program: str) -> None:
    assert continued(prefix, reply) == program


@pytest.mark.usefixtures("unjailed")
@pytest.mark.parametrize("seeds", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize("wave", [1, 2, 1024])
def test_the_order_of_the_seeds_and_the_wave_only_order_the_rows(seeds: list[int], wave: int) -> None:
    tasks = [TASK, asks("Twelve and 5?", "answer = 12 + 5"), asks("What is 12?", "answer = 12")]

    def says(prompt: Prompt) -> str:
        options = ("a = 12\nb = 5\nanswer = 1", "b = 5\na = 12\nanswer = 17", "answer = 12", "answer = a - b")
        return options[(prompt.draw + prompt.seed + len(prompt.messages[-1].content)) % 4]

    def texts(order: list[int], wave: int) -> list[str]:
        rows = rows_of(SelfSamples(rounds=3, samples=2), [tasks[i] for i in order], says, wave=wave)
        return sorted(repr(row) for row in rows)

    assert texts(seeds, wave) == texts([0, 1, 2], 1024)


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"samples": 0}, {"tolerance": -1}, {"most": 0}, {"temperature": 0.0}, {"beta": -1.0}]
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SelfSamples(**wrong)

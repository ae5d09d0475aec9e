"""Many dialogues in rounds: who is asked what, when, and in which order the answers come back."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_rows import ROWS, said

from models.canned import CannedEncoder, CannedModel
from models.converse import Collected, converse
from models.dialogue import Accepted, Complete, Dialogue, Embed, Emit, Rejected, Score, each
from models.protocol import Completion, Prompt, Usage
from warehouse.errors import InputError
from warehouse.records import Example


class Echo(CannedModel):
    """Replies with the last turn, and keeps the size of every batch."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: prompt.messages[-1].content)
        self.batches: list[int] = []

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        self.batches.append(len(prompts))
        return super().complete(prompts)


def ask(text: str, role: str = "generator") -> Complete:
    return Complete(role, Prompt(said(text)))


def count_down(n: int) -> Dialogue[list[str]]:
    heard = []
    for i in range(n, 0, -1):
        [reply] = yield [ask(f"{n}:{i}")]
        heard.append(reply.text)
    return heard


def expected(n: int) -> list[str]:
    return [f"{n}:{i}" for i in range(n, 0, -1)]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_results_are_in_order_whatever_the_lengths_and_the_wave(lengths: list[int], wave: int) -> None:
    model = Echo()
    results = converse((count_down(n) for n in lengths), {"generator": model}, wave=wave)
    assert results == [expected(n) for n in lengths]
    assert sum(model.batches) == sum(lengths)
    assert max(model.batches, default=0) <= wave


def test_a_round_is_one_call_per_role_and_kind() -> None:
    model = Echo()
    converse([count_down(3), count_down(3), count_down(1)], {"generator": model})
    assert model.batches == [3, 2, 2]


def test_dialogues_start_only_when_there_is_room() -> None:
    started: list[int] = []
    alive: list[int] = []

    def one(i: int) -> Dialogue[None]:
        started.append(i)
        alive.append(len(started))
        yield [ask("x")]
        alive.append(len(started))

    converse((one(i) for i in range(6)), {"generator": Echo()}, wave=2)
    assert alive[:3] == [1, 2, 2]
    assert started == list(range(6))


def test_each_kind_of_request_gets_its_kind_of_reply() -> None:
    def all_kinds() -> Dialogue[list[object]]:
        return (yield [Score("judge", ROWS[0]), ask("hello"), Emit(()), Embed("space", "text"), ask("again", "judge")])

    judge, encoder = CannedModel({"again": "yes"}), CannedEncoder()
    [replies] = converse([all_kinds()], {"generator": Echo(), "judge": judge}, {"space": encoder}, Collected())
    scores, hello, nothing, vector, again = replies
    assert len(scores) == 4 + 1 + 1 + 1
    assert (hello.text, nothing, again.text) == ("hello", None, "yes")
    assert np.array_equal(vector, encoder.embed(["text"])[0])


def test_rows_are_handed_out_before_the_models_of_their_round_are_called() -> None:
    kept = Collected()
    row = Accepted(Example(said("q", "a"), "test"))

    def crashing() -> Dialogue[None]:
        yield [ask("unknown"), Emit((row, Rejected("too short")))]

    with pytest.raises(InputError, match="no canned reply"):
        converse([crashing()], {"generator": CannedModel({"known": ""})}, emit=kept)
    assert kept.rows() == [row, Rejected("too short")]


def test_a_missing_role_lists_the_roles_given() -> None:
    with pytest.raises(InputError, match=r"'generator'.*given roles: judge, tuned"):
        converse([count_down(1)], {"tuned": Echo(), "judge": Echo()})
    with pytest.raises(InputError, match=r"encoder in role 'space'.*none"):
        converse([iter_once(Embed("space", "x"))], {})


def iter_once(request: Embed | Emit | Complete) -> Dialogue[None]:
    yield [request]


def test_rows_without_a_taker_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="emit="):
        converse([iter_once(Emit(()))], {})


def test_an_error_names_its_dialogue_and_the_others_are_closed() -> None:
    closed: list[str] = []

    def careful() -> Dialogue[None]:
        try:
            yield [ask("a")]
            yield [ask("b")]
        finally:
            closed.append("careful")

    def failing() -> Dialogue[None]:
        yield [ask("a")]
        raise KeyError("broken")

    with pytest.raises(KeyError) as caught:
        converse([careful(), failing()], {"generator": Echo()})
    assert caught.value.__notes__ == ["in dialogue 1"]
    assert closed == ["careful"]


def test_each_runs_small_dialogues_inside_one_job() -> None:
    model = Echo()

    def job() -> Dialogue[int]:
        first = yield from each([2, 1, 3], count_down, wave=2)
        [reply] = yield [ask("done")]
        return len([text for texts in first for text in texts]) + len(reply.text)

    assert converse([job(), job()], {"generator": model}) == [10, 10]
    assert model.batches[0] == 4


def test_each_gives_results_in_order_and_nothing_for_nothing() -> None:
    model = Echo()
    assert converse([each([3, 0, 1], count_down)], {"generator": model}) == [[expected(3), [], expected(1)]]
    assert converse([each([], count_down)], {}) == [[]]
    assert converse([], {}) == []


class Outside(CannedModel):
    """Answers each prompt on a thread of its own, after as many milliseconds as it says; 0 once `told` where given."""

    def __init__(self, told: threading.Event | None = None) -> None:
        super().__init__(lambda prompt: prompt.messages[-1].content)
        self.threads, self.told = ThreadPoolExecutor(16), told

    def submit(self, prompt: Prompt) -> Future[Completion]:
        return self.threads.submit(self._late, prompt)

    def _late(self, prompt: Prompt) -> Completion:
        wait = int(prompt.messages[-1].content)
        if self.told and not wait:
            self.told.wait(60)
        time.sleep(wait / 1000)
        return self.complete([prompt])[0]


def telling(waits: Sequence[int]) -> Dialogue[int]:
    """Asks for each wait in turn, then hands its row out and asks about it as a group of its own."""
    for wait in waits:
        [reply] = yield [ask(str(wait))]
        yield [Emit((Rejected(reply.text),))]
    inner = yield from each(waits, alone)
    yield [Emit((Rejected(f"sum {sum(inner)}"),))]
    return sum(inner)


def alone(wait: int) -> Dialogue[int]:
    [reply] = yield [ask(str(wait))]
    yield [Emit((Rejected(f"inner {reply.text}"),))]
    return int(reply.text)


WAITS = [[30, 0, 1], [0, 0, 0], [], [5, 20, 0], [1, 2, 3]]


@pytest.mark.parametrize("wave", [1, 2, 100])
def test_rows_and_results_are_in_order_however_the_answers_come_in(wave: int) -> None:
    answers = []
    for model in (Outside(), Echo()):
        taken = Collected()
        results = converse(map(telling, WAITS), {"generator": model}, emit=taken, wave=wave)
        answers.append((results, [row.reason for row in taken.rows()]))
    assert answers[0] == answers[1]
    assert answers[0][0] == [sum(waits) for waits in WAITS]
    expected = [
        reason
        for waits in WAITS
        for reason in [*map(str, waits), *(f"inner {wait}" for wait in waits), f"sum {sum(waits)}"]
    ]
    assert answers[0][1] == expected


def test_no_dialogue_waits_for_a_slow_neighbour() -> None:
    heard: list[str] = []
    done = threading.Event()

    def in_turn(name: str, waits: Sequence[int]) -> Dialogue[None]:
        for wait in waits:
            yield [ask(str(wait))]
            heard.append(name)
        done.set()

    converse([in_turn("slow", [0]), in_turn("quick", [1, 1, 1])], {"generator": Outside(done)})
    assert heard == ["quick", "quick", "quick", "slow"]


def test_an_error_from_outside_ends_the_conversation() -> None:
    closed: list[str] = []

    def careful() -> Dialogue[None]:
        try:
            yield [ask("300")]
        finally:
            closed.append("careful")

    with pytest.raises(ValueError, match="invalid literal"):
        converse([careful(), iter_once(ask("no number"))], {"generator": Outside()})
    assert closed == ["careful"]


def test_many_dialogues_that_ask_nothing_cost_no_stack() -> None:
    def silent(i: int) -> Dialogue[int]:
        return i
        yield []

    assert sum(converse([each(range(20_000), silent, wave=3)], {})[0]) == sum(range(20_000))


def test_rows_come_with_the_keys_of_the_replies_behind_them() -> None:
    class Keyed(CannedModel):
        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            return [Completion("x", "stop", Usage(1, 1), key=prompt.messages[-1].content) for prompt in prompts]

    def two_rows() -> Dialogue[None]:
        yield [ask("a"), ask("b")]
        yield [Emit((Rejected("first"),)), ask("c")]
        yield [Emit((Rejected("second"), Rejected("third")))]

    def job() -> Dialogue[None]:
        yield from each(["d", "e"], in_silence)
        yield [Emit((Rejected("after"),))]

    def in_silence(text: str) -> Dialogue[None]:
        yield [ask(text)]

    taken = Collected()
    converse([two_rows(), job()], {"generator": Keyed({})}, emit=taken)
    assert [(row.reason, list(keys)) for row, keys in taken.heard()] == [
        ("first", ["a", "b"]),
        ("second", ["c"]),
        ("third", ["c"]),
        ("after", ["d", "e"]),
    ]

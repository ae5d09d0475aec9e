"""Values instead of text: what is read, what is mended, what is asked again, what is given up."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from models.canned import CannedModel
from models.converse import converse
from models.protocol import Completion, Failure, Prompt, Usage
from models.structured import Fault, Structured, Unmet, read, schema_of, structured
from warehouse.records import Message


class Task(BaseModel):
    model_config = ConfigDict(extra="forbid")
    instruction: Annotated[str, Field(min_length=1)]
    fields: list[str]


class Inner(BaseModel):
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner


GOOD = {"instruction": "Say it.", "fields": ["a", "b"]}
TASK = Task(instruction="Say it.", fields=["a", "b"])
PROMPT = Prompt((Message("system", "s"), Message("user", "Make a task.")), 64, 0.5, seed=3)


def completion(text: str, finish: str = "stop", failure: Failure = "") -> Completion:
    return Completion(text, finish, Usage(1, 9), failure=failure, key=f"key of {text[:8]}")


def asked(replies: Sequence[str | Completion], re_asks: int = 2) -> tuple[Any, list[Prompt]]:
    """What becomes of `replies`, in turn, and the prompts."""

    class Replies(CannedModel):
        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            self.prompts.extend(prompts)
            reply = replies[len(self.prompts) - 1]
            return [completion(reply) if isinstance(reply, str) else reply]

    model = Replies({})
    [found] = converse([structured("generator", PROMPT, Task, re_asks)], {"generator": model})
    return found, model.prompts


def test_a_value_is_asked_once_and_the_schema_is_told_and_set() -> None:
    found, [prompt] = asked([json.dumps(GOOD)])
    assert found == Structured(TASK, ('key of {"instru',), mended=False)
    assert prompt.schema == schema_of(Task)
    assert schema_of(Task) in prompt.messages[-1].content
    assert prompt.messages[-1].content.startswith("Make a task.\n\n")
    assert replace(prompt, messages=PROMPT.messages, schema=None) == PROMPT


TEXT = json.dumps(GOOD)
MENDABLE = {
    "fence": f"Here it is:\n```json\n{TEXT}\n```\nGood luck!",
    "python": str(GOOD),
    "comma": TEXT[:-1] + ",}",
    "prose": f"Sure! {TEXT}",
    "quotes": TEXT.replace('"', "'"),
    "open": TEXT[:-2],
}


@pytest.mark.parametrize("text", MENDABLE.values(), ids=MENDABLE)
def test_slips_are_mended_here(text: str) -> None:
    found, prompts = asked([text])
    assert isinstance(found, Structured)
    assert (found.value, found.mended, len(prompts)) == (TASK, True, 1)


def test_what_was_cut_off_is_not_closed_for_it() -> None:
    cut = completion(TEXT[:-2], "length")
    found, prompts = asked([cut, TEXT])
    assert isinstance(found, Structured)
    assert "cut off after 9 tokens" in prompts[1].messages[-1].content
    found, _ = asked([cut] * 3)
    assert (found.reason, len(found.keys)) == ("cut_off", 3)
    assert asked([completion(TEXT, "length")])[0].value == TASK  # whole all the same


BAD = {
    "extra": (TEXT[:-1] + ', "more": 1}', "more: Extra inputs are not permitted"),
    "missing": ('{"instruction": "x"}', "fields: Field required"),
    "bounds": ('{"instruction": "", "fields": []}', "instruction: String should have at least 1 character"),
    "type": ('{"instruction": "x", "fields": "a"}', "fields: Input should be a valid array"),
    "list": (f"[{TEXT}]", "the value: Input should be an object"),
    "words": ("I cannot do that", "it holds no JSON value"),
    "nothing": ("", "it holds no JSON value"),
    "deep": ("[" * 100_000, "it holds no JSON value"),
}


@pytest.mark.parametrize(("text", "fault"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_asked_again_with_its_fault(text: str, fault: str) -> None:
    found, prompts = asked([text, TEXT])
    assert found == Structured(TASK, (f"key of {text[:8]}", 'key of {"instru'), mended=False)
    *earlier, last = prompts[1].messages
    assert tuple(earlier) == (*prompts[0].messages, Message("assistant", text))
    assert fault in last.content
    assert prompts[1] != prompts[0]


@pytest.mark.parametrize("re_asks", [0, 1, 2])
def test_a_schema_that_is_never_met_ends_in_a_stated_outcome(re_asks: int) -> None:
    found, prompts = asked(["no"] * 5, re_asks)
    assert found == Unmet("unmet", "it holds no JSON value", ("key of no",) * (re_asks + 1), "no")
    assert len(prompts) == len(set(prompts)) == re_asks + 1


def test_a_failed_reply_is_its_failure() -> None:
    found, prompts = asked(["no", completion("", "error", "over_budget")])
    assert (found.reason, len(found.keys), len(prompts)) == ("over_budget", 2, 2)


def test_of_a_key_that_stands_twice_nobody_knows_which_is_meant() -> None:
    twice = '{"instruction": "a", "fields": [], "fields": ["b"]}'
    found = read(completion(twice), Task)
    assert not isinstance(found, Fault)
    assert found[1]  # never taken as it stands


def test_models_must_forbid_keys_they_do_not_name() -> None:
    for wanted in (Inner, Open):
        with pytest.raises(ValueError, match=r"Inner lets keys pass.*extra=\"forbid\""):
            schema_of(wanted)


@given(st.text() | st.text(alphabet="{}[]\",:'`\\ntrue1.e-#", max_size=40))
def test_reading_never_fails(text: str) -> None:
    found = read(completion(text), Task)
    assert isinstance(found, Fault) or isinstance(found[0], Task)


@given(st.text(min_size=1), st.lists(st.text(), max_size=4))
def test_what_is_json_is_read_as_it_is(instruction: str, fields: list[str]) -> None:
    task = Task(instruction=instruction, fields=fields)
    assert read(completion(task.model_dump_json()), Task) == (task, False)
    assert read(completion(f"```\n{task.model_dump_json(indent=1)}\n```"), Task) in ((task, True), (task, False))


def test_a_prompt_that_ends_with_a_reply_is_asked_by_a_turn_of_its_own() -> None:
    prompt = Prompt((Message("user", "a"), Message("assistant", "b")))
    [request] = next(structured("judge", prompt, Task))
    assert [message.role for message in request.prompt.messages] == ["user", "assistant", "user"]  # type: ignore[union-attr]

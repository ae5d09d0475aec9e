"""The store around a model on this machine."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_rows import ROWS, said
from scripted_server import ask

from models.canned import CannedModel
from models.endpoint.store import ResponseStore
from models.endpoint.stored import Stored
from models.local import LocalModel
from models.protocol import Completion, LanguageModel, Prompt, Usage, Want

PROMPTS = [ask(f"text {n}") for n in range(10)]


class Dying(CannedModel):
    """Answers in capitals, and dies at its `last`-th call."""

    def __init__(self, last: int = 99) -> None:
        super().__init__(capitals)
        self.batches: list[int] = []
        self.last = last

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        if len(self.batches) + 1 == self.last:
            raise KeyboardInterrupt
        self.batches.append(len(prompts))
        return super().complete(prompts)


def capitals(prompt: Prompt) -> str:
    return f"{prompt.messages[-1].content.upper()} {prompt.draw}"


def test_what_is_no_answer_is_not_kept(tmp_path: Path) -> None:
    class Moody(CannedModel):
        """Answers nothing until it is in the mood."""

        mood = False

        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            if self.mood:
                return super().complete(prompts)
            return [Completion("", "error", Usage(0, 0), failure="unreachable") for _ in prompts]

    model = Moody(capitals)
    with ResponseStore(tmp_path / "r.sqlite") as store:
        stored = Stored(model, store)
        assert {one.failure for one in stored.complete(PROMPTS)} == {"unreachable"}
        assert store.totals().answers == 0
        model.mood = True
        assert [one.text for one in stored.complete(PROMPTS)] == [f"TEXT {n} 0" for n in range(10)]


def test_only_what_is_missing_is_asked(tmp_path: Path) -> None:
    model = Dying()
    with ResponseStore(tmp_path / "r.sqlite") as store:
        stored = Stored(model, store, chunk=4)
        language_model: LanguageModel = stored
        assert language_model.fingerprint == model.fingerprint
        first = stored.complete(PROMPTS[:3])
        assert stored.complete(PROMPTS)[:3] == first
        assert model.batches == [3, 4, 3]
        assert [one.text for one in stored.complete(PROMPTS[::-1])] == [f"TEXT {n} 0" for n in range(9, -1, -1)]
        assert stored.complete([PROMPTS[0]] * 3) == first[:1] * 3
        assert stored.complete([]) == []
        assert model.batches == [3, 4, 3]
        plain = Dying().complete(PROMPTS)
        assert [replace(one, key="") for one in stored.complete(PROMPTS)] == plain
        assert (store.totals().answers, store.totals().unread) == (10, 0)


def test_equal_prompts_of_one_call_are_asked_once(tmp_path: Path) -> None:
    model = Dying()
    with ResponseStore(tmp_path / "r.sqlite") as store:
        found = Stored(model, store).complete([ask(), ask(draw=1), ask()])
    assert (model.batches, [one.text for one in found]) == ([2], ["HELLO 0", "HELLO 1", "HELLO 0"])


def test_an_interrupted_job_asks_nothing_twice(tmp_path: Path) -> None:
    with ResponseStore(tmp_path / "r.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            Stored(Dying(last=3), store, chunk=4).complete(PROMPTS)
        model = Dying()
        Stored(model, store, chunk=4).complete(PROMPTS)
        assert model.batches == [2]


def test_every_field_and_the_model_make_another_key(tmp_path: Path) -> None:
    other: dict[str, Any] = {
        "messages": said("other"),
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": ("y",),
        "seed": 2,
        "draw": 1,
        "presence_penalty": 0.25,
        "schema": "{}",
    }
    assert set(other) == {field.name for field in fields(Prompt)}
    changed = [ask(), *(replace(ask(), **{name: value}) for name, value in other.items())]
    with ResponseStore(tmp_path / "r.sqlite") as store:
        keys = [one.key for one in Stored(Dying(), store).complete(changed)]
        keys += [one.key for one in Stored(CannedModel({"hello": "x"}), store).complete([ask()])]
    assert len(set(keys)) == len(keys)


def test_a_real_model_keeps_its_log_probabilities(tmp_path: Path, tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), device="cpu", dtype="float32")
    prompts = [ask("What is 12 plus 30?", max_tokens=4), ask("Reverse the word river.", max_tokens=3, temperature=1.0)]
    with ResponseStore(tmp_path / "r.sqlite") as store:
        stored = Stored(model, store)
        fresh, again = stored.complete(prompts), stored.complete(prompts)
        assert fresh == again
        assert [replace(one, key="") for one in again] == model.complete(prompts)
        wants = frozenset({Want.RESPONSE_LOGPROBS})
        one, other = stored.measure(ROWS[:2], wants), model.measure(ROWS[:2], wants)
        assert np.array_equal(one.response_logprobs[0], other.response_logprobs[0])  # type: ignore[index]
        assert stored.fingerprint == model.fingerprint

"""DEITA's scorers: worked grades, the prompts, and the sums over a row's turns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_rows import said
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from models.chat import encode
from models.local import LocalModel
from models.scorer import (
    COMPLEXITY,
    ENDING,
    PROMPTS,
    QUALITY,
    digit_tokens,
    expected_grade,
    grades,
    prompt,
    scores,
    turns_of,
)
from models.tokens import load_tokenizer
from warehouse.errors import InputError
from warehouse.records import Message


@pytest.fixture(scope="module")
def scorer() -> LocalModel:
    return LocalModel.load("winnow-tiny", dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("logits", "grade"), [([0] * 6, 3.5), ([0, 0, 0, 0, 0, np.log(5)], 4.5), (range(6), 5.4329328)]
)
def test_grades_by_hand(logits: Any, grade: float) -> None:
    assert expected_grade(np.array([list(logits)], np.float32)) == pytest.approx(grade, abs=1e-6)


@given(st.lists(st.integers(-50, 50), min_size=6, max_size=6), st.integers(-1000, 1000))
def test_a_shift_of_all_logits_changes_no_grade(logits: list[int], shift: int) -> None:
    z = np.array([logits], np.float32)
    assert expected_grade(z + shift) == pytest.approx(expected_grade(z))
    assert 1 <= expected_grade(z)[0] <= 6


def test_the_turns_of_a_row() -> None:
    assert turns_of((Message("system", "s"), *said("a", "b", "c"))) == [("a", "b"), ("c", "")]
    assert turns_of(said("a", "b", "c", "d")) == [("a", "b"), ("c", "d")]
    assert turns_of((Message("user", " a "), Message("user", "b"))) == [("a", ""), ("b", "")]
    assert turns_of(()) == []


def test_sums_over_turns_by_hand(scorer: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given_grades = iter([np.array([2.0, 3.0]), np.array([4.0, 5.0])])
    monkeypatch.setattr("models.scorer.grades", lambda model, prompts: next(given_grades))
    assert scores(scorer, scorer, [(), said("a", "b", "c", "d")]).tolist() == [[0, 0, 0], [23, 5, 9]]


def test_a_grade_is_read_after_the_plain_prompt(scorer: LocalModel) -> None:
    prompt = QUALITY.format(instruction="Sort {1, 2}.", response="1, 2")
    ids = scorer.tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        z = scorer.network(torch.tensor([ids])).logits[0, -1, digit_tokens(scorer)]
    expected = float((z.softmax(-1) * torch.arange(1, 7)).sum())
    assert grades(scorer, [prompt]) == pytest.approx(expected, abs=1e-4)
    found = scores(scorer, scorer, [said("Sort {1, 2}.", "1, 2")])[0]
    assert found[2] == pytest.approx(expected, abs=1e-4)
    assert found[1] == pytest.approx(grades(scorer, [COMPLEXITY.format(instruction="Sort {1, 2}.")])[0], abs=1e-4)
    assert found[0] == pytest.approx(found[1] * found[2], rel=1e-5)


def test_neither_batches_nor_order_change_a_score(scorer: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [said("word " * k, "reply " * (9 - k), "more?") for k in range(1, 8)]
    together = scores(scorer, scorer, rows)
    monkeypatch.setattr(scorer, "batch_tokens", 1)
    assert np.abs(scores(scorer, scorer, rows[::-1])[::-1] - together).max() < 1e-3


def test_the_prompts_end_with_what_opens_the_digit() -> None:
    assert COMPLEXITY.endswith("\n##Complexity: ")
    assert QUALITY.endswith("\n##Quality: ")


def test_a_long_prompt_keeps_its_beginning_and_its_end(scorer: LocalModel) -> None:
    prompt = QUALITY.format(instruction="x", response="word " * 2000)
    ids = scorer.tokenizer(prompt)["input_ids"]
    kept = [*ids[: scorer.max_length - ENDING], *ids[-ENDING:]]
    assert "##Quality: " in scorer.tokenizer.decode(ids[-ENDING:])
    with torch.inference_mode():
        z = scorer.network(torch.tensor([kept])).logits[0, -1, digit_tokens(scorer)]
    expected = float((z.softmax(-1) * torch.arange(1, 7)).sum())
    assert grades(scorer, [prompt]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("grade", PROMPTS)
def test_what_is_trained_on_is_what_is_read_and_the_digit(grade: Any, scorer: LocalModel) -> None:
    tokenizer, chat = load_tokenizer(Path(scorer.folder), "raw")
    asked = prompt(grade, ("  Sort {x}: <|end|>\n", "1,\n2 "))
    for k, digit in enumerate(digit_tokens(scorer), 1):
        [tokens] = encode(tokenizer, chat, [said(asked, str(k))])
        read = scorer.backend.encode(asked, add_special_tokens=True).ids
        assert tokens.ids.tolist() == [*read, digit, tokenizer.token_to_id(chat.eos)]
        assert np.flatnonzero(tokens.reply).tolist() == [len(read), len(read) + 1]


def test_digits_are_single_tokens_in_their_place(scorer: LocalModel) -> None:
    assert [scorer.tokenizer.decode([i]) for i in digit_tokens(scorer)] == list("123456")


def joined() -> Tokenizer:
    """A digit after a space is one token with it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(["1 2 3 4 5 6"] * 9, trainers.BpeTrainer(initial_alphabet=bpe.pre_tokenizer.alphabet()))
    return bpe


def unknown() -> Tokenizer:
    """All digits are the same unknown word."""
    words = Tokenizer(models.WordLevel({"x": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return words


@pytest.mark.parametrize("made", [joined, unknown])
def test_a_tokenizer_without_digits_of_their_own_is_refused(
    tiny_model_dir: Path, made: Callable[[], Tokenizer]
) -> None:
    other = LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")
    other.backend = made()
    with pytest.raises(InputError, match=f"scorer {tiny_model_dir} .* one token of its own"):
        digit_tokens(other)

"""Hiding reply tokens: how many, which, and what stays."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.masked_thought import Masking, uniform

MASK = 1


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    """The second half of every row is its reply."""
    ids = torch.arange(rows * length).reshape(rows, length) + 10
    labels = torch.where(torch.arange(length) < length // 2, -100, ids)
    return {"input_ids": ids, "labels": labels, "rows": torch.arange(rows)[:, None].repeat(1, length)}


def test_the_share_rises_over_two_thirds_of_the_steps_and_stays() -> None:
    masking = Masking(0.4, 300, MASK, 0)
    assert [round(masking.share_at(step), 4) for step in (0, 50, 100, 200, 299)] == [0, 0.1, 0.2, 0.4, 0.4]


def test_as_many_reply_tokens_are_hidden_as_asked_and_nothing_else_changes() -> None:
    given, masking = batch(200, 100), Masking(0.4, 300, MASK, 0)
    assert torch.equal(masking(given, 0)["input_ids"], given["input_ids"])
    made = masking(given, 250)
    hidden = made["input_ids"] != given["input_ids"]
    reply = given["labels"] != -100
    assert not hidden[~reply].any()
    assert abs(float(hidden[reply].float().mean()) - 0.4) < 0.02
    assert bool((made["input_ids"][hidden] == MASK).all())
    assert made["labels"] is given["labels"]
    assert made["rows"] is given["rows"]


@given(st.integers(0, 2**31), st.integers(0, 10**6))
def test_what_is_hidden_does_not_depend_on_how_rows_are_put_together(seed: int, step: int) -> None:
    given, masking = batch(6, 8), Masking(0.5, 10, MASK, seed)
    whole = masking(given, step)["input_ids"]
    alone = [masking({name: each[i : i + 1] for name, each in given.items()}, step)["input_ids"] for i in range(6)]
    assert torch.equal(whole, torch.cat(alone))
    packed = {name: each.reshape(1, -1) for name, each in given.items()}
    packed["position_ids"] = torch.arange(8).repeat(6)[None]
    assert torch.equal(whole.reshape(1, -1), masking(packed, step)["input_ids"])


@given(arrays(np.int64, (3, 5), elements=st.integers(-1, 2**40)))
def test_draws_are_numbers_from_0_to_1_and_repeat(rows: np.ndarray) -> None:
    places = np.arange(5)[None].repeat(3, 0)
    drawn = uniform(7, 3, rows, places)
    assert drawn.shape == (3, 5)
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert np.array_equal(drawn, uniform(7, 3, rows, places))


def test_draws_are_even_and_of_their_own_for_each_part() -> None:
    rows, places = np.arange(300)[:, None].repeat(100, 1), np.arange(100)[None].repeat(300, 0)
    drawn = uniform(0, 1, rows, places)
    assert np.abs(np.histogram(drawn, 10, (0, 1))[0] / drawn.size - 0.1).max() < 0.01
    for other in (uniform(1, 1, rows, places), uniform(0, 2, rows, places), uniform(0, 1, rows + 1, places)):
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.03

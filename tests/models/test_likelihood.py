"""Likelihood signals: Hugging Face's loss, worked means, and no trace of batches or of a shared prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_rows import ROWS, said
from test_architectures import FAMILIES, network_of

from models.blocks import takes_blocks
from models.chat import Tokens
from models.likelihood import begin_token, response_alone, response_values, score_responses
from models.local import LocalModel
from models.prefix import began, common, logprobs, worth_sharing
from models.protocol import Measures, Want
from models.readings import reply_logprobs
from warehouse.records import Messages

PROMPTS = ["Sort the numbers 9, 4 and 7. " * k for k in (1, 2, 4)]
REPLIES = ["4, 7, 9", "The answer is 4, 7, 9. " * 3, "yes", ""]
CANDIDATES = [said(prompt, reply) for reply in REPLIES for prompt in PROMPTS]


def plain(model: LocalModel, rows: list[Messages]) -> np.ndarray:
    """Each row by itself."""
    return response_values(model.read(model.encode(rows), frozenset({Want.RESPONSE_LOGPROBS})))


@pytest.fixture(scope="module")
def grape(tiny_model_dir: Path) -> LocalModel:
    return LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu", template="grape")


def test_means_by_hand() -> None:
    replies = [np.array(r, np.float32) for r in ([-1, -1, -1], [-0.5, -1.2], [-0.2, -2.2, -0.2, -0.2], [])]
    measures = Measures(np.ones(4, np.int64), np.array([0, 1, 0, 0], np.bool_), response_logprobs=replies)
    values = response_values(measures)
    assert values[:3, 0] == pytest.approx([1, 0.85, 0.7])
    assert np.exp(values[:3, 0]) == pytest.approx([2.718, 2.340, 2.014], abs=1e-3)
    assert values[:, 1].tolist() == [3, 2, 4, 0]
    assert values[:, 2].tolist() == [0, 1, 0, 0]
    assert np.isnan(values[3, 0])
    assert values.dtype == np.float32


@pytest.mark.parametrize("row", CANDIDATES[:4], ids=range(4))
def test_the_mean_is_the_loss_of_transformers(grape: LocalModel, row: Messages) -> None:
    text = f"Question: {row[0].content.strip()}\nAnswer:"
    prompt, whole = (grape.tokenizer(t)["input_ids"] for t in (text, f"{text} {row[1].content.strip()}<|end|>"))
    labels = [-100] * len(prompt) + whole[len(prompt) :]
    with torch.inference_mode():
        loss = grape.network(torch.tensor([whole]), labels=torch.tensor([labels])).loss.item()
    assert score_responses(grape, [row])[0] == pytest.approx([loss, len(whole) - len(prompt), 0], abs=1e-5)


def test_a_shared_prompt_changes_no_number(grape: LocalModel) -> None:
    rows = [*CANDIDATES, *ROWS]
    assert sum(map(len, worth_sharing(grape.encode(rows)))) >= len(CANDIDATES)
    shared, alone = score_responses(grape, rows), plain(grape, rows)
    assert np.allclose(shared, alone, atol=1e-4, equal_nan=True)


@given(st.permutations(range(len(CANDIDATES))), st.integers(1, 400))
@settings(max_examples=10, deadline=None)
def test_neither_order_nor_batches_change_a_score(grape: LocalModel, order: list[int], budget: int) -> None:
    expected = score_responses(grape, CANDIDATES)[order]
    kept, grape.batch_tokens = grape.batch_tokens, budget
    try:
        assert np.allclose(score_responses(grape, [CANDIDATES[i] for i in order]), expected, atol=1e-4)
    finally:
        grape.batch_tokens = kept


def test_a_common_beginning_changes_no_number(grape: LocalModel) -> None:
    """Worked examples before every prompt, as turns of the conversation: replies in them are scored too."""
    worked = said("Reverse the word river.", "revir", "Say yes. " * 30, "yes")
    rows = [(*worked, *row) for row in [*CANDIDATES, said("x", "y"), said("z z z")]]
    tokens = grape.encode(rows)
    before = grape.tokens_processed
    shared = score_responses(grape, rows)
    assert grape.tokens_processed - before < 0.5 * sum(len(t.ids) for t in tokens)
    assert np.allclose(shared, plain(grape, rows), atol=1e-4)
    assert common([t.ids for t in tokens]) >= len(grape.encode([worked])[0].ids)


@given(st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=5), st.integers(0, 60))
def test_what_rows_have_in_common(tails: list[list[int]], length: int) -> None:
    rows = [np.array([*range(length), *tail], np.int32) for tail in tails]
    found = common(rows)
    if found:
        assert all(len(row) > found and (row[:found] == rows[0][:found]).all() for row in rows)
        assert len({row[found] for row in rows}) > 1 or found == min(map(len, rows)) - 1  # they part here, or one ends
    assert found >= length - 1 or len(rows) < 2 or length < 40  # what is left of two such rows costs less


def test_a_shared_prompt_is_computed_once(grape: LocalModel) -> None:
    tokens = grape.encode(CANDIDATES)
    before = grape.tokens_processed
    score_responses(grape, CANDIDATES)
    replies = sum(len(t.ids) - t.prompt - 1 for t in tokens)  # what comes after the end token is not asked
    spent = sum(t.prompt for t in tokens[: len(PROMPTS)]) + replies
    assert grape.tokens_processed - before == spent


def test_sharing_is_for_equal_prompts_that_are_long_enough() -> None:
    def row(prompt: list[int], reply: int) -> Tokens:
        ids = np.array([*prompt, *range(reply)], np.int32)
        return Tokens(ids, np.arange(len(ids)) >= len(prompt))

    long, other = list(range(90)), [*range(89), 7]
    assert [g.tolist() for g in worth_sharing([row(long, 3), row(other, 3), row(long, 9)])] == [[0, 2]]
    assert worth_sharing([row([1, 2], 30), row([1, 2], 30)]) == []
    assert worth_sharing([row(long, 0), row(long, 0), row(long, 0)]) == []


@pytest.mark.parametrize("in_blocks", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_share_prompts_too(family: str, in_blocks: bool) -> None:
    """With a window of attention, with capped logits, and with learnt positions."""
    from models.head import head_of

    network = network_of(family)
    tokens = [
        Tokens(np.array([*range(3, 3 + p), *range(20, 20 + r)], np.int32), np.arange(p + r) >= p)
        for p, r in [(12, 3), (12, 9), (5, 4), (5, 1)]
    ]
    model: Any = type("Model", (), {"network": network, "head": head_of(network), "batch_tokens": 100})()
    model.tokens_processed = 0
    model.takes_blocks = in_blocks and takes_blocks(network)
    assert takes_blocks(network) == ("sliding_window" not in FAMILIES[family])
    groups = [np.array([0, 1]), np.array([2, 3])]
    found = logprobs(model, tokens, groups)
    after = logprobs(model, tokens, groups, began(model, tokens[0], 4))  # all begin with the same four tokens
    for reply, row in zip([*found, *after], [*tokens, *tokens], strict=True):
        with torch.inference_mode():
            states = network.base_model(torch.tensor(row.ids[None], dtype=torch.int64)).last_hidden_state[0]
            [expected] = reply_logprobs(model.head, [(states, row.ids, row.reply)])
        assert np.abs(reply - expected).max() < 1e-4


def test_alone_the_same_reply_tokens_follow_a_begin_token(tiny: LocalModel) -> None:
    rows = list(ROWS)
    found = response_alone(tiny, rows)
    assert found[:, 1].tolist() == plain(tiny, rows)[:, 1].tolist()
    for values, tokens in zip(found, tiny.encode(rows), strict=True):
        replies = tokens.ids[tokens.reply].tolist()
        if replies:
            ids = torch.tensor([[tiny.tokenizer.eos_token_id, *replies]])  # this tokenizer has no begin token
            with torch.inference_mode():
                loss = tiny.network(ids, labels=ids).loss.item()
            assert values[0] == pytest.approx(loss, abs=1e-5)
        else:
            assert np.isnan(values[0])


def test_the_begin_token_is_the_formats_or_the_tokenizers_own() -> None:
    model = LocalModel.load("winnow-tiny", dtype="float32", device="cpu")
    assert begin_token(model) == model.backend.token_to_id("<bos>")


def test_a_cut_row_says_so_alone_and_with_its_prompt(tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", max_length=20)
    rows = [said("a", "word " * 40), said("a", "b")]
    assert score_responses(model, rows)[:, 2].tolist() == [1, 0]
    assert response_alone(model, rows)[:, 2].tolist() == [1, 0]
    assert response_alone(model, rows)[:, 1].tolist() == score_responses(model, rows)[:, 1].tolist()


def test_no_rows_no_values(tiny: LocalModel) -> None:
    assert score_responses(tiny, []).shape == (0, 3)
    assert response_alone(tiny, []).shape == (0, 3)

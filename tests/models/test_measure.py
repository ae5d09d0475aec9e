"""What one forward pass reads off a row: worked numbers, Hugging Face's own results, and no trace of the batching."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_rows import ROWS, said

from models.chat import Tokens, encode
from models.forward import batches, check_packing, pool, unit
from models.local import LocalModel
from models.protocol import Measures, Want
from warehouse.errors import InputError
from warehouse.records import Messages

ALL = frozenset(Want)
CHOICES = (5, 60, 61)


def measured(folder: Path, rows: tuple[Messages, ...] = ROWS, **options: object) -> Measures:
    return LocalModel.load(str(folder), device="cpu", **options).measure(rows, ALL, CHOICES)


def largest_difference(a: Measures, b: Measures) -> float:
    logprobs = [np.abs(x - y).max(initial=0) for x, y in zip(a.response_logprobs, b.response_logprobs, strict=True)]
    return max(
        np.abs(a.representation - b.representation).max(),
        np.abs(a.prompt_representation - b.prompt_representation).max(),
        np.abs(a.choice_logits - b.choice_logits).max(),
        *logprobs,
    )


@pytest.mark.parametrize(("length", "weights"), [(1, [1]), (3, [1 / 6, 1 / 3, 1 / 2]), (4, [0.1, 0.2, 0.3, 0.4])])
def test_pooling_weights(length: int, weights: list[float]) -> None:
    assert pool(torch.eye(length)).tolist() == pytest.approx(weights)


def test_pooling_the_worked_example() -> None:
    pooled = pool(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).numpy()
    assert pooled == pytest.approx([2 / 3, 5 / 6])
    assert np.linalg.norm(pooled) == pytest.approx(1.0671874)
    assert unit(pooled[None])[0] == pytest.approx([0.624695, 0.780869], abs=1e-6)


def test_pooling_accumulates_in_float32() -> None:
    states = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)
    assert pool(states).item() == pytest.approx(1, abs=1e-4)


def test_a_zero_vector_stays_zero_and_a_broken_one_is_named() -> None:
    assert unit(np.zeros((1, 3), np.float32)).tolist() == [[0, 0, 0]]
    with pytest.raises(InputError, match="first: row 1"):
        unit(np.array([[1, 0], [np.nan, 1]], np.float32))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120), st.booleans())
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int, padded: bool) -> None:
    made = list(batches(lengths, budget, padded))
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[row] for row in batch]
        used = max(sizes) * len(sizes) if padded else sum(sizes)
        assert len(batch) == 1 or used <= budget
    assert [max(lengths[row] for row in batch) for batch in made] == sorted(
        (max(lengths[row] for row in batch) for batch in made), reverse=True
    )


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("batch_tokens", [1, 150, 4096])
def test_neither_batches_nor_padding_nor_packing_change_a_result(
    tiny: LocalModel, tiny_model_dir: Path, layout: str, batch_tokens: int
) -> None:
    reference = tiny.measure(ROWS, ALL, CHOICES)
    batched = measured(tiny_model_dir, dtype="float32", layout=layout, batch_tokens=batch_tokens)
    assert largest_difference(reference, batched) < 1e-5


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_bfloat16_is_the_same_direction_in_any_batch(tiny: LocalModel, tiny_model_dir: Path, layout: str) -> None:
    exact = tiny.measure(ROWS, ALL, CHOICES)
    alone = measured(tiny_model_dir, dtype="bfloat16", batch_tokens=1)
    batched = measured(tiny_model_dir, dtype="bfloat16", layout=layout)
    assert (alone.representation * batched.representation).sum(1).min() > 0.9999
    assert (exact.representation * batched.representation).sum(1).min() > 0.999


def test_the_order_of_rows_only_orders_the_results(tiny_model_dir: Path) -> None:
    forwards = measured(tiny_model_dir, dtype="float32")
    backwards = measured(tiny_model_dir, ROWS[::-1], dtype="float32")
    assert np.abs(forwards.representation - backwards.representation[::-1]).max() < 1e-5
    assert forwards.tokens.tolist() == backwards.tokens[::-1].tolist()


def test_wants_do_not_disturb_each_other(tiny: LocalModel) -> None:
    together = tiny.measure(ROWS, ALL, CHOICES)
    alone = [tiny.measure(ROWS, frozenset({want}), CHOICES) for want in Want]
    assert np.abs(alone[0].representation - together.representation).max() < 1e-5
    assert np.abs(np.concatenate(alone[1].response_logprobs) - np.concatenate(together.response_logprobs)).max() < 1e-5
    assert np.abs(alone[2].choice_logits - together.choice_logits).max() < 1e-5
    assert np.abs(alone[3].prompt_representation - together.prompt_representation).max() < 1e-5
    assert alone[0].response_logprobs is None
    assert alone[0].choice_logits is None
    assert alone[1].representation is None


def test_representation_is_the_weighted_last_entry_of_hidden_states(tiny: LocalModel) -> None:
    [tokens] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, ROWS[:1])
    with torch.inference_mode():
        out = tiny.network(torch.tensor(tokens.ids[None], dtype=torch.int64), output_hidden_states=True)
    states = out.hidden_states[-1][0].numpy()
    i = np.arange(1, len(states) + 1)
    expected = (2 * i / (len(i) * (len(i) + 1))) @ states
    found = tiny.measure(ROWS[:1], frozenset({Want.REPRESENTATION})).representation[0]
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_a_prompts_representation_is_that_of_the_row_before_its_first_reply(tiny: LocalModel) -> None:
    found = tiny.measure(ROWS, frozenset({Want.PROMPT_REPRESENTATION})).prompt_representation
    prompts = [Tokens(t.ids[: t.prompt], t.reply[: t.prompt]) for t in tiny.encode(ROWS)]
    expected = tiny.read(prompts, frozenset({Want.REPRESENTATION})).representation
    assert np.abs(found - expected).max() < 1e-5
    whole = tiny.measure(ROWS, frozenset({Want.REPRESENTATION})).representation
    unanswered = np.array([all(m.role != "assistant" for m in row) for row in ROWS])
    assert ((found == whole).all(1) == unanswered).all()


def test_ids_are_read_as_they_are(tiny: LocalModel) -> None:
    ids = np.arange(5, 12, dtype=np.int32)
    read = tiny.read([Tokens(ids, np.arange(7) > 3)], ALL, CHOICES)
    with torch.inference_mode():
        logits = tiny.network(torch.tensor(ids[None], dtype=torch.int64)).logits[0]
    assert read.choice_logits[0] == pytest.approx(logits[-1, list(CHOICES)].numpy(), abs=1e-5)
    assert read.response_logprobs[0] == pytest.approx(logits.log_softmax(-1)[[3, 4, 5], [9, 10, 11]].numpy(), abs=1e-5)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_reply_log_probabilities_are_the_loss_of_transformers(tiny: LocalModel, row: Messages) -> None:
    [tokens] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, [row])
    [logprobs] = tiny.measure([row], frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
    assert len(logprobs) == tokens.reply.sum()
    if len(logprobs):
        ids = torch.tensor(tokens.ids[None], dtype=torch.int64)
        labels = ids.masked_fill(~torch.tensor(tokens.reply[None]), -100)
        with torch.inference_mode():
            loss = tiny.network(ids, labels=labels).loss.item()
        assert -logprobs.mean() == pytest.approx(loss, abs=1e-5)


def test_choice_logits_are_those_after_the_mark_that_opens_a_reply(tiny: LocalModel) -> None:
    [tokens] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, [said("x")], ask=True)
    with torch.inference_mode():
        logits = tiny.network(torch.tensor(tokens.ids[None], dtype=torch.int64)).logits[0, -1]
    found = tiny.measure([said("x")], frozenset({Want.CHOICE_LOGITS}), CHOICES).choice_logits[0]
    assert found == pytest.approx(logits[list(CHOICES)].numpy(), abs=1e-5)


def test_long_rows_are_cut_and_say_so(tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", max_length=20)
    long, short = said("word " * 40, "reply"), said("a", "b")
    taken = model.measure([long, short], ALL, CHOICES)
    assert taken.tokens.tolist() == [20, len(encode(*parts(model), [short])[0].ids)]
    assert taken.truncated.tolist() == [True, False]
    assert len(taken.response_logprobs[0]) == 0
    assert np.isfinite(taken.choice_logits).all()


def test_a_cut_row_still_asks_with_its_end(tiny_model_dir: Path, tiny: LocalModel) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", max_length=20)
    ids = encode(*parts(model), [said("word " * 40)], ask=True)[0].ids[-20:]
    with torch.inference_mode():
        logits = tiny.network(torch.tensor(ids[None], dtype=torch.int64)).logits[0, -1]
    found = model.measure([said("word " * 40)], frozenset({Want.CHOICE_LOGITS}), CHOICES).choice_logits[0]
    assert found == pytest.approx(logits[list(CHOICES)].numpy(), abs=1e-5)


def parts(model: LocalModel) -> tuple[object, object]:
    return model.tokenizer.backend_tokenizer, model.chat


def test_no_rows_and_empty_rows_are_measured(tiny: LocalModel) -> None:
    none = tiny.measure([], ALL, CHOICES)
    assert none.representation.shape == (0, 64)
    assert none.choice_logits.shape == (0, 3)
    empty = tiny.measure([(), said("x", "y")], frozenset({Want.REPRESENTATION, Want.RESPONSE_LOGPROBS}))
    assert not empty.representation[0].any()
    assert empty.representation[1].any()
    assert empty.tokens[0] == 0


def test_a_row_cannot_be_longer_than_the_positions_of_the_model(tiny_model_dir: Path) -> None:
    assert LocalModel.load(str(tiny_model_dir), max_length=4096).max_length == 512


def test_measuring_nothing_or_without_choices_is_a_mistake(tiny: LocalModel) -> None:
    with pytest.raises(ValueError, match="wants"):
        tiny.measure(ROWS, frozenset())
    with pytest.raises(ValueError, match="choices"):
        tiny.measure(ROWS, frozenset({Want.CHOICE_LOGITS}))


def test_tokens_processed_are_counted_without_padding(tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32")
    taken = model.measure(ROWS, frozenset({Want.REPRESENTATION}))
    assert model.tokens_processed == taken.tokens.sum()
    assert model.parameters == sum(p.numel() for p in set(model.network.parameters()))
    assert model.dimension == 64


def test_packing_is_refused_where_rows_see_each_other(tiny: LocalModel) -> None:
    class Leaky:
        """The same network, blind to the restarts of positions."""

        config, device = tiny.network.config, tiny.network.device
        get_input_embeddings = tiny.network.get_input_embeddings

        @staticmethod
        def base_model(input_ids: torch.Tensor, position_ids: torch.Tensor | None = None, **rest: object) -> object:
            return tiny.network.base_model(input_ids=input_ids, **rest)

    check_packing(tiny.network)
    with pytest.raises(InputError, match="use layout 'padded'"):
        check_packing(Leaky)

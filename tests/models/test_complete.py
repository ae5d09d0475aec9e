"""Replies: those of Hugging Face's own `generate` when greedy, and a row's own whatever it is batched with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_rows import ROWS, said

from models.chat import encode
from models.decode import draw
from models.local import LocalModel
from models.protocol import Completion, Prompt

PROMPTS = [Prompt(row[:1] if len(row) > 1 else row, max_tokens=12) for row in ROWS]


def batched(folder: Path, batch_tokens: int = 4096) -> LocalModel:
    return LocalModel.load(str(folder), dtype="float32", device="cpu", batch_tokens=batch_tokens)


def texts(replies: list[Completion]) -> list[str]:
    return [reply.text for reply in replies]


def test_greedy_replies_are_those_of_generate(tiny: LocalModel, tiny_model_dir: Path) -> None:
    for prompt, reply in zip(PROMPTS, batched(tiny_model_dir).complete(PROMPTS), strict=True):
        [tokens] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, [prompt.messages], ask=True)
        ids = torch.tensor(tokens.ids[None], dtype=torch.int64)
        whole = tiny.network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        new = whole[0, ids.shape[1] :]
        assert reply.text == tiny.tokenizer.decode(new, skip_special_tokens=True)
        assert reply.usage.prompt_tokens == ids.shape[1]
        assert reply.usage.completion_tokens == len(new) == len(reply.logprobs)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch_tokens", [200, 4096])
def test_a_reply_does_not_depend_on_its_batch(
    tiny: LocalModel, tiny_model_dir: Path, temperature: float, batch_tokens: int
) -> None:
    prompts = [replace(p, temperature=temperature, top_p=0.9, seed=i) for i, p in enumerate(PROMPTS)]
    alone, together = tiny.complete(prompts), batched(tiny_model_dir, batch_tokens).complete(prompts)
    assert texts(alone) == texts(together)
    for a, b in zip(alone, together, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert (a.finish_reason, a.usage) == (b.finish_reason, b.usage)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_worked_examples_that_all_prompts_begin_with_are_read_once(tiny_model_dir: Path, temperature: float) -> None:
    worked = said("Reverse the word river.", "revir", "Say yes. " * 20, "yes")
    prompts = [
        replace(p, messages=(*worked, *p.messages[-1:]), temperature=temperature, seed=i) for i, p in enumerate(PROMPTS)
    ]
    model = batched(tiny_model_dir)
    alone = [model.complete([prompt])[0] for prompt in prompts]
    spent = model.tokens_processed
    together = model.complete(prompts)
    assert model.tokens_processed - spent < 0.7 * spent
    assert texts(alone) == texts(together)
    for a, b in zip(alone, together, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert (a.finish_reason, a.usage) == (b.finish_reason, b.usage)


def test_seeds_decide_the_draw(tiny: LocalModel) -> None:
    prompts = [replace(PROMPTS[0], temperature=1.0, seed=seed) for seed in (1, 2, 3, 1)]
    drawn = texts(tiny.complete(prompts))
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3


def test_rows_that_end_early_leave_the_others_as_they_were(tiny_model_dir: Path) -> None:
    model = batched(tiny_model_dir)
    mixed = [replace(p, max_tokens=1 + 3 * (i % 4)) for i, p in enumerate(PROMPTS)]
    whole = model.complete(PROMPTS)
    for prompt, reply, full in zip(mixed, model.complete(mixed), whole, strict=True):
        assert reply.usage.completion_tokens <= prompt.max_tokens
        assert reply.logprobs == pytest.approx(full.logprobs[: len(reply.logprobs)], abs=1e-4)


def test_log_probabilities_of_a_reply_are_the_ones_measured(tiny: LocalModel) -> None:
    prompt = replace(PROMPTS[1], temperature=1.0, seed=4, max_tokens=5)
    [reply] = tiny.complete([prompt])
    [asked] = encode(tiny.tokenizer.backend_tokenizer, tiny.chat, [prompt.messages], ask=True)
    ids = asked.ids.tolist()
    for logprob in reply.logprobs:
        with torch.inference_mode():
            after = tiny.network(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        token = int((after - logprob).abs().argmin())
        assert after[token].item() == pytest.approx(logprob, abs=1e-4)
        ids.append(token)


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it(tiny: LocalModel) -> None:
    [whole] = tiny.complete([replace(PROMPTS[2], max_tokens=30, temperature=1.0, seed=3)])
    stop = whole.text[8:11]
    [cut] = tiny.complete([replace(PROMPTS[2], max_tokens=30, temperature=1.0, seed=3, stop=("never", stop))])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.usage.completion_tokens < 30


def test_the_end_token_ends_the_reply(tiny_model_dir: Path) -> None:
    model = batched(tiny_model_dir)
    end = model.tokenizer.eos_token_id
    with torch.no_grad():  # a network that can say nothing else
        rows = model.network.get_input_embeddings().weight.clone()
        model.network.lm_head.weight = torch.nn.Parameter(torch.zeros_like(rows))
        model.network.lm_head.bias = torch.nn.Parameter(
            torch.nn.functional.one_hot(torch.tensor(end), len(rows)) * 99.0
        )
    [reply] = model.complete([PROMPTS[0]])
    assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == ("", "stop", 1)


def test_a_prompt_beyond_the_context_is_cut_at_its_beginning_and_says_so(tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", max_length=40)
    long, short = model.complete([Prompt(said("word " * 90), max_tokens=8), Prompt(said("x"), max_tokens=8)])
    assert long.truncated
    assert long.usage.prompt_tokens == 32
    assert not short.truncated
    [tokens] = encode(model.tokenizer.backend_tokenizer, model.chat, [said("word " * 90)], ask=True)
    whole = model.network.generate(torch.tensor(tokens.ids[None, -32:], dtype=torch.int64), max_new_tokens=8)
    assert long.text == model.tokenizer.decode(whole[0, 32:], skip_special_tokens=True)


def test_a_full_context_ends_the_reply(tiny_model_dir: Path) -> None:
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", max_length=40)
    [reply] = model.complete([Prompt(said("x"), max_tokens=500)])
    assert reply.finish_reason == "length"
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 40
    assert not reply.truncated


def test_no_prompts_no_replies(tiny: LocalModel) -> None:
    assert tiny.complete([]) == []


def drawn(logits: list[float], temperature: float, top_p: float, uniform: float) -> int:
    settings = (torch.tensor([value]) for value in (temperature, top_p, uniform))
    return int(draw(torch.tensor([logits]), *settings)[0])


def test_drawing_inverts_the_distribution_function() -> None:
    logits = np.log([0.2, 0.5, 0.3]).tolist()  # in order of likelihood: tokens 1, 2, 0
    assert [drawn(logits, 1.0, 1.0, u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 1.0)] == [1, 1, 2, 2, 0, 0]
    assert [drawn(logits, 1.0, 0.8, u) for u in (0.62, 0.63, 1.0)] == [1, 2, 2]
    assert [drawn(logits, 1.0, 0.1, u) for u in (0.0, 1.0)] == [1, 1]
    assert drawn(logits, 0.0, 1.0, 0.99) == 1
    assert drawn(logits, 1e-4, 1.0, 0.99) == 1


def test_drawing_follows_the_temperature() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(20_000, 3)
    uniform = torch.tensor(np.random.default_rng(0).random(20_000), dtype=torch.float32)
    tokens, logprobs = draw(logits, torch.full((20_000,), 0.5), torch.ones(20_000), uniform)
    shares = np.bincount(tokens.numpy(), minlength=3) / 20_000
    expected = np.array([0.04, 0.25, 0.09]) / 0.38
    assert shares == pytest.approx(expected, abs=0.015)
    assert set(np.exp(logprobs.numpy()).round(4)) == {np.float32(0.2), np.float32(0.5), np.float32(0.3)}


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"stop": ("",)}, {"messages": ()}]
)
def test_prompts_check_themselves(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"prompt|stop"):
        replace(PROMPTS[0], **wrong)

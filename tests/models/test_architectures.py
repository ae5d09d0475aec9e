"""Other families of decoders: hidden states, heads and packing mean the same there, or are refused."""

from typing import Any

import numpy as np
import pytest
import torch

from models.decode import Draft, Vocabulary, write
from models.forward import check_packing, hidden_states
from models.head import head_of
from models.protocol import Prompt
from warehouse.errors import InputError
from warehouse.records import Message

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
ROWS = [np.arange(3, 3 + n, dtype=np.int32) for n in (5, 17, 9)]


def network_of(family: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **(SMALL | FAMILIES[family]), initializer_range=0.3)
        return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest) -> Any:
    return network_of(request.param)


def alone(network: Any, ids: np.ndarray) -> Any:
    with torch.inference_mode():
        return network(torch.tensor(ids[None], dtype=torch.int64), output_hidden_states=True)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_hidden_states_are_the_last_entry_in_any_layout(network: Any, layout: str) -> None:
    check_packing(network)
    for batch in hidden_states(network, ROWS, 100, layout):
        for row, states in batch:
            expected = alone(network, ROWS[row]).hidden_states[-1][0]
            assert torch.allclose(states, expected, atol=1e-5)


def test_heads_give_the_logits_of_the_model(network: Any) -> None:
    head, out = head_of(network), alone(network, ROWS[1])
    states = out.hidden_states[-1][0]
    assert torch.allclose(head.logits(states), out.logits[0], atol=1e-5)
    assert torch.allclose(head.logits(states, torch.tensor([7, 9])), out.logits[0][:, [7, 9]], atol=1e-5)
    targets = torch.arange(17) % 64
    expected = out.logits[0].log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.allclose(head.logprobs(states, targets), expected, atol=1e-5)


@pytest.mark.parametrize("budget", [20, 100])
def test_greedy_replies_are_those_of_generate(network: Any, budget: int) -> None:
    prompt = Prompt((Message("user", "x"),))
    drafts = [Draft(prompt, ids, room=10 - 3 * i) for i, ids in enumerate(ROWS)]
    write(network, Vocabulary(None, frozenset({2})), drafts, budget)
    for draft in drafts:
        ids = torch.tensor(draft.ids[None], dtype=torch.int64)
        whole = network.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=draft.room)
        assert draft.tokens == whole[0, ids.shape[1] :].tolist()


def test_chunks_of_the_head_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    head, states = head_of(network_of("llama")), torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50) % 64
    whole = head.logprobs(states, targets)
    monkeypatch.setattr("models.head.CHUNK_LOGITS", 64 * 7)
    assert torch.allclose(head.logprobs(states, targets), whole, atol=1e-6)


def test_an_unknown_change_to_the_logits_is_refused() -> None:
    network = network_of("cohere")
    network.logit_scale = 0.9  # not what the configuration says
    with pytest.raises(InputError, match="not known here"):
        head_of(network)

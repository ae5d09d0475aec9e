"""Per-row gradients of LoRA factors: those of autograd on the network with its factors, one row at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_rows import ROWS, said
from safetensors.torch import save_file
from torch.func import functional_call

from models.chat import Tokens
from models.gradients import Sketch, adam_step, gradients, row_gradients
from models.local import LocalModel
from models.lora import Factors, Moments, fresh_factors, warm_factors
from warehouse.errors import InputError

ANSWERED = [row for row in ROWS if any(m.role == "assistant" for m in row)]
RANK = 3


def trained(model: LocalModel, seed: int = 0) -> list[Factors]:
    """Factors whose b is not zero, so that both have a gradient, and moments for them."""
    rng = torch.Generator().manual_seed(seed)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=rng) * 0.1

    return [
        Factors(
            each.module,
            each.a,
            like(each.b),
            each.scale,
            (Moments(like(each.a), like(each.a).square()), Moments(like(each.b), like(each.b).square())),
        )
        for each in fresh_factors(model, RANK, alpha=6)
    ]


@pytest.fixture(scope="module")
def warm(tiny_model_dir: Path) -> tuple[LocalModel, list[Factors]]:
    """A model with the factors merged into it, as `load(adapter=...)` gives, and the factors."""
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")
    factors = trained(model)
    modules = dict(model.network.named_modules())
    for each in factors:
        modules[each.module].weight.data += each.scale * each.b @ each.a
    return model, factors


def by_autograd(plain: LocalModel, factors: list[Factors], tokens: Tokens) -> dict[str, torch.Tensor]:
    """Gradients of Hugging Face's loss with respect to a and b in W + scale b a."""
    leaves = {f"{e.module}.{x}": getattr(e, x).clone().requires_grad_() for e in factors for x in "ab"}
    weights = {
        f"{e.module}.weight": plain.network.get_submodule(e.module).weight
        + e.scale * leaves[f"{e.module}.b"] @ leaves[f"{e.module}.a"]
        for e in factors
    }
    ids = torch.tensor(tokens.ids[None], dtype=torch.int64)
    labels = ids.masked_fill(~torch.tensor(tokens.reply[None]), -100)
    loss = functional_call(plain.network, weights, (), {"input_ids": ids, "labels": labels}).loss
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def batched(model: LocalModel, factors: list[Factors]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    row_gradients(model, factors, model.encode(ANSWERED), lambda name, g: found.update({name: g.clone()}))
    return found


def test_gradients_of_a_batch_are_those_of_one_row_at_a_time(tiny: LocalModel, warm: Any) -> None:
    model, factors = warm
    found = batched(model, factors)
    for i, tokens in enumerate(model.encode(ANSWERED)):
        expected = by_autograd(tiny, factors, tokens)
        assert set(found) == set(expected)
        for name, gradient in expected.items():
            assert (found[name][i] - gradient).norm() <= 1e-5 * gradient.norm()


def test_unprojected_vectors_are_the_gradients_scaled(warm: Any) -> None:
    model, factors = warm
    whole = torch.cat([g.flatten(1) for _, g in sorted(batched(model, factors).items())], 1)
    vectors = gradients(model, factors, ANSWERED, adam=False, dims=10**6, half=False)
    assert vectors.shape == (len(ANSWERED), sum(e.a.numel() + e.b.numel() for e in factors))
    expected = torch.nn.functional.normalize(whole, dim=1)
    assert np.abs(vectors @ vectors.T - (expected @ expected.T).numpy()).max() < 1e-5


def test_adam_step_by_hand() -> None:
    moments = Moments(torch.tensor([0.2]), torch.tensor([0.04]))
    step = adam_step(torch.tensor([1.0]), moments).item()
    assert step == pytest.approx((0.9 * 0.2 + 0.1) / (0.999 * 0.04 + 0.001 + 1e-8) ** 0.5)
    assert adam_step(torch.zeros(1), Moments(torch.zeros(1), torch.zeros(1))).item() == 0


def test_with_adam_the_vectors_are_of_its_steps(warm: Any) -> None:
    model, factors = warm
    known = {f"{e.module}.{x}": m for e in factors for x, m in zip("ab", e.moments, strict=True)}
    steps = [adam_step(g, known[name]).flatten(1) for name, g in batched(model, factors).items()]
    expected = torch.nn.functional.normalize(torch.cat(steps, 1), dim=1)
    vectors = gradients(model, factors, ANSWERED, adam=True, dims=10**6, half=False)
    assert np.abs(vectors @ vectors.T - (expected @ expected.T).numpy()).max() < 1e-5


def test_neither_batches_nor_order_change_a_vector(warm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, factors = warm
    together = gradients(model, factors, ROWS, adam=True, dims=64, half=False)
    monkeypatch.setattr(model, "batch_tokens", 1)
    monkeypatch.setattr("models.gradients.CHUNK_LOGITS", 1000)
    alone = gradients(model, factors, ROWS[::-1], adam=True, dims=64, half=False)[::-1]
    assert np.abs(together - alone).max() < 1e-5


def test_vectors_have_unit_length_and_rows_without_a_reply_are_zero(warm: Any) -> None:
    model, factors = warm
    vectors = gradients(model, factors, [said("no reply"), said("x", "y")], adam=False, dims=32)
    assert vectors.dtype == np.float16
    assert np.linalg.norm(vectors.astype(np.float32), axis=1) == pytest.approx([0, 1], abs=1e-3)
    assert gradients(model, factors, [], adam=False, dims=32).shape == (0, 32)


def test_a_projection_keeps_inner_products_on_average(warm: Any) -> None:
    _, factors = warm
    rng = torch.Generator().manual_seed(1)
    pair = torch.randn(2, 2000, generator=rng)
    pair[1] += pair[0]
    products = []
    for seed in range(200):
        into = torch.zeros(2, 256)
        Sketch.of(factors, 256, seed, "cpu").add("some.a", pair, into)
        products.append(float(into[0] @ into[1]))
    exact = float(pair[0] @ pair[1])
    spread = float((pair[0].norm() ** 2 * pair[1].norm() ** 2 + exact**2) / 256) ** 0.5
    assert abs(np.mean(products) - exact) < 4 * spread / 200**0.5
    assert 0.8 * spread < np.std(products) < 1.2 * spread


def test_equal_seeds_project_alike_and_factors_differently(warm: Any) -> None:
    _, factors = warm
    row = torch.arange(50.0)[None]
    drawn = [torch.zeros(1, 32) for _ in range(4)]
    for into, (seed, name) in zip(drawn, [(0, "p.a"), (0, "p.a"), (1, "p.a"), (0, "p.b")], strict=True):
        Sketch.of(factors, 32, seed, "cpu").add(name, row, into)
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
    assert not drawn[0].equal(drawn[3])


def test_fresh_factors_move_only_b(tiny: LocalModel) -> None:
    factors = fresh_factors(tiny, rank=2)
    found = batched(tiny, factors)
    assert {e.module.rpartition(".")[2] for e in factors} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert all((gradient.norm() > 0) == name.endswith(".b") for name, gradient in found.items())
    with pytest.raises(InputError, match=r"this model has: .*down_proj"):
        fresh_factors(tiny, targets=["c_attn"])


def test_adam_without_moments_is_a_mistake(tiny: LocalModel) -> None:
    with pytest.raises(ValueError, match="moments"):
        gradients(tiny, fresh_factors(tiny, rank=1), ANSWERED, adam=True)


@pytest.fixture(scope="module")
def warmup(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """What two steps of AdamW on a peft model leave, saved as Trainer does, and the model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("warmup")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
        parameters = [p for _, p in adapted.named_parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW([{"params": parameters}, {"params": []}], lr=0.1)
        for _ in range(2):
            ids = torch.arange(20)[None]
            adapted(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    adapted.save_pretrained(folder)
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return folder, (adapted, optimizer)


def test_a_warm_up_is_read_with_each_factors_own_moments(tiny_model_dir: Path, warmup: Any) -> None:
    folder, (adapted, optimizer) = warmup
    model = LocalModel.load(str(tiny_model_dir), dtype="float32", adapter=folder)
    factors = warm_factors(model, folder)
    assert len(factors) == 8
    for each in factors:
        assert each.scale == 4
        layer = adapted.base_model.model.get_submodule(each.module)
        for mine, theirs, moments in zip(
            (each.a, each.b), (layer.lora_A["default"], layer.lora_B["default"]), each.moments, strict=True
        ):
            assert mine.equal(theirs.weight.data)
            assert moments.first.equal(optimizer.state[theirs.weight]["exp_avg"])
            assert moments.second.equal(optimizer.state[theirs.weight]["exp_avg_sq"])


def test_warm_ups_that_cannot_be_used_say_why(tiny: LocalModel, warmup: Any, tmp_path: Path) -> None:
    folder, _ = warmup
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert len(warm_factors(tiny, tmp_path)) == 8
    saved = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    saved["param_groups"][0]["params"].pop()
    torch.save(saved, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="moments of 15 weights"):
        warm_factors(tiny, tmp_path)
    torch.save({"state": Path("code")}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=r"optimizer\.pt is no file of tensors and numbers alone"):
        warm_factors(tiny, tmp_path)
    (tmp_path / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"optimizer\.pt cannot be read"):
        warm_factors(tiny, tmp_path)
    save_file({"other.lora_A.weight": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="another base model"):
        warm_factors(tiny, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(InputError, match="use_dora"):
        warm_factors(tiny, tmp_path)

"""Which weights partial tunings let move: halves of layers, layers in turn, channels."""

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from training.tuning.alternation import Alternation, active_layers
from training.tuning.blocks import KINDS, kinds_of, layers_of, matrices_of
from training.tuning.channels import ColumnDecay, choose, confine
from training.tuning.fitting import anatomy_of
from training.tuning.halves import freeze_half, half
from training.tuning.partial import Galore, Hft, Lisa, Mezo, S2ft
from training.tuning.protocol import Setting
from warehouse.errors import InputError

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "qwen3": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64},
}
DECAY, RATE = 0.1, 1e-2


def network_of(family: str = "llama", **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **(SMALL | FAMILIES[family] | changes))
        made: Any = AutoModelForCausalLM
        return made.from_config(config)


def changed(network: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])}


def weights_of(network: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def steps_of(network: Any, callback: Any, steps: range, optimizer: Any = None) -> Iterator[tuple[int, Any]]:
    """Train on random tokens as the trainer does, calling the callback where it does; yields after each step."""
    if optimizer is None:
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    given = {"model": network, "optimizer": optimizer}
    args, state = SimpleNamespace(weight_decay=DECAY), SimpleNamespace(global_step=steps.start)
    callback.on_train_begin(args, state, None, **given)
    for step in steps:
        state.global_step = step
        callback.on_step_begin(args, state, None, **given)
        ids = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(step))
        network(input_ids=ids, labels=ids).loss.backward()
        callback.on_pre_optimizer_step(args, state, None, **given)
        optimizer.step()
        network.zero_grad()
        yield step, optimizer


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_a_layer_is_of_one_kind(family: str) -> None:
    network = network_of(family)
    layers = layers_of(network)
    assert len(layers) == 4
    for layer in layers:
        kinds = kinds_of(layer)
        found = [weight for kind in KINDS for module in kinds[kind] for weight in module.parameters(recurse=False)]
        assert sorted(map(id, found)) == sorted(map(id, layer.parameters()))
        assert all(weight.ndim == 1 for module in kinds["norm"] for weight in module.parameters())
    outside = {id(weight) for weight in network.parameters()} - {id(w) for layer in layers for w in layer.parameters()}
    assert not outside & {id(weight) for weight in matrices_of(network)}


def test_llama_layers_have_four_three_and_two_modules() -> None:
    kinds = kinds_of(layers_of(network_of())[0])
    assert {kind: len(modules) for kind, modules in kinds.items()} == {"attention": 4, "feed_forward": 3, "norm": 2}


def test_a_network_without_a_list_of_layers_is_refused() -> None:
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=3), model_type="flat")
    flat = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="a model of type 'flat' has no list of its 3 layers"):
        layers_of(SimpleNamespace(config=config, modules=flat.modules))


@given(st.lists(st.integers(1, 9), max_size=9), st.booleans(), st.integers(0, 99))
def test_half_is_half_of_the_modules_and_of_paired_parameters(sizes: list[int], more: bool, seed: int) -> None:
    taken = half(sizes, more, np.random.default_rng(seed))
    assert len(set(taken)) == len(taken) == (len(sizes) + more) // 2
    assert set(taken) <= set(range(len(sizes)))
    doubled = sizes * 2  # every size has a partner
    taken = half(doubled, more, np.random.default_rng(seed))
    assert sum(doubled[i] for i in taken) == sum(sizes)


def test_all_halves_of_equal_modules_are_equally_likely() -> None:
    rng = np.random.default_rng(0)
    found = Counter(tuple(sorted(half([1] * 4, False, rng))) for _ in range(6000))
    assert len(found) == 6
    assert all(abs(count - 1000) < 150 for count in found.values())
    found = Counter(tuple(sorted(half([1] * 3, True, rng))) for _ in range(3000))
    assert len(found) == 3
    assert all(abs(count - 1000) < 130 for count in found.values())


NETWORKS = {family: network_of(family) for family in ("llama", "qwen3")}


@pytest.mark.parametrize("family", NETWORKS)
@given(seed=st.integers(0, 1 << 31), stage=st.integers(0, 5))
def test_half_of_the_parameters_of_the_layers_is_trained(family: str, seed: int, stage: int) -> None:
    network = NETWORKS[family]
    freeze_half(network, seed, stage)
    layers = layers_of(network)
    counts = np.array([[w.numel() * w.requires_grad, w.numel()] for layer in layers for w in layer.parameters()])
    trained, total = counts.sum(0)
    assert trained / total == pytest.approx(0.5, abs=1e-9)
    for layer in layers:
        kinds = kinds_of(layer)
        trained_modules = {k: sum(w.requires_grad for m in kinds[k] for w in m.parameters()) for k in KINDS}
        assert trained_modules["attention"] == 2
        assert trained_modules["feed_forward"] in (1, 2)
        assert trained_modules["norm"] == len(kinds["norm"]) / 2
    inside = {id(weight) for layer in layers for weight in layer.parameters()}
    assert all(weight.requires_grad for weight in network.parameters() if id(weight) not in inside)


def halves(seed: int, stage: int) -> list[bool]:
    freeze_half(NETWORKS["llama"], seed, stage)
    return [weight.requires_grad for weight in NETWORKS["llama"].parameters()]


def test_halves_follow_from_seed_and_stage() -> None:
    assert halves(3, 0) == halves(3, 0)
    assert halves(3, 0) != halves(3, 1)
    assert halves(3, 0) != halves(4, 0)


@given(st.integers(1, 12), st.data())
def test_active_layers_are_distinct_and_follow_from_seed_and_interval(count: int, data: Any) -> None:
    layers, seed, interval = data.draw(st.tuples(st.integers(1, count), st.integers(0, 99), st.integers(0, 99)))
    active = active_layers(count, layers, seed, interval)
    assert len(set(active)) == layers
    assert set(active) <= set(range(count))
    assert active == active_layers(count, layers, seed, interval)


def test_more_layers_than_there_are() -> None:
    Lisa(layers=4).check(anatomy_of(NETWORKS["llama"]))
    with pytest.raises(InputError, match="lisa: layers is 5, but the model has 4"):
        Lisa(layers=5).check(anatomy_of(NETWORKS["llama"]))


def test_all_layers_have_their_turn() -> None:
    turns = Counter(number for interval in range(400) for number in active_layers(4, 1, 0, interval))
    assert all(abs(turns[number] - 100) < 35 for number in range(4))


def test_only_the_scheduled_layers_change_within_an_interval() -> None:
    network, moved = network_of(), set()
    before = weights_of(network)
    for step, optimizer in steps_of(network, Alternation(1, 3, seed=0), range(36)):
        if step % 3 == 2:
            (active,) = active_layers(4, 1, 0, step // 3)
            found = changed(network, before)
            assert {int(name.split(".")[2]) for name in found if ".layers." in name} == {active}
            assert {name for name in found if ".layers." not in name} == {
                "model.embed_tokens.weight",
                "model.norm.weight",
            }
            held = {id(weight) for weight in optimizer.state}
            assert held == {id(weight) for weight in network.parameters() if weight.requires_grad}
            before = weights_of(network)
            moved.add(active)
    assert moved == {0, 1, 2, 3}


def run(network: Any, callback: Any, steps: range, optimizer: Any = None) -> None:
    for _ in steps_of(network, callback, steps, optimizer):
        pass


def test_a_layer_that_is_drawn_again_starts_without_momentum() -> None:
    """Its first step then equals the first step of an optimizer that never saw it."""
    turns = [active_layers(4, 1, 0, interval)[0] for interval in range(40)]
    again = next(i for i in range(2, 40) if turns[i] in turns[: i - 1] and turns[i] != turns[i - 1])
    old, new, callback = network_of(), network_of(), Alternation(1, 1, seed=0)
    optimizer = torch.optim.AdamW(old.parameters(), lr=RATE, weight_decay=DECAY)
    run(old, callback, range(again), optimizer)
    new.load_state_dict(old.state_dict())
    run(old, callback, range(again, again + 1), optimizer)
    run(new, Alternation(1, 1, seed=0), range(again, again + 1))
    drawn = turns[again]
    for one, two in zip(layers_of(old)[drawn].parameters(), layers_of(new)[drawn].parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(old.model.embed_tokens.weight, new.model.embed_tokens.weight)  # those keep their momentum


@pytest.mark.parametrize("again", [4, 5])
def test_going_on_in_or_between_intervals_is_going_straight(again: int) -> None:
    straight, stopped, resumed = network_of(), network_of(), network_of()
    run(straight, Alternation(2, 2, seed=3), range(8))
    first = torch.optim.AdamW(stopped.parameters(), lr=RATE, weight_decay=DECAY)
    run(stopped, Alternation(2, 2, seed=3), range(again), first)
    resumed.load_state_dict(stopped.state_dict())
    second = torch.optim.AdamW(resumed.parameters(), lr=RATE, weight_decay=DECAY)
    second.load_state_dict(first.state_dict())
    run(resumed, Alternation(2, 2, seed=3), range(again, 8), second)
    assert not changed(resumed, weights_of(straight))


@pytest.mark.parametrize(("ratio", "heads"), [(0.25, 0.0), (0.0, 0.5), (0.1, 0.25)])
def test_nothing_moves_outside_the_chosen_columns(ratio: float, heads: float) -> None:
    network = network_of()
    chosen = choose(network, ratio, heads, 7)
    assert [int(columns.sum()) for _, columns in chosen] == [
        n for n in (round(ratio * 48), round(heads * 4) * 8) if n
    ] * 4
    confine(network, chosen)
    before = weights_of(network)
    run(network, ColumnDecay(ratio, heads, 7), range(5))
    columns_of = {id(weight): columns for weight, columns in chosen}
    for name, weight in network.named_parameters():
        difference = (weight.detach() - before[name]).abs()
        if id(weight) in columns_of:
            assert difference[:, columns_of[id(weight)]].min(0).values.max() > 0
            difference = difference[:, ~columns_of[id(weight)]]
        assert difference.max() == 0.0


def test_heads_are_whole() -> None:
    for _, columns in choose(network_of(), 0.0, 0.5, 1):
        assert set(columns.view(4, 8).sum(1).tolist()) == {0, 8}


def test_chosen_columns_take_the_step_of_adamw_with_weight_decay() -> None:
    """In a first step, where the gradient does not depend on what else moves."""
    network, reference = network_of(), network_of()
    chosen = choose(network, 0.25, 0.0, 7)
    confine(network, chosen)
    run(network, ColumnDecay(0.25, 0.0, 7), range(1))
    run(reference, TrainerCallback(), range(1))
    for (weight, columns), (other, _) in zip(chosen, choose(reference, 0.25, 0.0, 7), strict=True):
        assert torch.allclose(weight[:, columns], other[:, columns], atol=1e-7)


def test_channels_follow_from_the_seed() -> None:
    network = network_of()
    one, same, other = ([columns.tolist() for _, columns in choose(network, 0.1, 0.25, s)] for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert len({tuple(columns) for columns in one[::2]}) > 1  # layers do not share a choice


def test_a_network_whose_output_matrices_are_not_known_is_refused() -> None:
    with pytest.raises(InputError, match=r"GPT2Block has no linear map called down_proj or fc2 .* feed-forward block"):
        choose(network_of("gpt2"), 0.1, 0.0, 0)


@pytest.mark.parametrize("tuning", [Lisa(), S2ft(), Galore(), Mezo()], ids=lambda tuning: tuning.NAME)
@pytest.mark.parametrize("spread", ["fsdp", "deepspeed"])
def test_spread_weights_are_refused(tuning: Any, spread: str) -> None:
    first = tuning.callbacks(Setting(0, 1, lambda: iter(())))[0]
    given = {"fsdp": "", "deepspeed": None}
    first.on_train_begin(SimpleNamespace(**given), None, None)
    with pytest.raises(InputError, match=f"{tuning.NAME!r} needs whole weights in every process"):
        first.on_train_begin(SimpleNamespace(**given | {spread: "full_shard"}), None, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hft(round=-1), "hft: round is -1; expected 0 to"),
        (lambda: Lisa(layers=0), "lisa: layers is 0; expected 1 to"),
        (lambda: Lisa(interval=0), "lisa: interval is 0"),
        (lambda: S2ft(ratio=1.5), "s2ft: ratio is 1.5; expected 0 to 1"),
        (lambda: S2ft(ratio=0.0), "ratio and heads are both 0"),
        (lambda: Galore(gap=0), "galore: gap is 0"),
        (lambda: Mezo(eps=0.0), "mezo: eps is 0.0"),
    ],
)
def test_wrong_numbers_are_named(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

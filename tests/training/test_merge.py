"""Merging checkpoints: what the files hold afterwards, that they load, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.local import LocalModel, load_checkpoint
from models.protocol import Want
from training import merge_files
from training.merge import MERGES, Cat, Dare, Linear, Mean, Merge, Ties, merge, merge_of
from training.task_vectors import threshold, ties
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Message, Spec

TARGETS = ["q_proj", "v_proj"]
Tensors = dict[str, torch.Tensor]


def tensors(folder: Path) -> Tensors:
    found: Tensors = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


@pytest.fixture(scope="module")
def trained(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """Three models with weights near those of the base."""
    made = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp("trained")
        shutil.copytree(tiny_model_dir, folder, dirs_exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        moved = {
            name: weight + 0.05 * torch.randn(weight.shape, generator=generator)
            for name, weight in tensors(tiny_model_dir).items()
        }
        save_file(moved, folder / "model.safetensors", {"format": "pt"})
        made.append(Checkpoint(folder, str(tiny_model_dir), Spec("sft"), f"data {seed}", seed))
    return made


@pytest.fixture(scope="module")
def adapters(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Checkpoint]]:
    """LoRA adapters of the base with random factors, of the ranks asked for."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make(*ranks: int, **options: object) -> list[Checkpoint]:
        made = []
        for seed, rank in enumerate(ranks):
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM", **options)  # type: ignore[arg-type]
            network = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_dir), config)
            for name, weight in network.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.2)
            network.peft_config["default"].base_model_name_or_path = str(tiny_model_dir)
            folder = tmp_path_factory.mktemp("adapter")
            network.save_pretrained(str(folder))
            for path in tiny_model_dir.glob("tokenizer*"):
                shutil.copy(path, folder)
            made.append(Checkpoint(folder, str(tiny_model_dir), Spec("sft"), f"data {seed}", seed))
        return made

    return make


def updates(checkpoint: Checkpoint) -> Tensors:
    """What a checkpoint changes in the weights of its base, as loading it gives them."""
    base = LocalModel.load(checkpoint.base, dtype="float32").network.state_dict()
    tuned = load_checkpoint(checkpoint, dtype="float32").network.state_dict()
    return {name: tuned[name] - base[name] for name in base}


def mean(parts: list[Tensors]) -> Tensors:
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def distance(one: Tensors, other: Tensors) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_mean_and_linear_of_whole_weights(trained: list[Checkpoint], tmp_path: Path) -> None:
    expected = mean([tensors(each.path) for each in trained])
    made = merge(Mean(), trained, tmp_path / "mean")
    assert distance(tensors(made.path), expected) < 1e-6
    assert distance(tensors(merge(Linear(), trained, tmp_path / "linear").path), expected) < 1e-6
    doubled = merge(Linear(weights=(2.0, 0.0, 0.0)), trained, tmp_path / "doubled")
    base = tensors(Path(trained[0].base))
    far = {name: base[name] + 2 * (weight - base[name]) for name, weight in tensors(trained[0].path).items()}
    assert distance(tensors(doubled.path), far) < 1e-6
    assert made.base == trained[0].base
    assert (made.trainer, made.seed) == (Mean().spec, 0)


def test_ties_trims_the_whole_model_at_once(trained: list[Checkpoint], tmp_path: Path) -> None:
    base = tensors(Path(trained[0].base))
    deltas = [{name: w - base[name] for name, w in tensors(each.path).items()} for each in trained]
    least = [threshold(delta.values, 0.3) for delta in deltas]
    expected = {name: base[name] + 0.5 * ties([delta[name] for delta in deltas], least) for name in base}
    made = merge(Ties(density=0.3, scale=0.5), trained, tmp_path / "ties")
    assert distance(tensors(made.path), expected) < 1e-6
    untouched = sum(int((tensors(made.path)[name] == base[name]).sum()) for name in base)
    assert 0.2 < untouched / sum(weight.numel() for weight in base.values()) < 0.7**3 + 0.05


def test_dare_drops_by_seed(trained: list[Checkpoint], tmp_path: Path) -> None:
    made = {name: tensors(merge(how, trained, tmp_path / name, seed).path) for name, how, seed in (
        ("a", Dare(0.5), 1), ("again", Dare(0.5), 1), ("other", Dare(0.5), 2), ("ties", Dare(0.5, "ties"), 1),
        ("none", Dare(0.0), 1), ("mean", Mean(), 1),
    )}  # fmt: skip
    assert distance(made["a"], made["again"]) == 0
    assert distance(made["a"], made["other"]) > 0
    assert distance(made["none"], made["mean"]) < 1e-6
    base = tensors(Path(trained[0].base))
    share = {name: sum(int((w == base[key]).sum()) for key, w in found.items()) for name, found in made.items()}
    total = sum(weight.numel() for weight in base.values())
    assert share["a"] / total == pytest.approx(0.5**3, abs=0.01)  # where all three dropped the weight
    assert share["ties"] > share["a"]


def test_cat_is_the_mean_of_the_updates_and_linear_is_not(
    adapters: Callable[..., list[Checkpoint]], tmp_path: Path
) -> None:
    given = adapters(4, 4)
    expected = mean([updates(each) for each in given])
    cat = merge(Cat(), given, tmp_path / "cat")
    assert json.loads((cat.path / "adapter_config.json").read_text())["r"] == 8
    assert distance(updates(cat), expected) < 1e-6
    linear = merge(Linear(), given, tmp_path / "linear")
    assert json.loads((linear.path / "adapter_config.json").read_text())["r"] == 4
    assert distance(updates(linear), expected) > 0.01
    whole = merge(Mean(), given, tmp_path / "mean")  # through merged weights
    assert not (whole.path / "adapter_config.json").exists()
    assert distance(updates(whole), expected) < 1e-6


def test_adapters_of_different_ranks_and_scales(adapters: Callable[..., list[Checkpoint]], tmp_path: Path) -> None:
    given = [*adapters(2, 6), *adapters(4, use_rslora=True)]
    weights = (0.5, 0.2, -0.3)
    parts = [updates(each) for each in given]
    expected = {name: sum(w * part[name] for w, part in zip(weights, parts, strict=True)) for name in parts[0]}
    made = merge(Cat(weights=weights), given, tmp_path / "cat")
    assert distance(updates(made), expected) < 1e-6  # type: ignore[arg-type]  # sum starts from 0
    with pytest.raises(InputError, match="ranks 2, 6, 4"):
        merge(Linear(), given, tmp_path / "linear")


def test_linear_of_adapters_is_what_peft_makes(
    adapters: Callable[..., list[Checkpoint]], tiny_model_dir: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    given = adapters(4, 4)
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), given[0].path, "a")
    network.load_adapter(given[1].path, "b")
    network.add_weighted_adapter(["a", "b"], [0.75, 0.25], "c", combination_type="linear")
    made = tensors(merge(Linear(weights=(0.75, 0.25)), given, tmp_path / "linear").path)
    theirs = {name: weight for name, weight in network.state_dict().items() if ".c." in name}
    for name, weight in made.items():
        torch.testing.assert_close(weight, theirs[name.replace(".weight", ".c.weight")])


def test_merged_models_answer_like_any_other(
    trained: list[Checkpoint],
    adapters: Callable[..., list[Checkpoint]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    row = [(Message("user", "What is 1 plus 2?"), Message("assistant", "The answer is 3."))]
    mixed, two = [trained[0], *adapters(4)], adapters(2, 2)
    capfd.readouterr()
    for name, how, given in (("ties", Ties(), trained), ("cat", Cat(), two), ("mixed", Mean(), mixed)):
        made = merge(how, given, tmp_path / name)
        assert capfd.readouterr() == ("", "")
        model = load_checkpoint(made, dtype="float32")
        found = model.measure(row, frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
        assert found is not None
        assert len(found[0]) > 3
        facts = json.loads((made.path / "merged.json").read_text())
        assert facts["merge"] == {"name": how.spec.name, **how.spec.params}
        assert facts["checkpoints"] == [str(each.path) for each in given]
    assert distance(updates(made), mean([updates(each) for each in mixed])) < 1e-6


def test_large_models_are_written_in_shards(
    trained: list[Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(Mean(), trained, tmp_path / "one")
    monkeypatch.setattr(merge_files, "SHARD_BYTES", 100_000)
    merge(Mean(), trained, tmp_path / "many")
    names = {path.name for path in (tmp_path / "many").glob("*.safetensors")}
    assert len(names) > 2
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == names
    assert distance(tensors(tmp_path / "one"), tensors(tmp_path / "many")) == 0
    assert LocalModel.load(str(tmp_path / "many"), dtype="float32").parameters > 0
    shards = [trained[0], replace(trained[1], path=tmp_path / "many")]
    merge(Mean(), shards, tmp_path / "of shards")


@pytest.mark.parametrize("name", MERGES)
def test_spec_rebuilds_it(name: str) -> None:
    how = MERGES[name]()
    assert merge_of(how.spec.name, json.loads(json.dumps(dict(how.spec.params)))) == how
    assert how.spec.name == name


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("slerp", {}, "unknown merge 'slerp'; known merges: mean, linear, ties, dare, cat"),
        ("ties", {"share": 1}, "merge 'ties' has no parameter share; known: density, scale"),
        ("mean", {"share": 1}, "known: none"),
        ("ties", {"density": 0}, "density is 0; give above 0, up to 1"),
        ("ties", {"density": "half"}, "merge 'ties': density is 'half'; give a number"),
        ("ties", {"scale": True}, "merge 'ties': scale is True; give a number"),
        ("linear", {"weights": [1, "x"]}, r"weights is \[1, 'x'\]; give a list, each a number or nothing"),
        ("cat", {"weights": 0.5}, "merge 'cat': weights is 0.5; give a list"),
        ("dare", {"drop": 1.0}, "drop is 1.0; give 0 to below 1"),
        ("dare", {"then": "cat"}, "then is 'cat'; give one of mean, ties"),
    ],
)
def test_wrong_merges_are_named(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge_of(name, params)


def test_what_cannot_be_merged_is_refused(
    trained: list[Checkpoint], adapters: Callable[..., list[Checkpoint]], tmp_path: Path
) -> None:
    def refused(how: Merge, given: list[Checkpoint], message: str) -> None:
        with pytest.raises(InputError, match=message):
            merge(how, given, tmp_path / "out")

    refused(Mean(), trained[:1], "1 checkpoint was given")
    refused(Linear(weights=(1.0,)), trained, "1 weights were given for 3 checkpoints")
    refused(Mean(), [trained[0], replace(trained[1], base="winnow-tiny")], "different base models")
    refused(Cat(), [trained[0], *adapters(4)], "some of these checkpoints are none")
    refused(Cat(), adapters(4, 4, use_dora=True), "no plain LoRA adapter .use_dora")
    refused(Linear(weights=(1.0, -1.0)), adapters(4, 4), "weights of at least 0")
    odd = tmp_path / "odd"
    shutil.copytree(trained[1].path, odd)
    held = tensors(odd)
    save_file(held | {"model.norm.weight": torch.ones(3)}, odd / "model.safetensors", {"format": "pt"})
    refused(Mean(), [trained[0], replace(trained[1], path=odd)], "shapes of model.norm.weight differ")
    held.pop("model.norm.weight")
    save_file(held, odd / "model.safetensors", {"format": "pt"})
    refused(Mean(), [trained[0], replace(trained[1], path=odd)], "model.norm.weight is in one")

"""The contract of every tuning in the table, and how a recipe's entry becomes one."""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from models.local import load_checkpoint
from training import resume
from training.loop import carry_out
from training.sft import Sft
from training.tuning.adapters import Lora, Pissa
from training.tuning.full import Full
from training.tuning.table import TUNINGS, tuning_of
from training.written import ADAPTER, distance, logits
from warehouse.errors import InputError
from warehouse.records import Checkpoint, Dataset, canonical

IDS = [[5, 9, 17, 33, 40, 41, 8], [100, 3, 64]]
STOP = 5
RATES = {"full": 3e-3, "hft": 3e-3, "lisa": 3e-3, "s2ft": 1e-2, "galore": 1e-2, "mezo": 1e-4, "ia3": 1e-1}
PARAMS = {"eva": {"rank": 4}, "shira": {"rank": 4}, "lift": {"rank": 4}}
QUICK: dict[str, dict[str, Any]] = {
    f"{name}, quick": {"name": name, "rank": 4, "iterations": 4} for name in ("pissa", "lift")
}
VARIANTS = {name: {"name": name} | PARAMS.get(name, {}) for name in TUNINGS} | QUICK


class Stopped(Exception):
    """What ends a run in its middle here."""


class Stop(transformers.TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == STOP:
            raise Stopped


class Remember(transformers.TrainerCallback):
    """The logits of the network as it was trained."""

    trained: list[torch.Tensor]

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.trained = logits(model.eval(), IDS)


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    sft: Sft
    base: Path
    data: Dataset
    out: Path
    trained: list[torch.Tensor]
    base_before: str

    @property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "training.json").read_text())
        return found


def content(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


@pytest.fixture(scope="module", params=VARIANTS)
def run(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = write_rows(folder / "rows.parquet", sums(8))
    sft = Sft(
        tuning=tuning_of(VARIANTS[name]), learning_rate=RATES.get(name, 1e-2), epochs=5,
        batch_size=4, gradient_accumulation=1, max_length=64, precision="float32", warmup=0.0, save_every=2,
    )  # fmt: skip
    out, remember, before = folder / "out", Remember(), content(tiny_model_dir)
    out.mkdir()
    carry_out(
        sft, str(tiny_model_dir), data, out, 3, checkpoints=folder / "checkpoints", start=None, callbacks=[remember]
    )
    return Run(name, sft, tiny_model_dir, data, out, remember.trained, before)


def test_the_loss_falls(run: Run) -> None:
    curve = pq.read_table(run.out / "loss.parquet")["loss"].to_pylist()
    assert len(curve) == 10
    if run.name != "mezo":  # which needs many steps
        assert curve[-1] < curve[0] - 0.2


def test_what_is_written_is_what_was_trained(run: Run) -> None:
    written = Checkpoint(run.out, str(run.base), run.sft.spec, run.data.key, 3)
    model = load_checkpoint(written, dtype="float32")
    assert distance(run.trained, logits(model.network, IDS)) < 1e-4
    adapter = (run.out / ADAPTER).exists()
    assert run.facts["written"] == ("adapter" if adapter else "weights")
    assert adapter == (run.facts["reload_difference"] is not None)
    assert content(run.base) == run.base_before


def test_a_run_that_was_cut_short_ends_with_the_same_bits(run: Run, tmp_path: Path) -> None:
    def carry(start: Path | None, *callbacks: Any) -> None:
        carry_out(
            run.sft, str(run.base), run.data, tmp_path, 3,
            checkpoints=tmp_path / "checkpoints", start=start, callbacks=callbacks,
        )  # fmt: skip

    with pytest.raises(Stopped):
        carry(None, Stop())
    last = resume.newest(tmp_path / "checkpoints")
    assert last is not None
    assert resume.step_of(last) == STOP - 1
    carry(last)
    one, other = (load_file(next(folder.glob("*.safetensors"))) for folder in (run.out, tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", TUNINGS)
def test_spec_rebuilds_the_tuning(name: str) -> None:
    sft = Sft(tuning=tuning_of(name))
    params = json.loads(canonical(dict(sft.spec.params)))
    assert params["tuning"]["name"] == name
    assert Sft(**params) == sft
    assert tuning_of(sft.tuning) is sft.tuning


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("qlora", "unknown tuning 'qlora'; known tunings: full, lora"),
        ({"rank": 8}, "tuning is {'rank': 8}, without a `name`; known tunings: full, lora"),
        ({"name": ["lora"]}, r"unknown tuning \['lora'\]; known tunings"),
        ({"name": "lora", "ranks": 8}, "tuning 'lora' has no parameter ranks; known: rank, alpha, dropout, targets"),
        ({"name": "lora", "rank": "8"}, "tuning 'lora': rank is '8'; give a whole number"),
        ({"name": "lora", "rank": True}, "rank is True; give a whole number"),
        ({"name": "lora", "targets": [1]}, "give a text or a list, each a text"),
        ({"name": "lora", "rank": 0}, "tuning 'lora': rank is 0; expected 1 to 4096"),
        ({"name": "lora", "dropout": 1.0}, "dropout is 1.0; expected 0 to 0.99"),
        ({"name": "full", "keep_zeros": 1}, "keep_zeros is 1; give true or false"),
        (7, "tuning is 7; give a name, or a mapping"),
    ],
)
def test_wrong_tunings_are_named(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tuning_of(given)


@dataclass(frozen=True, slots=True)
class AtRandom(Lora):
    """PiSSA by a decomposition that is random: loading it on the base decomposes again, otherwise."""

    def options(self) -> dict[str, Any]:
        return {"init_lora_weights": "pissa_niter_4"}


def test_an_adapter_that_does_not_reload_is_written_merged(tiny_model_dir: Path, tmp_path: Path) -> None:
    data, remember = write_rows(tmp_path / "rows.parquet", sums(8)), Remember()
    sft = Sft(tuning=AtRandom(rank=4), learning_rate=1e-2, epochs=2, batch_size=4, max_length=64, precision="float32")
    carry_out(sft, str(tiny_model_dir), data, tmp_path, 0, checkpoints=tmp_path / "x", start=None, callbacks=[remember])
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["written"] == "merged"
    assert facts["reload_difference"] < 1e-4
    assert facts["trainable_parameters"] < facts["frozen_parameters"]  # counted before merging
    assert not list(tmp_path.glob("adapter_*"))
    model = load_checkpoint(Checkpoint(tmp_path, str(tiny_model_dir), sft.spec, "rows", 0), dtype="float32")
    assert distance(remember.trained, logits(model.network, IDS)) < 1e-4


def test_targets_that_a_model_does_not_have_are_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.parquet", sums(4))
    with pytest.raises(InputError, match=r"w_pack.*; its linear modules are down_proj, gate_proj, k_proj, .*v_proj$"):
        Sft(tuning=Lora(targets=("w_pack",)))(str(tiny_model_dir), data, tmp_path / "out", 0)
    with pytest.raises(InputError, match="needs batches of at least 4000 tokens"):
        Sft(tuning=tuning_of({"name": "eva", "rank": 2000}))(str(tiny_model_dir), data, tmp_path / "out", 0)
    with pytest.raises(InputError, match="every name in feedforward must be in targets"):
        Sft(tuning=tuning_of({"name": "ia3", "feedforward": ["up_proj"]}))(
            str(tiny_model_dir), data, tmp_path / "out", 0
        )


def test_the_entries_that_move_are_as_many_as_a_lora_has(tiny_model_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.parquet", sums(4))
    base = load_file(tiny_model_dir / "model.safetensors")
    moved: dict[str, dict[int, torch.Tensor]] = {}
    for name in ("shira", "lift"):
        tuning = tuning_of({"name": name, "rank": 3})
        for seed in (0, 1):
            out = tmp_path / f"{name}{seed}"
            sft = Sft(tuning=tuning, learning_rate=1e-2, epochs=2, batch_size=4, warmup=0.0, max_length=64)
            checkpoint = sft(str(tiny_model_dir), data, out, seed)
            weights = load_checkpoint(checkpoint, dtype="float32").network.state_dict()
            place = "model.layers.0.mlp.up_proj.weight"
            moved.setdefault(name, {})[seed] = weights[place] != base[place]
    m, n = moved["lift"][0].shape
    for each in moved.values():
        assert all(0.9 * 3 * (m + n) <= int(mask.sum()) <= 3 * (m + n) for mask in each.values())
    u, s, v = torch.linalg.svd(base[place], full_matrices=False)
    near = ((u[:, :3] * s[:3]) @ v[:3]).abs()
    threshold = near.flatten().sort(descending=True).values[3 * (m + n) - 1]
    assert bool((near[moved["lift"][0]] >= threshold - 1e-6).all())
    assert not torch.equal(moved["shira"][0], moved["shira"][1])


def test_every_tuning_and_every_parameter_is_described() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    params = {field.name for name in TUNINGS for field in fields(tuning_of(name))}  # type: ignore[arg-type]
    expected = {*TUNINGS, *params, *(field.name for field in fields(Sft))}
    assert [name for name in sorted(expected) if f"`{name}`" not in page] == []


def test_a_name_a_mapping_and_the_thing_are_the_same() -> None:
    assert tuning_of("full") == Full()
    assert tuning_of({"name": "lora", "rank": 8, "targets": ["q_proj"]}) == Lora(rank=8, targets=("q_proj",))
    assert tuning_of(Pissa()) == tuning_of("pissa") != tuning_of("olora")

"""Options of a run: what is hidden, dropped, weighed, cut, and what happens where memory runs out."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sft_rows import sums, write_rows

from models.tokens import load_tokenizer
from training.guard import IGNORED, guard
from training.row_trainer import RowTrainer
from training.sft import Schedule, Sft
from training.tuning.full import Full
from training.tuning.protocol import Setting
from warehouse.errors import InputError
from warehouse.records import Dataset

ROWS = sums(24)
SFT = Sft(
    learning_rate=1e-3, epochs=1, batch_size=8, gradient_accumulation=1, max_length=64, precision="float32", warmup=0.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", ROWS)


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    SFT(str(tiny_model_dir), data, out, 0)
    return out


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return found


def losses(folder: Path) -> list[float]:
    found: list[float] = pq.read_table(folder / "loss.parquet")["loss"].to_pylist()
    return found


def distance(a: Path, b: Path) -> float:
    one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def told(path: Path, metas: list[dict[str, Any] | None]) -> Dataset:
    """The first rows with what their `meta` says."""
    stored = [[{"role": m.role, "content": m.content} for m in row] for row in ROWS[: len(metas)]]
    texts = [None if meta is None else json.dumps(meta) for meta in metas]
    pq.write_table(pa.table({"messages": stored, "meta": texts}), path)
    return Dataset(path, "told")


@pytest.mark.parametrize("packing", [False, True])
def test_hidden_replies_are_those_of_the_run_however_it_is_batched(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, plain: Path, packing: bool
) -> None:
    sft = replace(SFT, masked_thought=0.4, packing=packing, epochs=4)
    sft(str(tiny_model_dir), data, tmp_path / "whole", 0)
    replace(sft, batch_size=2, gradient_accumulation=4)(str(tiny_model_dir), data, tmp_path / "parts", 0)
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-5
    if not packing:  # none is hidden at the first step
        assert losses(tmp_path / "whole")[0] == losses(plain)[0]
    replace(sft, masked_thought=0.0)(str(tiny_model_dir), data, tmp_path / "plain", 0)
    assert distance(tmp_path / "whole", tmp_path / "plain") > 1e-4
    assert facts(tmp_path / "whole")["label_tokens_per_epoch"] == facts(plain)["label_tokens_per_epoch"]


def test_noise_on_embeddings_changes_the_loss_and_repeats(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, plain: Path
) -> None:
    for name in ("a", "b"):
        replace(SFT, neftune=5.0)(str(tiny_model_dir), data, tmp_path / name, 0)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert abs(losses(tmp_path / "a")[0] - losses(plain)[0]) > 1e-4


def test_replies_alone_are_trained_on_where_asked(tiny_model_dir: Path, data: Dataset) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    whole, alone = (guard(data.path, tokenizer, chat, 64, response_only) for response_only in (False, True))
    assert alone.label_tokens.tolist() == whole.label_tokens.tolist()
    assert (alone.lengths < whole.lengths - 5).all()
    text = tokenizer.decode(alone.table["input_ids"][0].as_py(), skip_special_tokens=False)
    assert "plus" not in text
    assert text.startswith("<|assistant|>")


def test_schedules_of_our_own_reach_the_optimizer(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    sft = replace(SFT, batch_size=3, warmup=0.25, decay=0.5)
    expected: dict[Schedule, list[float]] = {
        "wsd": [0, 0.5, 1, 1, 1, 0.75, 0.5, 0.25],
        "power": [0, 0.5, 2 / 3, 0.5, 0.4, 0.75 / 3, 0.5 * 2 / 7, 0.25 * 2 / 8],
    }
    for schedule, shares in expected.items():
        out = tmp_path / schedule
        replace(sft, schedule=schedule, power_a=2.0, power_b=-1.0)(str(tiny_model_dir), data, out, 0)
        rates = pq.read_table(out / "loss.parquet")["learning_rate"].to_numpy() / sft.learning_rate
        assert rates == pytest.approx(np.array(shares))
    with pytest.raises(InputError, match="more than all steps together"):
        replace(sft, schedule="wsd", warmup=0.6, decay=0.5)


def test_a_reply_that_was_cut_teaches_no_end(tiny_model_dir: Path, tmp_path: Path) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    metas = [{"complete": False}, {"complete": True}, {}, None]
    found = guard(told(tmp_path / "told.parquet", metas).path, tokenizer, chat, 64)
    end = tokenizer.token_to_id(chat.eos)
    labels = [[id_ for id_ in row if id_ != IGNORED] for row in found.table["labels"].to_pylist()]
    assert [row[-1] == end for row in labels] == [False, True, True, True]
    assert tokenizer.decode(labels[0]) == ROWS[0][1].content
    assert (found.unfinished, found.weights) == (1, None)
    talk = [[{"role": m.role, "content": m.content} for m in (*ROWS[0], *ROWS[1])]]
    pq.write_table(pa.table({"messages": talk, "meta": ['{"complete": false}']}), tmp_path / "talk.parquet")
    ids = guard(tmp_path / "talk.parquet", tokenizer, chat, 128).table["labels"][0].as_py()
    assert [id_ for id_ in ids if id_ != IGNORED].count(end) == 1  # only the last reply was cut


def test_weights_in_meta_multiply_those_of_the_dataset(tiny_model_dir: Path, tmp_path: Path) -> None:
    metas: list[dict[str, Any] | None] = [{"weight": w} for w in (1, 2, 0.5, 4)] + [None] * 4
    said, base = told(tmp_path / "said.parquet", metas), np.linspace(0.5, 2, 8)
    given = write_rows(tmp_path / "given.parquet", ROWS[:8])
    replace_weights = base * np.array([1, 2, 0.5, 4, 1, 1, 1, 1])
    SFT(str(tiny_model_dir), replace(said, weights=base), tmp_path / "said", 0)
    SFT(str(tiny_model_dir), replace(given, weights=replace_weights), tmp_path / "given", 0)
    assert distance(tmp_path / "said", tmp_path / "given") == 0


@pytest.mark.parametrize("weight", [0, -1, "3 kg", True])
def test_a_weight_that_is_none_is_named(tiny_model_dir: Path, tmp_path: Path, weight: Any) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    with pytest.raises(InputError, match=r"`meta.weight` of row 1 is .*; give a number above 0"):
        guard(told(tmp_path / "told.parquet", [None, {"weight": weight}]).path, tokenizer, chat, 64)


def test_many_epochs_leave_a_note(tiny_model_dir: Path, tmp_path: Path, plain: Path) -> None:
    data = write_rows(tmp_path / "few.parquet", ROWS[:4])
    replace(SFT, epochs=5)(str(tiny_model_dir), data, tmp_path / "out", 0)
    assert [note.split(":")[0] for note in facts(tmp_path / "out")["notes"]] == ["5 epochs"]
    assert facts(plain)["notes"] == []


def test_settings_of_the_machine_are_told(plain: Path) -> None:
    told = facts(plain)
    assert told["threads"] == torch.get_num_threads()
    assert (told["attention"], told["allocator"], told["processes"]) == ("rows", "system", 1)
    assert isinstance(told["bf16_native"], bool)


class Small:
    """A device that holds 3 rows at once, and breaks at the fourth step of a run of more."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.step = RowTrainer.training_step

    def __call__(self, trainer: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        self.sizes.append(len(inputs["rows"].unique()))
        if self.sizes[-1] > 3 and trainer.state.global_step >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.step(trainer, model, inputs, *rest)


def test_where_memory_runs_out_it_goes_on_from_the_checkpoint_with_fewer_rows_at_once(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small()
    monkeypatch.setattr(RowTrainer, "training_step", lambda *given: small(*given))
    with pytest.warns(UserWarning, match="out of memory: going on with [42] rows at once"):
        replace(SFT, save_every=1)(str(tiny_model_dir), data, tmp_path, 0)
    assert small.sizes == [8, 8, 8, 4, 2, 2, 2, 2]  # two steps, and the third in halves, then in quarters
    assert distance(tmp_path, plain) < 1e-5
    assert (facts(tmp_path)["rows_at_once"], facts(tmp_path)["gradient_accumulation"]) == (2, 4)
    assert facts(tmp_path)["notes"] == [
        "out of memory: 2 rows at once instead of 8, with as many rows per step",
        "goes on from step 2",
    ]


def test_where_one_row_does_not_fit_it_says_so(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(RowTrainer, "training_step", full)
    with (
        pytest.raises(InputError, match="one row at a time does not fit"),
        pytest.warns(UserWarning, match="1 rows at once"),
    ):
        replace(SFT, batch_size=2)(str(tiny_model_dir), data, tmp_path, 0)


class Breaks(transformers.TrainerCallback):
    """Weights stop being numbers before the third step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 2:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))


@dataclass(frozen=True, slots=True)
class Breaking(Full):
    def callbacks(self, setting: Setting) -> list[Any]:
        return [Breaks()]


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint_and_names_it(
    tiny_model_dir: Path, data: Dataset, tmp_path: Path
) -> None:
    last = tmp_path / "checkpoints" / "checkpoint-2"
    said = rf"at step 3, in the batch of rows \d+, .*the weights of step 2 are kept in {last}"
    with pytest.raises(InputError, match=said):
        replace(SFT, save_every=1, tuning=Breaking())(str(tiny_model_dir), data, tmp_path, 0)
    assert all(bool(weight.isfinite().all()) for weight in load_file(last / "model.safetensors").values())


def test_what_spreads_a_model_over_devices_is_handed_on(tiny_model_dir: Path, data: Dataset, tmp_path: Path) -> None:
    from training.arguments import arguments

    made = arguments(
        replace(SFT, fsdp="full_shard", fsdp_config={"min_num_params": 7}),
        torch.device("cpu"),
        tmp_path,
        0,
        (1, 1),
        False,
    )
    assert made.fsdp
    assert isinstance(made.fsdp_config, dict)
    assert made.fsdp_config["min_num_params"] == 7
    with pytest.raises(InputError, match="needs a package that is not installed"):
        arguments(replace(SFT, deepspeed={"zero_optimization": {}}), torch.device("cpu"), tmp_path, 0, (1, 1), False)

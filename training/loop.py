"""One fine-tuning run on trl's `SFTTrainer`: rows and labels in, weights out.

Loads torch, transformers, trl and (for LoRA) peft.
"""

import contextlib
import gc
import importlib.metadata
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets.table import InMemoryTable
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from models.fingerprint import fetch, fingerprint
from models.network import Loaded, choose_dtype, load_network
from models.tokens import load_tokenizer
from training import record, resume
from training.guard import Guarded, guard
from training.order import order
from training.sft import Sft
from training.warmup import KEPT, RATES
from warehouse.errors import InputError
from warehouse.records import Dataset, Floats, canonical

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
# Attention written out is 2 times quicker than the fused kernel on a processor for short rows (bfloat16, heads of 32),
# but holds length² scores per head.
EAGER_LENGTH = 512


# The libraries above leave a million objects that live as long as the process. Each run collects garbage once, which
# takes 0.2 s while those are looked at, and nothing when they are not.
gc.freeze()


class Diverged(InputError):
    """The loss is no longer a number: the step and the rows of its batch are named."""


def train(sft: Sft, base: str, data: Dataset, out: Path, seed: int, keep: int = 0) -> None:
    """Guard the rows, train, and write everything `Sft.__call__` promises under `out`.

    `keep` adapters are kept on the way with the optimizer's state, as `training.warmup` says.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = fetch(base, trust_remote_code=sft.trust_remote_code)
    tokenizer, chat = load_tokenizer(folder, sft.template)
    rows = guard(data.path, tokenizer, chat, min(sft.max_length, positions(folder, sft.trust_remote_code)))
    weights = row_weights(data, rows)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    identity = resume.identity_of(
        canonical(dict(sft.spec.params)), fingerprint(base, sft.template), data.key, str(seed), *versions
    )
    start = resume.prepare(out, identity)
    with quiet():
        trainer = build(sft, load(sft, base, chat.template), rows, weights, out, seed)
        if keep:
            trainer.add_callback(_Keeping(out / KEPT, keep))
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        _save(trainer, sft, base, out)
    record.write(out, sft, trainer, rows, versions)
    resume.clear(out)


def positions(folder: Path, trust_remote_code: bool) -> int:
    """Tokens that the model's positions reach; unlimited where its configuration names no limit."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def load(sft: Sft, base: str, template: str) -> Loaded:
    """The base model with float32 weights on the training device, and its tokenizer with the chat template set."""
    loaded = load_network(
        base, dtype="float32", device="auto", adapter=None, trust_remote_code=sft.trust_remote_code, revision="main"
    )
    loaded.tokenizer.chat_template = template
    if loaded.tokenizer.pad_token is None:
        loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    length = sft.max_length * (sft.batch_size if sft.packing else 1)  # packs of one batch form one sequence
    if loaded.network.device.type == "cpu" and length <= EAGER_LENGTH:
        loaded.network.set_attn_implementation("eager")
    return loaded


def build(sft: Sft, loaded: Loaded, rows: Guarded, weights: Floats | None, out: Path, seed: int) -> "RowTrainer":
    """The trainer, ready to train. A worker loop may add callbacks or prepare it for several processes."""
    dataset = datasets.Dataset(InMemoryTable(rows.table))
    lengths = rows.lengths
    if sft.packing:
        dataset = pack_dataset(dataset, sft.max_length, "bfd")
        lengths = np.array([sum(pack) for pack in dataset["seq_lengths"]], np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    plan = order(lengths, sft.epochs, sft.step_rows, sft.group_by_length and not sft.packing, rng)
    return RowTrainer(
        loaded.network,
        arguments(sft, loaded.network.device, out, seed),
        dataset.select(plan),
        loaded.tokenizer,
        adapter(sft) if sft.method == "lora" else None,
        weights,
    )


def row_weights(data: Dataset, rows: Guarded) -> Floats | None:
    """(rows in the file,) weights with mean 1 over the kept rows, or None where they are all the same."""
    if data.weights is None:
        return None
    weights = np.asarray(data.weights, np.float64)
    if len(weights) != (n := rows.funnel()["rows_in"]):
        raise InputError(f"{data.path} has {n} rows but the dataset names {len(weights)} weights; give one per row")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError(f"{data.path}: every weight of a row must be finite and above 0")
    kept = weights[rows.numbers]
    return None if (kept == kept[0]).all() else weights / kept.mean()


def arguments(sft: Sft, device: torch.device, out: Path, seed: int) -> SFTConfig:
    """trl's configuration of this run. The order of rows is decided before, so it is one epoch, read in order."""
    return SFTConfig(
        output_dir=str(out / resume.FOLDER),
        per_device_train_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=sft.learning_rate,
        lr_scheduler_type=SCHEDULES[sft.schedule],
        warmup_steps=sft.warmup,
        weight_decay=sft.weight_decay,
        max_grad_norm=sft.max_grad_norm,
        max_length=sft.max_length if sft.packing else None,  # rows are cut already
        packing=sft.packing,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        bf16=runs_in_bf16(sft, device),
        use_cpu=device.type == "cpu",
        gradient_checkpointing=sft.gradient_checkpointing,
        save_strategy="steps" if sft.save_every else "no",
        save_steps=sft.save_every or 1,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
        data_seed=seed,
    )


def runs_in_bf16(sft: Sft, device: torch.device) -> bool:
    """Whether products are made in bfloat16 ("auto": where the hardware does)."""
    if sft.precision == "auto":
        return choose_dtype("auto", device) == torch.bfloat16
    return sft.precision == "bf16"


def adapter(sft: Sft) -> Any:
    """peft's configuration of the adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=sft.lora_rank,
        lora_alpha=sft.lora_alpha,
        lora_dropout=sft.lora_dropout,
        target_modules=sft.lora_targets if isinstance(sft.lora_targets, str) else list(sft.lora_targets),
        task_type="CAUSAL_LM",
    )


@dataclass(frozen=True, slots=True)
class RowCollator:
    """trl's collator, and beside the token ids the row each token came from: (batch, length), -1 where padded."""

    inner: Any
    one_sequence: bool

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.inner(examples)
        rows = [torch.tensor(example["rows"]) for example in examples]
        if self.one_sequence:
            rows = [torch.cat(rows)]
        batch["rows"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        return batch


class RowTrainer(SFTTrainer):
    """trl's trainer, told which row every token came from: it weighs rows, counts tokens and names rows that diverge.

    A step's entry in the log history also holds `tokens` and `seconds` since the start of the run, resumed parts
    included.
    """

    def __init__(
        self, model: Any, args: SFTConfig, rows: Any, tokenizer: Any, peft: Any, weights: Floats | None
    ) -> None:
        super().__init__(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=peft)
        self.data_collator = RowCollator(self.data_collator, self.padding_free)
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(_Saving())
        self._row_weights = None if weights is None else torch.from_numpy(weights).float().to(args.device)
        self._tokens, self._since = 0, time.perf_counter()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the step's label tokens, each multiplied by the weight of its row."""
        rows = inputs.pop("rows")
        self._tokens += int((rows >= 0).sum())
        if self._row_weights is None:
            plain: Any = super()
            loss = plain.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            loss = self._weighted_loss(model, inputs, self._row_weights[rows], num_items_in_batch)
        if not torch.isfinite(loss):
            raise Diverged(self._divergence(rows))
        return loss

    def _weighted_loss(self, model: Any, inputs: dict[str, Any], weights: torch.Tensor, labels: Any) -> torch.Tensor:
        out = model(**inputs, use_cache=False, fused_lm_head=True)
        count = out.label_mask.sum() if labels is None else labels
        loss: torch.Tensor = -(out.log_probs * weights[:, 1:]).sum() / count
        loss *= self.accelerator.num_processes  # label tokens are counted over all processes, and gradients averaged
        return loss

    def _divergence(self, rows: torch.Tensor) -> str:
        named = ", ".join(str(row) for row in np.unique(rows.cpu().numpy()) if row >= 0)
        return (
            f"the loss stopped being a number at step {self.state.global_step + 1}, in the batch of rows {named} "
            f"(row numbers of the data); look at them, or lower learning_rate {self.args.learning_rate:g}"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add tokens and seconds so far to a step's log entry."""
        if "loss" in logs:
            last = self.state.log_history[-1] if self.state.log_history else {}
            now = time.perf_counter()
            logs["tokens"] = last.get("tokens", 0) + self._tokens
            logs["seconds"] = last.get("seconds", 0.0) + now - self._since
            self._tokens, self._since = 0, now
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card: `training.json` says what was done."""

    def _send_telemetry(self) -> None:
        """trl would report each run to its authors; a training run calls nobody."""


class _Saving(transformers.TrainerCallback):
    """Marks a checkpoint once all its files are written; saves none at the end, where the result itself is written."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            resume.mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _Keeping(transformers.TrainerCallback):
    """Keeps the adapter and the optimizer's state at `count` evenly spaced steps, the last at the end.

    Beside them the learning rates are written: of each, the mean over the steps since the one before.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step in self._steps(state):
            kept = self.folder / str(state.global_step)
            given["model"].save_pretrained(kept, save_embedding_layers=False)
            torch.save(given["optimizer"].state_dict(), kept / "optimizer.pt")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        rates = {entry["step"]: entry["learning_rate"] for entry in state.log_history if "learning_rate" in entry}
        steps = self._steps(state)
        spans = zip([0, *steps], steps, strict=False)
        means = {
            str(stop): float(np.mean([rates[step] for step in range(start + 1, stop + 1)])) for start, stop in spans
        }
        (self.folder / RATES).write_text(json.dumps(means), encoding="utf-8")

    def _steps(self, state: Any) -> list[int]:
        return sorted({max(1, round(state.max_steps * i / self.count)) for i in range(1, self.count + 1)})


def _save(trainer: RowTrainer, sft: Sft, base: str, out: Path) -> None:
    """Weights, tokenizer and template. Not `trainer.save_model`, which adds a pickle of its arguments."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    tokenizer: Any = trainer.processing_class
    if sft.method == "lora":
        config = model.active_peft_config
        config.base_model_name_or_path = base
        config.target_modules = sorted(config.target_modules)  # a set is written in another order by each process
        # "auto" would ask the hub whether the base's vocabulary was changed
        model.save_pretrained(out, save_embedding_layers=False)
        (out / "README.md").unlink()  # peft's model card, a form to fill in
    else:
        model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and only errors from transformers and trl, which warn about what is meant here."""
    bars: Any = transformers.utils.logging
    shown, shown_by_datasets = bars.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("transformers", "trl")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    bars.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl sets options that transformers renames
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown_by_datasets:
            datasets.enable_progress_bars()
        if shown:
            bars.enable_progress_bar()

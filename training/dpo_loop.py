"""One run of preference tuning on trl's `DPOTrainer`: pairs in, weights out.

Loads torch, transformers and trl.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.table import InMemoryTable
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from models.fingerprint import fetch
from models.network import Loaded
from models.tokens import load_tokenizer
from training import record, resume
from training.arguments import settings
from training.cost import forward_flops
from training.dpo import Dpo
from training.guard import IGNORED, Guarded
from training.loop import load, positions, prepared
from training.order import order
from training.preferences import guard_pairs
from training.quiet import quiet
from training.tuning.protocol import Setting
from training.watched import Watched
from training.written import write
from warehouse.errors import InputError
from warehouse.records import Dataset

# columns of loss.parquet beside those of every run, by the names under which trl logs them
MEASURED = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen_gain": "rewards/chosen",
    "rejected_gain": "rewards/rejected",
}


def train(dpo: Dpo, base: str, data: Dataset, out: Path, seed: int) -> None:
    """Guard the pairs, train, and write everything `Dpo.__call__` promises under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    folder = fetch(base, trust_remote_code=dpo.trust_remote_code)
    tokenizer, chat = load_tokenizer(folder, dpo.template)
    pairs = guard_pairs(data.path, tokenizer, chat, min(dpo.max_length, positions(folder, dpo.trust_remote_code)))
    start = resume.prepare(out, resume.identity_of(dpo, base, data, seed))
    begun = resume.steps_done(start)
    with quiet():
        trainer = build(dpo, load(dpo.shared, base, chat.template), pairs, out, seed)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        written = write(trainer, dpo.shared, base, out)
    _record(dpo, trainer, pairs, begun, written | {"versions": resume.versions()}, out)
    resume.clear(out)


def build(dpo: Dpo, loaded: Loaded, pairs: Guarded, out: Path, seed: int) -> Any:
    """The trainer, ready to train: the base's log-probabilities are measured, then the tuning prepares the network."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    plan = order(pairs.lengths, dpo.epochs, dpo.step_rows, dpo.group_by_length, rng)
    rows = datasets.Dataset(InMemoryTable(pairs.table))
    args = arguments(dpo, loaded.network.device, out, seed)
    trainer: Any = PairTrainer(loaded.network, args, rows, loaded.tokenizer)
    ordered: Any = trainer.train_dataset.select(plan)
    trainer.train_dataset = ordered
    collate = trainer.data_collator
    setting = Setting(seed, -(-len(plan) // dpo.step_rows), lambda: batches(ordered, collate, dpo.batch_size))
    network = prepared(dpo.shared, loaded, setting)
    trainer.adopt(network, dpo.tuning.optimizer(network, setting))
    for callback in dpo.tuning.callbacks(setting):
        trainer.add_callback(callback)
    return trainer


def arguments(dpo: Dpo, device: torch.device, out: Path, seed: int) -> DPOConfig:
    """trl's configuration of this run."""
    batch = dpo.batch_size, dpo.gradient_accumulation
    own = {
        "beta": dpo.beta,
        "loss_type": [dpo.loss],
        "label_smoothing": dpo.label_smoothing,
        "precompute_ref_log_probs": True,
        "max_length": None,  # pairs are cut already
    }
    return DPOConfig(**settings(dpo.shared, device, out / resume.FOLDER, seed, batch) | own | dpo.tuning.arguments())


@dataclass(frozen=True, slots=True)
class PairCollator:
    """trl's collator for pairs as the guard gives them, and beside it the row of each pair, (batch,)."""

    inner: Any

    @classmethod
    def of(cls, pad: int) -> "PairCollator":
        return cls(DataCollatorForPreference(pad))

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.inner([_parts(example) for example in examples])
        batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch


def _parts(example: dict[str, Any]) -> dict[str, Any]:
    prompt, chosen, rejected = example["prompt"], example["input_ids"], example["rejected_ids"]
    parts = {"prompt_ids": chosen[:prompt], "chosen_ids": chosen[prompt:], "rejected_ids": rejected[prompt:]}
    return parts | {name: value for name, value in example.items() if name.startswith("ref_")}


class PairTrainer(Watched, DPOTrainer):
    """trl's trainer, for pairs that are tokenised: it measures the base, and names pairs that diverge.

    It is built with the base model; the network that is trained is adopted afterwards.
    """

    KIND = "pairs"

    def __init__(self, model: Any, args: DPOConfig, rows: Any, tokenizer: Any) -> None:
        collate = PairCollator.of(tokenizer.pad_token_id)
        super().__init__(model, args=args, train_dataset=rows, processing_class=tokenizer, data_collator=collate)
        self.watch()

    def adopt(self, network: Any, optimizer: tuple[type, dict[str, Any]] | None) -> None:
        """Train `network`, which was made of the base model, by AdamW unless an optimizer is given.

        Raises `InputError` for an adapter on the head.
        """
        from peft import PeftModel
        from peft.tuners.tuners_utils import BaseTunerLayer

        if isinstance(network.get_output_embeddings(), BaseTunerLayer):
            raise InputError("the head cannot have an adapter here; leave it out of the tuning's targets")
        if isinstance(network, PeftModel) and self.args.gradient_checkpointing:
            network.enable_input_require_grads()
        self.model = self.model_wrapped = network
        if optimizer is not None:
            self.optimizer_cls_and_kwargs = (optimizer[0], {"lr": self.args.learning_rate} | optimizer[1])

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The base's log-probability of both replies of every pair, pairs of like length together."""
        lengths = [len(a) + len(b) for a, b in zip(dataset["input_ids"], dataset["rejected_ids"], strict=True)]
        by_length = np.argsort(lengths, kind="stable")
        found = {name: np.zeros(len(lengths), np.float32) for name in ("ref_chosen_logps", "ref_rejected_logps")}
        network: Any = self.model
        network.eval()
        measure: Any = self.compute_ref_log_probs
        for start in range(0, len(lengths), batch_size):
            chosen = by_length[start : start + batch_size]
            batch = self._prepare_inputs(self.data_collator(list(dataset.select(chosen))))
            batch.pop("row")
            for values, logps in zip(found.values(), measure(network, batch), strict=True):
                values[chosen] = logps.float().cpu().numpy()
        for column, values in found.items():
            dataset = dataset.add_column(column, values)
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of the batch's pairs."""
        rows = inputs["row"].tolist()
        self.saw(rows, int(inputs["attention_mask"].sum()))
        given = {name: value for name, value in inputs.items() if name != "row"}
        plain: Any = super()
        loss = plain.compute_loss(model, given, return_outputs, num_items_in_batch)
        self.check_loss(loss, rows)
        return loss


def batches(rows: Any, collate: Any, size: int) -> Iterator[dict[str, Any]]:
    """The run's batches in order, as `Setting` promises them: chosen replies first, then the rejected ones."""
    for start in range(0, len(rows), size):
        batch = collate(list(rows.select(range(start, min(start + size, len(rows))))))
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
        yield {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def _record(dpo: Dpo, trainer: Any, pairs: Guarded, begun: int, written: dict[str, Any], out: Path) -> None:
    """Write `loss.parquet` and `training.json`. The base's pass over the pairs counts among the operations."""
    curve = loss_curve(trainer.state.log_history, dpo.epochs)
    pq.write_table(curve, out / record.LOSS)
    found = record.facts(dpo.shared, trainer, pairs, begun)
    parameters = found["trainable_parameters"] + found["frozen_parameters"]
    found["flops"] += forward_flops(parameters, int(pairs.lengths.sum()))
    found |= {f"final_{name}": curve[name][-1].as_py() for name in ("margin", "accuracy")}
    text = json.dumps(found | written | {"trainer": dict(dpo.spec.params)}, indent=2)
    (out / record.FACTS).write_text(text + "\n", encoding="utf-8")


def loss_curve(history: Sequence[dict[str, Any]], epochs: float) -> pa.Table:
    """One row per optimizer step: what every run records, and margin, accuracy and gains of the step's pairs."""
    curve = record.loss_curve(history, epochs)
    steps = [entry for entry in history if "loss" in entry]
    for column, logged in MEASURED.items():
        curve = curve.append_column(column, pa.array([entry[logged] for entry in steps], pa.float64()))
    return curve

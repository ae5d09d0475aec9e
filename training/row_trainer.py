"""trl's trainer, told which row every token came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from training.label_scores import score_labels
from training.masked_thought import Masking
from training.tuning.protocol import Setting, Stepping, Tuning
from training.watched import Watched
from warehouse.records import Floats


@dataclass(frozen=True, slots=True)
class Extras:
    """What a run adds to the trainer's own way, None where nothing.

    weights   (rows of the data,) float64, by which the loss of a row's tokens is multiplied
    masking   hides reply tokens from the model
    schedule  the share of the highest learning rate at each step
    """

    weights: Floats | None = None
    masking: Masking | None = None
    schedule: Callable[[int], float] | None = None


@dataclass(frozen=True, slots=True)
class RowCollator:
    """trl's collator, and beside the token ids the row each token came from: (batch, length), -1 where padded."""

    inner: Any
    strung: bool  # rows follow each other in one sequence, without padding

    @classmethod
    def of(cls, pad: int, strung: bool) -> "RowCollator":
        return cls(DataCollatorForLanguageModeling(pad, padding_free=strung), strung)

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.inner(examples)
        rows = [torch.tensor(example["rows"]) for example in examples]
        if self.strung:
            rows = [torch.cat(rows)]
        batch["rows"] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
        return batch


class RowTrainer(Watched, SFTTrainer):
    """trl's trainer, told which row every token came from: it weighs rows, and names those that diverge."""

    def __init__(
        self, model: Any, args: SFTConfig, rows: Any, tokenizer: Any, tuning: Tuning, setting: Setting, extras: Extras
    ) -> None:
        asked = tuning.optimizer(model, setting)
        optimizer = None if asked is None else (asked[0], {"lr": args.learning_rate} | asked[1])
        super().__init__(
            model, args, train_dataset=rows, processing_class=tokenizer, optimizer_cls_and_kwargs=optimizer
        )
        self.data_collator = RowCollator.of(tokenizer.pad_token_id, self.padding_free)
        self.watch()
        for callback in tuning.callbacks(setting):
            self.add_callback(callback)
        weights = extras.weights
        self._row_weights = None if weights is None else torch.from_numpy(weights).float().to(args.device)
        self.setting = setting
        self._masking, self._schedule = extras.masking, extras.schedule
        self._step = tuning.step if isinstance(tuning, Stepping) else None
        shared_out = self.is_fsdp_enabled or self.is_deepspeed_enabled  # the head's weights are not in one place
        whole = args.device.type == "cpu" and not (shared_out or self.aux_loss_enabled)
        self._labels_alone = whole and score_labels(self.model)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The gradients of one batch, or what the tuning does in their place; the batch's loss."""
        read = inputs["rows"][inputs["rows"] >= 0]
        self.saw(read.unique().tolist(), len(read))
        if self._masking is not None:
            inputs = self._masking(inputs, self.state.global_step)
        if self._step is None:
            plain: Any = super()
            return plain.training_step(model, inputs, num_items_in_batch)
        model.train()
        return self._step(self, model, self._prepare_inputs(inputs), num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood of the step's label tokens, each multiplied by the weight of its row."""
        rows = inputs["rows"]
        given = {name: value for name, value in inputs.items() if name != "rows"}
        if self._labels_alone:
            loss = self._label_loss(model, given, rows, num_items_in_batch)
        elif self._row_weights is None:
            plain: Any = super()
            loss = plain.compute_loss(model, given, return_outputs, num_items_in_batch)
        else:
            loss = self._weighted_loss(model, given, self._row_weights[rows], num_items_in_batch)
        self.check_loss(loss, rows.unique().tolist())
        return loss

    def _label_loss(self, model: Any, inputs: dict[str, Any], rows: torch.Tensor, labels: Any) -> torch.Tensor:
        """The same, with the head multiplied for label positions alone."""
        logprobs, mask = model(**inputs, use_cache=False, labels_alone=True)
        if self._row_weights is not None:
            logprobs = logprobs * self._row_weights[rows][:, 1:][mask]
        loss: torch.Tensor = -logprobs.sum() / (mask.sum() if labels is None else labels)
        loss *= self.accelerator.num_processes  # as below
        return loss

    def _weighted_loss(self, model: Any, inputs: dict[str, Any], weights: torch.Tensor, labels: Any) -> torch.Tensor:
        out = model(**inputs, use_cache=False, fused_lm_head=True)
        count = out.label_mask.sum() if labels is None else labels
        loss: torch.Tensor = -(out.log_probs * weights[:, 1:]).sum() / count
        loss *= self.accelerator.num_processes  # label tokens are counted over all processes, and gradients averaged
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The run's own schedule, where it has one."""
        if self._schedule is not None and self.lr_scheduler is None:
            chosen: Any = optimizer or self.optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, self._schedule)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

"""What all trainers here add to trl's: tokens and seconds are counted, what diverges is named, nobody is called."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers

from training import resume
from training.keeping import Saving
from training.schedules import rising
from warehouse.errors import InputError


class Diverged(InputError):
    """The loss is no longer a number: the step, the rows of its batch and the last good checkpoint are named."""


class Watched(transformers.Trainer):
    """The part of a trainer that watches it; a trainer of trl comes behind it among the bases.

    A step's entry in the log history also holds `tokens` and `seconds` since the start of the run, resumed parts
    included. `KIND` is what a row of the data is called.
    """

    KIND = "rows"

    def watch(self) -> None:
        """Call when the trainer is built."""
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(Saving())
        self._tokens, self._since = 0, time.perf_counter()
        self._rows: set[int] = set()  # of this process since the last log entry
        self._diverged = ""  # what this process has to say of its batches since then

    def saw(self, rows: Iterable[int], tokens: int) -> None:
        """Take note of what a batch holds."""
        self._tokens += tokens
        self._rows.update(rows)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of transformers, after a rise that leaves room for it."""
        if self.args.warmup_steps < 1:
            self.args.warmup_steps = rising(num_training_steps, self.args.warmup_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    def check_loss(self, loss: torch.Tensor, rows: Iterable[int]) -> None:
        """Raise `Diverged` for a batch's loss that is no number, or, where processes share a run, when it is logged."""
        if not torch.isfinite(loss):
            self._diverged = self._diverged or self._told("loss", "batch of", rows)
            if self.accelerator.num_processes == 1:
                raise Diverged(self._diverged)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add tokens and seconds so far to a step's log entry.

        Here the processes of a shared run hear of a loss that is no number in any of them: one that raised alone would
        leave the others waiting for its gradients. A gradient that is none is found here too: before a checkpoint of
        what it did to the weights is saved.
        """
        if "loss" in logs:
            last = self.state.log_history[-1] if self.state.log_history else {}
            now = time.perf_counter()
            if not math.isfinite(logs.get("grad_norm", 0.0)):
                self._diverged = self._diverged or self._told("gradient", "step over", self._rows)
            tokens, diverged = self._of_all_processes()
            if diverged:
                said = [self._diverged] * self.accelerator.num_processes
                if len(said) > 1:
                    torch.distributed.all_gather_object(said, self._diverged)
                raise Diverged("; ".join(filter(None, said)))
            logs["tokens"] = last.get("tokens", 0) + tokens
            logs["seconds"] = last.get("seconds", 0.0) + now - self._since
            self._tokens, self._since = 0, now
            self._rows.clear()
        super().log(logs, start_time)

    def _of_all_processes(self) -> tuple[int, int]:
        """Tokens that they have read since the last log entry, and how many of them diverged."""
        own = torch.tensor([self._tokens, bool(self._diverged)], device=self.args.device)
        tokens, diverged = self.accelerator.reduce(own).tolist()
        return tokens, diverged

    def _told(self, what: str, where: str, rows: Iterable[int]) -> str:
        """What is said where the loss or the gradient is no number: step, rows, and which weights are kept."""
        step = self.state.global_step + (what == "loss")  # the step of a loss is not counted yet
        named = ", ".join(str(row) for row in sorted(rows) if row >= 0)
        last = resume.newest(Path(self.args.output_dir or ""))
        kept = f"; the weights of step {resume.step_of(last)} are kept in {last}" if last else ""
        return (
            f"the {what} stopped being a number at step {step}, in the {where} {self.KIND} {named} (row numbers of "
            f"the data); look at them, or lower learning_rate {self.args.learning_rate:g}{kept}"
        )

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card: `training.json` says what was done."""

    def _send_telemetry(self) -> None:
        """trl would report each run to its authors; a training run calls nobody."""

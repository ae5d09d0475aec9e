"""What is kept while a run trains: checkpoints to resume from, and a warm-up's adapters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from training import resume
from training.warmup import RATES


class Saving(transformers.TrainerCallback):
    """Marks a checkpoint once all its files are written; saves none at the end, where the result itself is written."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            resume.mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class Keeping(transformers.TrainerCallback):
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

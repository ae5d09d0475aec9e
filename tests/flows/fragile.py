"""A tuning of all weights whose second worker comes to harm, as a marker file says; Ray's workers import it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers

from training.tuning.protocol import Setting
from training.tuning.whole import Whole

HARM_AT = 4  # steps done: right after a checkpoint


class Harm(transformers.TrainerCallback):
    """Notes the steps that every worker begins. Where `folder`/harm exists, what it says happens to worker 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        with (self.folder / f"steps-{args.process_index}").open("a") as steps:
            steps.write(f"{state.global_step}\n")
        marker = self.folder / "harm"
        if args.process_index != 1 or state.global_step != HARM_AT or not marker.exists():
            return
        if marker.read_text() == "dies":
            os._exit(1)
        with torch.no_grad():
            next(given["model"].parameters()).fill_(float("nan"))


@dataclass(frozen=True, slots=True)
class Fragile(Whole):
    """All weights are trained; `folder` holds the marker and the notes."""

    NAME: ClassVar[str] = "fragile"

    folder: str

    def callbacks(self, setting: Setting) -> list[Any]:
        return [Harm(Path(self.folder))]

"""What every tuning answers to: which weights move, and how the result is written."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from training.tuning.anatomy import Anatomy
from warehouse.records import Spec


@dataclass(frozen=True, slots=True)
class Setting:
    """The run that a tuning is part of, as it is known before the first step.

    seed     of the run; what a tuning draws follows from it, so that a resumed run draws the same
    steps    optimizer steps of the whole run
    batches  the batches of the run in their order, as often as it is called: `input_ids`, `labels` and either
             `attention_mask`, each (rows, length) on the processor, or, where rows are strung together,
             `position_ids`, each (1, tokens of all rows); the same in every process of a shared run
    """

    seed: int
    steps: int
    batches: Callable[[], Iterator[dict[str, Any]]]


class Tuning(Protocol):
    """A frozen dataclass of hyper-parameters. `training.tuning.whole.Whole` has the answers that most tunings share.

    check      raises `InputError` where it does not fit a model, as far as layers and linear modules tell
    prepare    the network as the trainer gets it, before trainer and optimizer are built: wrapped, partly frozen, ...
               torch's generator is seeded with the run's seed before
    arguments  what changes in trl's `SFTConfig`
    callbacks  transformers' `TrainerCallback`s
    optimizer  a class and its keywords (the run's learning rate is given as `lr`), or None for AdamW; the trainer saves
               its state and resumes from it
    write      writes the trained network (unwrapped, on its device) as whole weights, or as an adapter of `base`; an
               adapter that does not give the same logits on a clean base is replaced by merged weights afterwards
    """

    @property
    def spec(self) -> Spec: ...

    def check(self, model: Anatomy) -> None: ...

    def prepare(self, network: Any, setting: Setting) -> Any: ...

    def arguments(self) -> dict[str, Any]: ...

    def callbacks(self, setting: Setting) -> list[Any]: ...

    def optimizer(self, network: Any, setting: Setting) -> tuple[type, dict[str, Any]] | None: ...

    def write(self, network: Any, base: str, out: Path) -> None: ...


@runtime_checkable
class Stepping(Protocol):
    """A tuning that takes the place of the backward pass.

    `step` is called once per batch, in training mode, with the inputs on the device (`rows` among them) and the label
    tokens of the whole optimizer step, which is what `trainer.compute_loss(model, inputs, num_items_in_batch=labels)`
    divides by: losses of an optimizer step's batches add up to its loss. `trainer.state.global_step` counts finished
    steps; `trainer.accelerator.sync_gradients` is true in the last batch of a step. It returns the batch's loss,
    detached. The optimizer steps afterwards on whatever gradients there are.
    """

    def step(self, trainer: Any, model: Any, inputs: dict[str, Any], labels: Any) -> Any: ...

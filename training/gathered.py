"""The whole network of a run of which every process holds a part (FSDP, DeepSpeed)."""

from collections.abc import Callable
from typing import Any


def hold_whole(trainer: Any, fresh: Callable[[], Any]) -> None:
    """Make `trainer.model` of process 0 the whole trained network, where processes hold parts of it; all must call.

    `fresh` makes the network as it was before the first step, on one device.
    """
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model)
    elif trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    else:
        return
    if trainer.accelerator.is_main_process:
        whole = fresh()
        whole.load_state_dict(state)
        trainer.model = whole

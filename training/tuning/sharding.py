"""Where a tuning needs whole weights in every process."""

from typing import Any

import transformers

from warehouse.errors import InputError


class Unsharded(transformers.TrainerCallback):
    """Refuses FSDP and DeepSpeed, which replace the weights that a tuning has marked, and take its optimizer's place.

    The tuning would then do something else without a word: move columns that should stay, or forget its projections.
    """

    def __init__(self, tuning: str) -> None:
        self.tuning = tuning

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.fsdp or args.deepspeed:
            raise InputError(
                f"tuning {self.tuning!r} needs whole weights in every process, which fsdp and deepspeed spread; leave "
                "them out, or tune with full, hft or an adapter"
            )

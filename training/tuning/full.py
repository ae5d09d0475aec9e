"""All weights move."""

from dataclasses import dataclass
from typing import Any, ClassVar

from training.tuning.protocol import Setting
from training.tuning.whole import Whole


@dataclass(frozen=True, slots=True)
class Full(Whole):
    """Every weight is trained.

    keep_zeros  weights of linear layers that are exactly 0 stay 0: for a pruned base
    """

    NAME: ClassVar[str] = "full"

    keep_zeros: bool = False

    def prepare(self, network: Any, setting: Setting) -> Any:
        if self.keep_zeros:
            from training.tuning.zeros import keep_zeros

            keep_zeros(network)
        return network

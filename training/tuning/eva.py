"""EVA: LoRA whose first factor is taken from what the data does inside the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from training.tuning.adapters import Lora, adapted, save_adapter, weights_of
from training.tuning.protocol import Setting
from warehouse.errors import InputError

LOOKED_AT = 64  # of the run's first batches
MOST = 1000  # batches until the directions must have settled
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Eva(Lora):
    """EVA (Paischer et al. 2024): A begins as the main directions of each layer's inputs over the first batches.

    Layers whose inputs vary in more directions get a higher rank and others a lower one, up to `rho` times `rank`,
    the sum staying the same. Only tokens of replies are looked at where the batches have enough of them.
    """

    NAME: ClassVar[str] = "eva"

    rho: float = 2.0

    def prepare(self, network: Any, setting: Setting) -> Any:
        from peft import EvaConfig, initialize_lora_eva_weights

        given, by_labels = enough(setting, round(self.rank * self.rho))
        eva = EvaConfig(rho=self.rho, use_label_mask=by_labels)
        wrapped = adapted(network, self.config({"init_lora_weights": "eva", "eva_config": eva}))
        try:
            initialize_lora_eva_weights(
                wrapped, given, forward_fn=_Forward(), gather_distributed_inputs=False, show_progress_bar=False
            )
        except ValueError as error:
            raise InputError(f"tuning 'eva': the layers' inputs cannot be decomposed: {error}") from error
        return wrapped

    def write(self, network: Any, base: str, out: Path) -> None:
        config = network.active_peft_config
        config.init_lora_weights, config.eva_config = True, None  # the base is untouched: loading needs no data
        save_adapter(config, weights_of(network), base, out)


def enough(setting: Setting, tokens: int) -> tuple[list[dict[str, Any]], bool]:
    """The first batches with that many tokens each, and whether tokens of replies alone are as many.

    Raises `InputError` where no batch is so long.
    """
    first = list(islice(setting.batches(), LOOKED_AT))
    replies = [batch for batch in first if int((batch["labels"] != IGNORED).sum()) >= tokens]
    whole = [batch for batch in first if int(batch.get("attention_mask", batch["input_ids"] >= 0).sum()) >= tokens]
    if not whole:
        raise InputError(
            f"tuning 'eva' needs batches of at least {tokens} tokens (rank · rho); lower `rank` or raise batch_size"
        )
    return (replies, True) if replies else (whole, False)


class _Forward:
    """Runs the model on a batch, and gives up where the directions do not settle."""

    def __init__(self) -> None:
        self.batches = 0

    def __call__(self, network: Any, batch: Mapping[str, Any]) -> Any:
        self.batches += 1
        if self.batches > MOST:
            raise InputError(f"tuning 'eva' found no steady directions in {MOST} batches; lower `rank` or `rho`")
        return network(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False)

"""Writing what a run has made, so that loading it gives the trained network."""

from pathlib import Path
from typing import Any

import torch

from models.fingerprint import ADAPTER
from models.network import load_network
from training.sft import Sft

TOLERANCE = 1e-4  # of the largest logit: what float32 leaves of an exact reload
ROWS, TOKENS = 4, 64  # that are compared


def write(trainer: Any, sft: Sft, base: str, out: Path) -> dict[str, Any]:
    """Write weights, tokenizer and template under `out`; what was written, and how far its reload was from the network.

    An adapter is loaded on a clean base, as it will be, and its logits of some training rows are compared with those of
    the trained network. Where they differ, merged weights are written in its place. Whole weights are what is in
    memory, so they are not compared. Not `trainer.save_model`, which adds a pickle of its arguments.
    """
    network = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    trainer.processing_class.save_pretrained(out)
    sft.tuning.write(network, base, out)
    if not (out / ADAPTER).exists():
        return {"written": "weights", "reload_difference": None}
    first = trainer.train_dataset.select(range(min(ROWS, len(trainer.train_dataset))))
    ids = [row["input_ids"][:TOKENS] for row in first]
    difference, trained = compared(network, base, out, ids, sft.trust_remote_code)
    if difference <= TOLERANCE:
        return {"written": "adapter", "reload_difference": difference}
    for file in out.glob("adapter_*"):
        file.unlink()
    network.merge_and_unload().save_pretrained(out)
    again = reloaded(str(out), None, ids, sft.trust_remote_code, network.device)
    return {"written": "merged", "reload_difference": distance(trained, again)}


def compared(
    network: Any, base: str, adapter: Path, ids: list[list[int]], trust_remote_code: bool
) -> tuple[float, list[torch.Tensor]]:
    """How far the adapter on a clean base is from the trained network, and the latter's logits.

    Where the device does not hold both, the processor does: the network is moved there.
    """
    try:
        trained = logits(network, ids)
        return distance(trained, reloaded(base, adapter, ids, trust_remote_code, network.device)), trained
    except torch.OutOfMemoryError:
        network.cpu()
        torch.cuda.empty_cache()
    trained = logits(network, ids)
    return distance(trained, reloaded(base, adapter, ids, trust_remote_code, network.device)), trained


def reloaded(
    base: str, adapter: Path | None, ids: list[list[int]], trust_remote_code: bool, device: torch.device
) -> list[torch.Tensor]:
    """The logits of what lies on disk."""
    place = str(device) if device.type == "cuda" else device.type
    loaded = load_network(
        base, dtype="float32", device=place, adapter=adapter, trust_remote_code=trust_remote_code, revision="main"
    )
    return logits(loaded.network, ids)


def logits(network: Any, ids: list[list[int]]) -> list[torch.Tensor]:
    """The logits (length, vocabulary) of each row, alone."""
    with torch.inference_mode():
        return [network(input_ids=torch.tensor([row], device=network.device)).logits[0].float() for row in ids]


def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    """The largest difference of logits, as a share of the largest logit."""
    most = max(float(each.abs().max()) for each in a)
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True)) / most

"""What a run leaves behind beside its weights: the loss of every step as rows, and the facts of the run."""

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from training.cost import train_flops
from training.guard import Guarded
from training.sft import Sft

LOSS = "loss.parquet"
FACTS = "training.json"

LOSS_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("epoch", pa.float64()),  # passes over the rows so far
        ("loss", pa.float64()),  # nats per label token, of this step's rows before its update
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),  # before clipping
        ("tokens", pa.int64()),  # read so far, padding left out
        ("seconds", pa.float64()),  # spent so far
    ]
)


def write(out: Path, sft: Sft, trainer: Any, rows: Guarded, versions: Sequence[str]) -> None:
    """Write `loss.parquet` and `training.json` of a finished run."""
    curve = loss_curve(trainer.state.log_history, sft.epochs)
    pq.write_table(curve, out / LOSS)
    text = json.dumps(facts(sft, trainer, rows, curve) | {"versions": list(versions)}, indent=2)
    (out / FACTS).write_text(text + "\n", encoding="utf-8")


def loss_curve(history: Sequence[dict[str, Any]], epochs: float) -> pa.Table:
    """One row per optimizer step, from the trainer's log history, which counts the whole run as one epoch."""
    steps = [entry for entry in history if "loss" in entry]
    renamed = [e | {"epoch": e["epoch"] * epochs, "gradient_norm": e["grad_norm"]} for e in steps]
    return pa.Table.from_pylist([{name: entry[name] for name in LOSS_SCHEMA.names} for entry in renamed], LOSS_SCHEMA)


def facts(sft: Sft, trainer: Any, rows: Guarded, curve: pa.Table) -> dict[str, Any]:
    """What was read, dropped and spent. `flops` rests on real tokens; memory is the process's peak."""
    trainable, frozen = matrix_parameters(trainer.model)
    tokens = curve["tokens"][-1].as_py()
    return {
        "funnel": rows.funnel(),
        "rows_cut": rows.cut,
        "share_of_label_tokens_lost": rows.share_lost,
        "tokens_per_epoch": int(rows.lengths.sum()),
        "label_tokens_per_epoch": int(rows.label_tokens.sum()),
        "tokens": tokens,
        "steps": trainer.state.global_step,
        "seconds": curve["seconds"][-1].as_py(),
        "final_loss": curve["loss"][-1].as_py(),
        "trainable_parameters": trainable,
        "frozen_parameters": frozen,
        "flops": train_flops(trainable, tokens, frozen),
        "peak_memory_bytes": peak_memory(),
        "device": trainer.args.device.type,
        "precision": "bf16" if trainer.args.bf16 else "float32",
        "threads": torch.get_num_threads(),
        "trainer": dict(sft.spec.params),
    }


def matrix_parameters(model: Any) -> tuple[int, int]:
    """Trainable and frozen parameters that take part in matrix products: all but an input embedding of its own."""
    looked_up = model.get_input_embeddings().weight
    tied = looked_up is model.get_output_embeddings().weight
    counted = [p for p in model.parameters() if tied or p is not looked_up]
    trainable = sum(p.numel() for p in counted if p.requires_grad)
    return trainable, sum(p.numel() for p in counted) - trainable


def peak_memory() -> int:
    """Most resident memory this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

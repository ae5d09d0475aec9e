"""What a run leaves behind beside its weights: the loss of every step as rows, and the facts of the run."""

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.network import choose_dtype
from training.cost import train_flops
from training.guard import Guarded
from training.sft import Sft

LOSS = "loss.parquet"
FACTS = "training.json"
REPEATS = 4
LEFT_OUT = 0.1  # share of the rows from which on a run says that it did not learn from all of them

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


def write(out: Path, sft: Sft, trainer: Any, found: Mapping[str, Any]) -> None:
    """Write `loss.parquet` and, from its facts, `training.json` of a finished run."""
    pq.write_table(loss_curve(trainer.state.log_history, sft.epochs), out / LOSS)
    (out / FACTS).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def loss_curve(history: Sequence[dict[str, Any]], epochs: float) -> pa.Table:
    """One row per optimizer step, from the trainer's log history, which counts the whole run as one epoch."""
    steps = [entry for entry in history if "loss" in entry]
    renamed = [e | {"epoch": e["epoch"] * epochs, "gradient_norm": e["grad_norm"]} for e in steps]
    return pa.Table.from_pylist([{name: entry[name] for name in LOSS_SCHEMA.names} for entry in renamed], LOSS_SCHEMA)


def facts(sft: Sft, trainer: Any, rows: Guarded, begun: int) -> dict[str, Any]:
    """What was read, dropped and spent, where the run went on after `begun` steps of an earlier one.

    `flops` rests on real tokens; memory is the process's peak.
    """
    curve = loss_curve(trainer.state.log_history, sft.epochs)
    trainable, frozen = matrix_parameters(trainer.model)
    tokens = curve["tokens"][-1].as_py()
    return {
        "funnel": rows.funnel(),
        "rows_cut": rows.cut,
        "rows_unfinished": rows.unfinished,
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
        "bf16_native": choose_dtype("auto", trainer.args.device) == torch.bfloat16,
        "attention": trainer.model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "allocator": allocator(),
        "processes": trainer.args.world_size,
        "rows_at_once": trainer.args.per_device_train_batch_size,
        "gradient_accumulation": trainer.args.gradient_accumulation_steps,
        "notes": [
            *notes(sft, trainer.args.world_size, trainer.args.per_device_train_batch_size),
            *_left_out(rows, sft.max_length),
            *([f"goes on from step {begun}"] if begun else []),
        ],
        "trainer": dict(sft.spec.params),
    }


def notes(sft: Sft, processes: int, rows_at_once: int) -> list[str]:
    """What a reader of the run should know, in sentences."""
    said = []
    if sft.epochs > REPEATS:
        said.append(
            f"{sft.epochs:g} epochs: after {REPEATS} passes, seeing rows again adds little (Muennighoff et al. 2023); "
            "look at the loss of held-out rows"
        )
    if processes == 1 and rows_at_once < sft.batch_size:
        said.append(
            f"out of memory: {rows_at_once} rows at once instead of {sft.batch_size}, with as many rows per step"
        )
    return said


def _left_out(rows: Guarded, max_length: int) -> list[str]:
    """A sentence where more than `LEFT_OUT` of the rows could not be learnt from."""
    funnel = rows.funnel()
    if len(rows.numbers) >= (1 - LEFT_OUT) * funnel["rows_in"]:
        return []
    reasons = ", ".join(f"{len(found):,} {reason}" for reason, found in rows.rejected.items() if found)
    return [
        f"trained on {len(rows.numbers):,} of {funnel['rows_in']:,} rows, {reasons} (max_length is {max_length}): "
        "compare it with care to what was trained on all of its rows"
    ]


def allocator() -> str:
    """What hands out this process's memory: what is loaded before the C library's own, or that."""
    loaded = os.environ.get("LD_PRELOAD", "")
    return next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in loaded), "system")


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

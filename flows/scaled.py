"""What each worker of a shared training run does.

Loads Ray Train, torch, transformers and trl.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import ray.train
import torch
import transformers
from ray.train.v2.api.report_config import CheckpointConsistencyMode

from flows.scale import Shared, settle
from training.loop import carry_out, too_large
from training.world import World, shares
from warehouse.errors import InputError


class Reporting(transformers.TrainerCallback):
    """Hands each checkpoint to Ray, which merges what the workers saved, and waits until it counts.

    A checkpoint counts once Ray's controller has seen it; a worker that dies before would set the run back.
    """

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = ray.train.Checkpoint.from_directory(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        ray.train.report({"step": state.global_step}, saved, delete_local_checkpoint_after_upload=True)
        ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED)


def take_part(shared: Shared) -> None:
    """Train this worker's part of every step, from the last checkpoint that counts; the first worker writes the result.

    What is wrong with the input is written down before it is raised, and a group that finds it so does not try again.
    Where memory ran out, the next group has half the rows at once.
    """
    if shared.refused.exists():
        return
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    if world.rank == 0:
        settle(shared.checkpoints)
    scratch = shared.scratch(world.rank)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _train(shared, world, scratch)
    except InputError as error:
        _write(shared.refused, json.dumps({"reason": str(error)}), world)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _train(shared: Shared, world: World, scratch: Path) -> None:
    start = ray.train.get_checkpoint()
    sft, at_once = shared.sft, shared.rows_at_once
    try:
        carry_out(
            sft,
            shared.base,
            shared.data,
            shared.out,
            shared.seed,
            checkpoints=scratch,
            start=None if start is None else Path(start.path),
            rows_at_once=at_once,
            callbacks=[Reporting()],
            world=world,
        )
    except torch.OutOfMemoryError:
        rows, _ = shares(sft.step_rows, at_once, world.size)
        if rows == 1:
            raise too_large(sft) from None
        _write(shared.halved, str(rows // 2), world)
        raise


def _write(file: Path, text: str, world: World) -> None:
    """Whole or not at all: the group is ended as soon as one worker raises."""
    own = file.with_suffix(f".{world.rank}")
    own.write_text(text, encoding="utf-8")
    os.replace(own, file)

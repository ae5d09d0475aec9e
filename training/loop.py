"""One fine-tuning run on trl's `SFTTrainer`: rows and labels in, weights out.

Loads torch, transformers and trl.
"""

import gc
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets.table import InMemoryTable
from trl.data_utils import pack_dataset

from models.fingerprint import fetch
from models.network import Loaded, load_network
from models.tokens import load_tokenizer
from training import record, resume
from training.arguments import arguments
from training.gathered import hold_whole
from training.guard import IGNORED, Guarded, guard
from training.keeping import Keeping
from training.masked_thought import Masking
from training.order import order, within_steps
from training.quiet import quiet
from training.row_trainer import Extras, RowCollator, RowTrainer
from training.schedules import factor
from training.sft import Sft, check_alone
from training.strung import string_rows
from training.tuning.fitting import anatomy_of
from training.tuning.protocol import Setting
from training.warmup import KEPT
from training.world import ALONE, World, filled, shares
from training.written import write
from warehouse.errors import InputError
from warehouse.records import Dataset, Floats

# Attention written out is 2 times quicker than the fused kernel on a processor for short rows (bfloat16, heads of 32),
# but holds length² scores per head.
EAGER_LENGTH = 512
SHOWN = ("input_ids", "labels", "attention_mask", "position_ids")  # of a batch, to a tuning


# The libraries above leave a million objects that live as long as the process. Each run collects garbage once, which
# takes 0.2 s while those are looked at, and nothing when they are not.
gc.freeze()


def train(sft: Sft, base: str, data: Dataset, out: Path, seed: int, keep: int = 0) -> None:
    """Guard the rows, train, and write everything `Sft.__call__` promises under `out`.

    Goes on from the last whole checkpoint of the same run under `out`. Where memory runs out, it starts again from
    there with half the rows at once. `keep` adapters are kept on the way with the optimizer's state, as
    `training.warmup` says.
    """
    check_alone(sft)
    out.mkdir(parents=True, exist_ok=True)
    identity = resume.identity_of(sft, base, data, seed)
    rows_at_once = sft.batch_size
    while not _carried_out(sft, base, data, out, seed, identity, rows_at_once, keep):
        if rows_at_once == 1:
            raise too_large(sft)
        rows_at_once //= 2
        warnings.warn(f"out of memory: going on with {rows_at_once} rows at once, and as many per step", stacklevel=2)
        gc.collect()
        torch.cuda.empty_cache()
    resume.clear(out)


def too_large(sft: Sft) -> InputError:
    """To be raised where memory runs out with one row at once."""
    return InputError(
        f"one row at a time does not fit into memory; lower max_length {sft.max_length}, set "
        "gradient_checkpointing, or choose a tuning that moves fewer weights"
    )


def _carried_out(
    sft: Sft, base: str, data: Dataset, out: Path, seed: int, identity: str, rows_at_once: int, keep: int
) -> bool:
    """Whether the run ended; false where memory ran out."""
    start = resume.prepare(out, identity)
    try:
        carry_out(
            sft, base, data, out, seed,
            checkpoints=out / resume.FOLDER, start=start, rows_at_once=rows_at_once, keep=keep,
        )  # fmt: skip
    except torch.OutOfMemoryError:
        return False
    return True


def carry_out(
    sft: Sft,
    base: str,
    data: Dataset,
    out: Path,
    seed: int,
    *,
    checkpoints: Path,
    start: Path | None,
    rows_at_once: int | None = None,
    callbacks: Sequence[Any] = (),
    world: World = ALONE,
    keep: int = 0,
) -> None:
    """One attempt, from the checkpoint `start` or the beginning, as process `world.rank` of `world.size`.

    Checkpoints go to `checkpoints`, the result to `out`, which process 0 writes. `rows_at_once` rows (`batch_size` by
    default) are in memory at once; an optimizer step holds the same rows whatever they are and however many processes
    share it. `callbacks` are told what transformers tells its callbacks.
    """
    folder = fetch(base, trust_remote_code=sft.trust_remote_code)
    tokenizer, chat = load_tokenizer(folder, sft.template)
    longest = min(sft.max_length, positions(folder, sft.trust_remote_code))
    rows = guard(data.path, tokenizer, chat, longest, sft.response_only)
    begun = resume.steps_done(start)
    batch = shares(sft.step_rows, rows_at_once or sft.batch_size, world.size)
    with quiet():
        loaded = load(sft, base, chat.template)
        trainer = build(sft, loaded, rows, row_weights(data, rows), seed, checkpoints, batch, world)
        for callback in (*callbacks, *([Keeping(out / KEPT, keep)] if keep else [])):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
        hold_whole(trainer, lambda: prepared(sft, load(sft, base, chat.template), trainer.setting))
        if world.rank == 0:
            facts = record.facts(sft, trainer, rows, begun) | write(trainer, sft, base, out)
            record.write(out, sft, trainer, facts | {"versions": resume.versions()})


def positions(folder: Path, trust_remote_code: bool) -> int:
    """Tokens that the model's positions reach; unlimited where its configuration names no limit."""
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def load(sft: Sft, base: str, template: str) -> Loaded:
    """The base model with float32 weights on the training device, and its tokenizer with the chat template set."""
    loaded = load_network(
        base, dtype="float32", device="auto", adapter=None, trust_remote_code=sft.trust_remote_code, revision="main"
    )
    loaded.tokenizer.chat_template = template
    if loaded.tokenizer.pad_token is None:
        loaded.tokenizer.pad_token = loaded.tokenizer.eos_token
    length = sft.max_length * (sft.batch_size if sft.packing else 1)  # packs of one batch form one sequence
    if loaded.network.device.type == "cpu" and length <= EAGER_LENGTH:
        loaded.network.set_attn_implementation("eager")
    return loaded


def build(
    sft: Sft,
    loaded: Loaded,
    rows: Guarded,
    weights: Floats | None,
    seed: int,
    checkpoints: Path,
    batch: tuple[int, int],
    world: World = ALONE,
) -> RowTrainer:
    """The trainer, ready to train; `batch` is rows at once and batches per step, on each of the processes."""
    dataset = datasets.Dataset(InMemoryTable(rows.table))
    lengths = rows.lengths
    if sft.packing:
        dataset = pack_dataset(dataset, sft.max_length, "bfd")
        lengths = np.array([sum(pack) for pack in dataset["seq_lengths"]], np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    plan = order(lengths, sft.epochs, sft.step_rows, sft.group_by_length and not sft.packing, rng)
    pad, steps = loaded.tokenizer.pad_token_id, -(-len(plan) // sft.step_rows)
    strung = row_by_row(sft, loaded.network, RowCollator.of(pad, strung=True)) or sft.packing
    if not strung:
        plan = within_steps(plan, lengths, sft.step_rows)
    ordered = dataset.select(plan)
    setting = Setting(seed, steps, partial(batches, ordered, RowCollator.of(pad, strung), sft.batch_size))
    network = prepared(sft, loaded, setting)
    args = arguments(sft, loaded.network.device, checkpoints, seed, batch, strung, world)
    if (slots := world.size * batch[0] * batch[1]) != sft.step_rows or world.size > 1:
        dataset = with_filler(dataset, pad)
        ordered = dataset.select(filled(plan, sft.step_rows, slots, len(dataset) - 1))
    return RowTrainer(
        network, args, ordered, loaded.tokenizer, sft.tuning, setting, extras(sft, loaded, weights, setting)
    )


def row_by_row(sft: Sft, network: Any, collate: RowCollator) -> bool:
    """Whether rows are strung together and attended to one by one: on a processor, where the architecture allows it.

    Noise on embeddings is scaled by the length of a row, which transformers takes for that of the sequence; a network
    that is spread over devices is not there to be looked at.
    """
    spread = bool(sft.fsdp or sft.deepspeed)
    return network.device.type == "cpu" and not (sft.neftune or spread) and string_rows(network, collate)


def prepared(sft: Sft, loaded: Loaded, setting: Setting) -> Any:
    """The network as the tuning wants it, the same in every process. Raises `InputError` where it does not fit."""
    sft.tuning.check(anatomy_of(loaded.network))
    transformers.set_seed(setting.seed)
    return sft.tuning.prepare(loaded.network, setting)


def extras(sft: Sft, loaded: Loaded, weights: Floats | None, setting: Setting) -> Extras:
    """What this run adds to the trainer's own way."""
    tokenizer = loaded.tokenizer
    hides = tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    masking = Masking(sft.masked_thought, setting.steps, hides, setting.seed) if sft.masked_thought else None
    schedule = factor(sft.schedule, setting.steps, sft.warmup, sft.decay, sft.power_a, sft.power_b)
    return Extras(weights, masking, schedule)


def with_filler(rows: Any, pad: int) -> Any:
    """The rows and after them one without any label, which fills what is left of a step's last batches."""
    filler: dict[str, Any] = {"input_ids": [pad] * 2, "labels": [IGNORED] * 2, "rows": [-1] * 2, "seq_lengths": [2]}
    one = {name: [filler[name]] for name in rows.column_names}
    return datasets.concatenate_datasets([rows, datasets.Dataset.from_dict(one, features=rows.features)])


def batches(rows: Any, collate: RowCollator, size: int) -> Iterator[dict[str, Any]]:
    """The run's batches in order, as `Setting` promises them."""
    for start in range(0, len(rows), size):
        batch = collate(list(rows.select(range(start, min(start + size, len(rows))))))
        yield {name: value for name, value in batch.items() if name in SHOWN}


def row_weights(data: Dataset, rows: Guarded) -> Floats | None:
    """(rows in the file,) weights with mean 1 over the kept rows, or None where they are all the same.

    A row's weight is that of the dataset multiplied by the one in its `meta`.
    """
    n = rows.funnel()["rows_in"]
    weights = np.ones(n) if data.weights is None else np.array(data.weights, np.float64)
    if len(weights) != n:
        raise InputError(f"{data.path} has {n} rows but the dataset names {len(weights)} weights; give one per row")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError(f"{data.path}: every weight of a row must be finite and above 0")
    if rows.weights is not None:
        weights[rows.numbers] *= rows.weights
    kept = weights[rows.numbers]
    return None if (kept == kept[0]).all() else weights / kept.mean()

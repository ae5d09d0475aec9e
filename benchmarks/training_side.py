"""One training run of the benchmark, in a process whose peak memory is its own. Prints one JSON object.

python -m benchmarks.training_side {winnow,compiled,trl} CASE FOLDER SEED
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pyarrow.parquet as pq

from benchmarks.training_cases import CASES, Case, model_of, prepare, rows_of
from training.tuning.full import Full
from warehouse.records import Checkpoint, Dataset, Message, Messages, Spec

Side = Callable[[Case, Path, Path, int], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Compiled(Full):
    """All weights, on a network that torch compiles."""

    NAME: ClassVar[str] = "compiled"

    def arguments(self) -> dict[str, Any]:
        return {"torch_compile": True}


def by_winnow(case: Case, folder: Path, out: Path, seed: int, tuning: Full | None = None) -> dict[str, Any]:
    """`sft_tiny` with the settings of the case."""
    from training.loop import train
    from training.record import FACTS
    from training.sft import tiny

    trainer = tiny(epochs=case.epochs, tuning=tuning or Full(), **case.settings)
    data = Dataset(rows_of(case, folder, "pool"), "rows")
    start, processor = time.perf_counter(), busy_so_far()
    train(trainer, model_of(case, folder), data, out, seed)
    spent, busy = time.perf_counter() - start, busy_so_far() - processor
    facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    labels = round(facts["label_tokens_per_epoch"] * case.epochs)
    return told(spent, busy, facts["tokens"], labels, facts["steps"])


def by_trl(case: Case, folder: Path, out: Path, seed: int) -> dict[str, Any]:
    """`SFTTrainer` with its defaults, but for what a processor demands and what makes the losses comparable.

    Its rate, schedule, warm-up, rows a step and epochs are ours. It writes no checkpoints on the way, draws no
    progress bar and calls nobody, which is to its advantage.
    """
    from datasets import Dataset as Rows
    from transformers import AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from models.chat import TULU
    from models.fingerprint import fetch
    from training.sft import tiny

    ours = tiny(epochs=case.epochs, **case.settings)
    tokenizer: Any = AutoTokenizer.from_pretrained(fetch(model_of(case, folder)))
    tokenizer.chat_template = TULU
    start, processor = time.perf_counter(), busy_so_far()
    given: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": True,
        "bf16": False,
        "assistant_only_loss": True,
        "max_length": ours.max_length,
        "learning_rate": ours.learning_rate,
        "lr_scheduler_type": ours.schedule,
        "warmup_steps": ours.warmup,
        "num_train_epochs": case.epochs,
        "per_device_train_batch_size": ours.batch_size,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
    }
    rows = Rows.from_parquet(str(rows_of(case, folder, "pool")), cache_dir=str(out / "cache"))
    name = str(fetch(model_of(case, folder)))
    trainer = SFTTrainer(name, SFTConfig(**given), train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(out))
    spent, busy = time.perf_counter() - start, busy_so_far() - processor
    read: Any = trainer.train_dataset
    labels = sum(len(row) - 1 - row[1:].count(-100) for row in read["labels"])
    tokens, epochs = sum(map(len, read["input_ids"])), case.epochs
    return told(spent, busy, round(tokens * epochs), round(labels * epochs), trainer.state.global_step)


def told(seconds: float, processor: float, tokens: int, labels: int, steps: int) -> dict[str, Any]:
    """What a run spent; its peak of memory in bytes, the libraries included."""
    spent = {"seconds": seconds, "processor": processor, "peak": memory("VmHWM")}
    return spent | {"labels": labels, "steps": steps, "tokens_per_second": tokens / seconds}


def busy_so_far() -> float:
    """Processor seconds of this process and of the compilers that it started."""
    return sum(os.times()[:4])


def memory(field: str) -> int:
    """Bytes of resident memory of this process, now (VmRSS) or at most so far (VmHWM); Linux alone tells."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status holds no {field}")


def held_out_loss(model: Path, path: Path, base: str) -> float:
    """Nats per reply token of a tuned model on the rows of `path`, every token counted alike, in float32."""
    from models.likelihood import LOGPROBS
    from models.local import load_checkpoint

    local = load_checkpoint(Checkpoint(model, base, Spec("sft", {}), "", 0), dtype="float32", device="cpu")
    found = local.measure(rows(path), LOGPROBS).response_logprobs or ()
    return -float(sum(reply.sum() for reply in found)) / sum(len(reply) for reply in found)


def rows(path: Path) -> list[Messages]:
    stored = pq.read_table(path)["messages"].to_pylist()
    return [tuple(Message(turn["role"], turn["content"]) for turn in row) for row in stored]


SIDES: Mapping[str, Side] = {"winnow": by_winnow, "compiled": partial(by_winnow, tuning=Compiled()), "trl": by_trl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("case", choices=[case.name for case in CASES])
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    given = parser.parse_args()
    [case] = [one for one in CASES if one.name == given.case]
    prepare(case, given.folder)
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        found = SIDES[given.side](case, given.folder, out, given.seed)
        found["loss"] = held_out_loss(out, rows_of(case, given.folder, "test"), model_of(case, given.folder))
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    main()

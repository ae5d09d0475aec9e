"""The training stage: one set of rows, one seed, one checkpoint; and the pruned copy of a base model to start from."""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.recipes import Stage, Train
from flows.run import Counts, Run
from flows.scale import scaled
from flows.scale_recipe import Scale
from flows.workers import Workers
from models.fingerprint import ADAPTER, fingerprint, read_json
from training.dpo import Dpo
from training.sft import Sft
from training.table import TRAINERS
from warehouse.errors import InputError
from warehouse.pair_files import PAIRS_FILE
from warehouse.records import Dataset, canonical
from warehouse.store import ROWS_FROM, TRAINED_ON, Artifact, Draft, Work
from warehouse.tables import CHECKPOINT, LOSSES, SELECTED_FILE, write_rows
from warehouse.trained_rows import weights_of

TRAIN_VERSION = 3
PRUNE_VERSION = 1
WEIGHTS = "model"
FACTS = "training.json"
BLENDED_FILE = "rows.parquet"  # of a stage `blend`


@dataclass(frozen=True, slots=True)
class Start:
    """The weights that a training run starts from.

    model        name or folder of a whole model, or folder of a checkpoint
    told         what the view `checkpoints` calls it
    fingerprint  of its content
    made         role and key of the artifact that it is, where it is one; no adapter is left that refers to it
    """

    model: str
    told: str
    fingerprint: str
    made: tuple[str, str] | None = None

    @classmethod
    def of(cls, chosen: Train) -> "Start":
        """The base model that a recipe names."""
        return cls(chosen.base, chosen.base, fingerprint(chosen.base))

    @classmethod
    def after(cls, checkpoint: Artifact) -> "Start":
        """What a training stage before made."""
        weights = checkpoint.folder / WEIGHTS
        base = adapted(weights)
        content = fingerprint(str(weights)) if base is None else fingerprint(base, adapter=weights)
        return cls(str(weights), f"checkpoint:{checkpoint.key}", content, ("checkpoint", checkpoint.key))


@dataclass(frozen=True, slots=True)
class Order:
    """One training run as it is sent to a worker. `scratch` is kept until it is done, so that a killed one resumes.

    `rows` is the key of the artifact that holds `data`.
    """

    checkpoint: str
    trainer: str
    params: dict[str, Any]
    start: Start
    rows: str
    data: Dataset
    seed: int
    scratch: Path
    trust_remote_code: bool
    scale: Scale | None


def trainer(chosen: Train) -> Sft:
    """The trainer a recipe names. Raises `InputError` for an unknown name or parameter, listing the known ones."""
    made = trainer_of(chosen.trainer, chosen.params, chosen.trust_remote_code)
    if not isinstance(made, Sft):
        raise InputError(
            f"trainer {chosen.trainer!r} learns from preference pairs, and what is selected are conversations: give it "
            "in `then`, with the pairs as its `rows`"
        )
    return made


def trainer_of(name: str, params: Mapping[str, Any], trust_remote_code: bool) -> Sft | Dpo:
    """Any trainer of the table. Raises `InputError` as `trainer` does."""
    if name not in TRAINERS:
        raise InputError(f"unknown trainer {name!r}; known trainers: {', '.join(TRAINERS)}")
    kind = type(TRAINERS[name]())
    known = list(getattr(kind, "__dataclass_fields__", {}))
    if unknown := set(params) - set(known):
        raise InputError(f"trainer {name!r} has no parameter {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    made = TRAINERS[name](**dict(params) | ({"trust_remote_code": True} if trust_remote_code else {}))
    assert isinstance(made, Sft | Dpo)  # every entry of the table is one, with other defaults
    return made


def later(stage: Stage, chosen: Train) -> Sft | Dpo:
    """The trainer of a stage of `then`, in the chat format of the first. Raises `InputError` for another format."""
    template = trainer(chosen).template
    made = trainer_of(stage.trainer, {"template": template} | stage.params, chosen.trust_remote_code)
    if made.template != template:
        raise InputError(
            f"`then` trains with the template {made.template!r} and the stage before with {template!r}; a model is "
            "asked in one chat format: give both the same"
        )
    return made


def train(run: Run, name: str, chosen: Train, selection: Artifact, seed: int, workers: Workers) -> Artifact:
    """Tune the base model, or its pruned copy, on the rows of `selection`; what `then` and `merge` say is not done."""
    made = trainer(chosen)
    return tune(run, name, made, start_of(run, chosen, workers), selection, seed, chosen, workers)


def tune(
    run: Run,
    name: str,
    trainer: Sft | Dpo,
    start: Start,
    rows: Artifact,
    seed: int,
    chosen: Train,
    workers: Workers,
) -> Artifact:
    """One training run, as the tables `checkpoints` and `losses` and as weights in the folder `model`.

    Its key is a function of what is read of `rows` (`data_of`), so the same rows of another artifact find it. Its
    manifest names the one that it was trained on.
    """
    spec, data = trainer.spec, data_of(rows)
    inputs = {"data": data.key} | (dict([start.made]) if start.made else {})
    work = Work("train", TRAIN_VERSION, {"trainer": spec.name, "params": dict(spec.params)}, inputs,
                start.fingerprint, seed)  # fmt: skip
    order = Order(
        checkpoint=work.key,
        trainer=spec.name,
        params=dict(spec.params),
        start=start,
        rows=rows.key,
        data=data,
        seed=seed,
        scratch=run.store.home / "tmp" / f"train-{work.key}",
        trust_remote_code=chosen.trust_remote_code,
        scale=chosen.scale if isinstance(trainer, Sft) else None,
    )
    if order.scale:
        workers.start()
    if chosen.scale and not order.scale:
        run.listener.say(f"{name}: `scale` shares supervised tuning alone; this stage runs in one process")
    # workers of a shared run need the processors that a worker of ours would hold while it waits for them
    made = run.stage(name, work, partial(_train, order), None if order.scale else workers)
    for note in made.manifest["facts"].get("notes", ()):
        run.listener.say(f"{name}: {note}")
    return made


def start_of(run: Run, chosen: Train, workers: Workers) -> Start:
    """The weights that all training of a recipe starts from: its base model, pruned where it says so."""
    if chosen.prune is None:
        return Start.of(chosen)
    work = Work("prune", PRUNE_VERSION, {"share": chosen.prune}, model=fingerprint(chosen.base))
    make = partial(_prune, chosen.base, chosen.prune, chosen.trust_remote_code)
    made = run.stage(f"prune {Path(chosen.base).name}", work, make, workers)
    folder = str(made.folder / WEIGHTS)
    return Start(folder, f"{chosen.base} pruned by {chosen.prune:g}", fingerprint(folder), ("pruned", made.key))


def _prune(base: str, share: float, trust_remote_code: bool, draft: Draft) -> Counts:
    from training.prune import prune

    facts = prune(base, share, draft.folder / WEIGHTS, trust_remote_code=trust_remote_code)
    return Counts(facts.weights, facts.weights - facts.zeros, {"weights set to zero": facts.zeros})


def data_of(rows: Artifact) -> Dataset:
    """What a training run reads of a selection, mixture, blend or pairs, under the key of that alone.

    Conversations in their order (of a selection: best first) and their weights where they are not all alike, or pairs.
    """
    key = str(rows.manifest["facts"][TRAINED_ON])
    if rows.stage == "pairs":
        return Dataset(rows.folder / PAIRS_FILE, key, "preference")
    path = rows.folder / (BLENDED_FILE if rows.stage == "blend" else SELECTED_FILE)
    return Dataset(path, key, weights=weights_of(path))


def _train(order: Order, draft: Draft) -> Counts:
    weights = carried_out(partial(_continued, order), order.start.model, order.data, order.seed, order.scratch, draft)
    facts = facts_of(weights)
    write_rows(draft.folder / "checkpoint.parquet", CHECKPOINT, [_row(order, facts)])
    losses = pq.read_table(weights / "loss.parquet")
    known = losses.select([name for name in LOSSES.names if name in losses.column_names])
    rows = [{"checkpoint": order.checkpoint} | row for row in known.to_pylist()]
    write_rows(draft.folder / "losses.parquet", LOSSES, rows)
    draft.facts |= {"notes": facts.get("notes", []), ROWS_FROM: order.rows}
    return funnel(facts)


def _continued(order: Order, base: str, data: Dataset, out: Path, seed: int) -> None:
    """Train from `base`, of which an adapter that the stage before left is merged into its own base first.

    What starts from an artifact is written whole: an adapter would name a folder of this home as its base.
    """
    from training.merge_files import write_whole

    trainer = TRAINERS[order.trainer](**order.params)
    whole = out.with_name("start")
    if (named := adapted(Path(base))) is not None:
        write_whole(named, Path(base), whole, order.trust_remote_code)
        base = str(whole)
    if order.scale is None:
        trainer(base, data, out, seed)
    else:
        scaled(trainer, base, data, out, seed, order.scale)
    if order.start.made and adapted(out) is not None:
        write_whole(base, out, out, order.trust_remote_code)
        for file in out.glob("adapter_*"):
            file.unlink()
        told = json.dumps(facts_of(out) | {"written": "merged"}, indent=2)
        (out / FACTS).write_text(told + "\n", encoding="utf-8")
    shutil.rmtree(whole, ignore_errors=True)


def carried_out(
    trainer: Callable[[str, Dataset, Path, int], object],
    base: str,
    data: Dataset,
    seed: int,
    scratch: Path,
    draft: Draft,
) -> Path:
    """Train in a folder that outlives a killed process, and move the result into the draft: its folder there."""
    with working_folder(scratch, draft.folder) as folder:
        trainer(base, data, folder, seed)
        shutil.move(folder, draft.folder / WEIGHTS)
    return draft.folder / WEIGHTS


def adapted(folder: Path) -> str | None:
    """The base of the adapter in `folder`; None where there is no adapter."""
    config = folder / ADAPTER
    return str(read_json(config)["base_model_name_or_path"]) if config.exists() else None


def facts_of(weights: Path) -> dict[str, Any]:
    """What a training run says of itself."""
    facts: dict[str, Any] = json.loads((weights / FACTS).read_text())
    return facts


def funnel(facts: Mapping[str, Any]) -> Counts:
    """Rows that a training run was given and those it trained on."""
    dropped = dict(facts["funnel"])
    rows_in, kept = dropped.pop("rows_in"), dropped.pop("kept")
    return Counts(rows_in, kept, {reason: n for reason, n in dropped.items() if n})


@contextlib.contextmanager
def working_folder(lasting: Path, private: Path) -> Iterator[Path]:
    """A folder that outlives a killed process, so that training resumes; a private one while another run uses that."""
    lasting.mkdir(parents=True, exist_ok=True)
    with (lasting.with_suffix(".lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield private / "work"
            return
        yield lasting / "work"
        shutil.rmtree(lasting, ignore_errors=True)
        lasting.with_suffix(".lock").unlink()


def _row(order: Order, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "checkpoint": order.checkpoint,
        "base": order.start.told,
        "base_fingerprint": order.start.fingerprint,
        "trainer": order.trainer,
        "params": canonical(order.params),
        "data": order.data.key,
        "seed": order.seed,
        "rows": facts["funnel"]["kept"],
        "tokens": facts["tokens"],
        "label_tokens": round(facts["label_tokens_per_epoch"] * facts["trainer"]["epochs"]),
        "steps": facts["steps"],
        "seconds": facts["seconds"],
        "flops": float(facts["flops"]),
        "peak_memory_bytes": facts["peak_memory_bytes"],
        "precision": facts["precision"],
    }

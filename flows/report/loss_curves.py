"""How training went: the loss of every checkpoint, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.book import Book
from flows.report.chosen import Pick, Picks

STAGE_BEFORE = "checkpoint:"  # before the key, where a stage starts from a checkpoint
POINTS = 120  # of one curve
ARMS = 24


@dataclass(frozen=True, slots=True)
class Curve:
    """The loss of one checkpoint in nats per label token, as (optimizer step, loss)."""

    seed: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Training:
    """The curves of a method at one budget, or of a later stage of its training, and what it cost over all seeds.

    `notes` are what the runs say of themselves, by seed where they do not all say it.
    """

    arm: str
    method: str
    curves: tuple[Curve, ...]
    seeds: int
    rows: int
    tokens: int
    seconds: float
    flops: float
    base: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingSection:
    trainings: tuple[Training, ...] = ()
    left_out: int = 0


def training_of(book: Book, picks: Picks) -> TrainingSection:
    """One entry per method, budget and stage of training, in the order of the selections."""
    picked = _by_rows(book, picks)
    rows = book.rows("SELECT * FROM checkpoints WHERE checkpoint = ANY(?) ORDER BY seed", book.keys("train"))
    known = {row["checkpoint"]: row for row in rows}
    arms: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        first, stage = _first(row, known)
        for arm in picked.get((first["data"], first["seed"]), ()):
            arms.setdefault((arm, stage), []).append(row)
    stages = sorted({stage for _, stage in arms})
    ordered = [(pick, stage) for pick in picks.firsts for stage in stages if (pick.arm, stage) in arms]
    shown = ordered[:ARMS]
    losses = _losses(book, [row["checkpoint"] for pick, stage in shown for row in arms[pick.arm, stage]])
    trainings = tuple(_training(book, pick, stage, arms[pick.arm, stage], losses) for pick, stage in shown)
    return TrainingSection(trainings, max(0, len(ordered) - ARMS))


def _by_rows(book: Book, picks: Picks) -> dict[tuple[str, int], list[str]]:
    """The arms that train on the same rows with the same seed, by the key of the rows and the seed."""
    keys = [pick.key for pick in picks.picks]
    data = {each["selection"]: each["data"] for each in
            book.rows("SELECT selection, data FROM selections WHERE selection = ANY(?)", keys)}  # fmt: skip
    found: dict[tuple[str, int], list[str]] = {}
    for pick in picks.picks:
        found.setdefault((data[pick.key], pick.seed), []).append(pick.arm)
    return found


def _first(row: dict[str, Any], known: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], int]:
    """The checkpoint that the stages up to `row` began with, and the number of its stage."""
    stage = 1
    while (before := known.get(row["base"].removeprefix(STAGE_BEFORE))) is not None:
        row, stage = before, stage + 1
    return row, stage


def _losses(book: Book, checkpoints: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Checkpoint to (step, loss), in order, thinned to about `POINTS`."""
    rows = book.rows(
        """SELECT checkpoint, list({'step': step, 'loss': loss} ORDER BY step) AS points FROM losses
           WHERE checkpoint = ANY(?) AND isfinite(loss) GROUP BY ALL""",
        list(checkpoints),
    )
    return {row["checkpoint"]: _thinned([(p["step"], p["loss"]) for p in row["points"]]) for row in rows}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every n-th point, and always the last."""
    kept = points[:: max(1, -(-len(points) // POINTS))]
    return kept if kept[-1:] == points[-1:] else [*kept, points[-1]]


def _notes(book: Book, checkpoints: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What training noted in the manifests: out of memory, too many passes, a run that goes on from a step."""
    said: dict[str, list[int]] = {}
    for row in checkpoints:
        made = book.artifact("train", row["checkpoint"])
        for note in made.manifest["facts"].get("notes", ()) if made else ():
            said.setdefault(note, []).append(row["seed"])
    return tuple(
        note if len(seeds) == len(checkpoints) else f"{note} (seed {', '.join(map(str, seeds))})"
        for note, seeds in said.items()
    )


def _training(
    book: Book,
    pick: Pick,
    stage: int,
    checkpoints: Sequence[dict[str, Any]],
    losses: Mapping[str, Sequence[tuple[int, float]]],
) -> Training:
    logged = [row for row in checkpoints if row["checkpoint"] in losses]
    return Training(
        arm=pick.arm if stage == 1 else f"{pick.arm}, stage {stage}",
        method=pick.method,
        curves=tuple(Curve(row["seed"], tuple(losses[row["checkpoint"]])) for row in logged),
        seeds=len(checkpoints),
        rows=sum(row["rows"] for row in checkpoints),
        tokens=sum(row["tokens"] for row in checkpoints),
        seconds=sum(row["seconds"] for row in checkpoints),
        flops=sum(row["flops"] for row in checkpoints),
        base=checkpoints[0]["base"],
        notes=_notes(book, checkpoints),
    )

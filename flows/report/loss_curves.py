"""How training went: the loss of every checkpoint, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.book import Book
from flows.report.chosen import Pick, Picks

POINTS = 120  # of one curve
ARMS = 24


@dataclass(frozen=True, slots=True)
class Curve:
    """The loss of one checkpoint in nats per label token, as (optimizer step, loss)."""

    seed: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Training:
    """All curves of one method at one budget, and what its training cost over all seeds."""

    arm: str
    method: str
    curves: tuple[Curve, ...]
    seeds: int
    rows: int
    tokens: int
    seconds: float
    flops: float
    base: str


@dataclass(frozen=True, slots=True)
class TrainingSection:
    trainings: tuple[Training, ...] = ()
    left_out: int = 0


def training_of(book: Book, picks: Picks) -> TrainingSection:
    """One entry per method and budget that was trained on, in the order of the selections."""
    by_key = {pick.key: pick for pick in picks.picks}
    arms: dict[str, list[dict[str, Any]]] = {}
    rows = book.rows("SELECT * FROM checkpoints WHERE checkpoint = ANY(?) ORDER BY seed", book.keys("train"))
    for row in rows:
        if row["data"] in by_key:
            arms.setdefault(by_key[row["data"]].arm, []).append(row)
    ordered = [pick for pick in picks.firsts if pick.arm in arms]
    shown = ordered[:ARMS]
    losses = _losses(book, [row["checkpoint"] for pick in shown for row in arms[pick.arm]])
    trainings = tuple(_training(pick, arms[pick.arm], losses) for pick in shown)
    return TrainingSection(trainings, max(0, len(ordered) - ARMS))


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


def _training(
    pick: Pick, checkpoints: Sequence[dict[str, Any]], losses: Mapping[str, Sequence[tuple[int, float]]]
) -> Training:
    logged = [row for row in checkpoints if row["checkpoint"] in losses]
    return Training(
        arm=pick.arm,
        method=pick.method,
        curves=tuple(Curve(row["seed"], tuple(losses[row["checkpoint"]])) for row in logged),
        seeds=len(checkpoints),
        rows=sum(row["rows"] for row in checkpoints),
        tokens=sum(row["tokens"] for row in checkpoints),
        seconds=sum(row["seconds"] for row in checkpoints),
        flops=sum(row["flops"] for row in checkpoints),
        base=checkpoints[0]["base"],
    )

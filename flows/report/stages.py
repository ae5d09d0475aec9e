"""The funnel of rows and the time each stage took."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from flows.report.book import Book, Stage
from flows.report.text import Excerpt, excerpt, label
from warehouse.store import Artifact

EXAMPLES = 20
STEPS = 80  # lines of a table


@dataclass(frozen=True, slots=True)
class Step:
    """Stages that differ in their seed alone: rows in and out of one of them, and the sum of their seconds."""

    title: str
    kind: str
    stages: int
    computed: int
    seconds: float
    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]

    @property
    def makes_rows(self) -> bool:
        return self.rows_in == 0 and self.rows_out > 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not imported."""

    location: str
    reason: str
    detail: Excerpt


@dataclass(frozen=True, slots=True)
class Excluded:
    """A candidate kept out because a target or test row asks the same."""

    row: int
    reason: str
    other_row: int
    text: Excerpt


@dataclass(frozen=True, slots=True)
class Funnel:
    """Steps with rows in and out; examples of rejects and excluded candidates, and how many there are in all."""

    steps: tuple[Step, ...]
    left_out: int
    rejected: tuple[Rejected, ...]
    rejects: int
    excluded: tuple[Excluded, ...]
    exclusions: int


@dataclass(frozen=True, slots=True)
class Timings:
    """`steps` by the order they began; `wall` is from the first stage's start to the last one's end."""

    steps: tuple[Step, ...]
    left_out: int
    stages: int
    computed: int
    seconds: float
    wall: float


def candidates(book: Book) -> int | None:
    """Rows of the pool that were not excluded, where the run had an overlap stage."""
    return next((stage.rows_out for stage in book.stages if stage.kind == "overlap"), None)


def timings_of(book: Book) -> Timings:
    """Seconds and cache hits per step."""
    steps = _steps(book.stages, lambda stage: stage.title)
    begun, ended = [s.begun for s in book.stages], [s.begun + s.seconds for s in book.stages]
    return Timings(
        steps=steps[:STEPS],
        left_out=max(0, len(steps) - STEPS),
        stages=len(book.stages),
        computed=sum(stage.computed for stage in book.stages),
        seconds=sum(stage.seconds for stage in book.stages),
        wall=max(ended) - min(begun) if ended else 0.0,
    )


def funnel_of(book: Book) -> Funnel:
    """Rows in and out per step, and what became of those that were dropped."""
    stages = [stage for stage in book.stages if stage.kind != "compare"]  # that one counts arms, not rows
    steps = _steps(stages, lambda stage: (stage.title, stage.rows_in, stage.rows_out, tuple(stage.dropped.items())))
    rejected, rejects = _rejected(book)
    excluded, exclusions = _excluded(book)
    return Funnel(steps[:STEPS], max(0, len(steps) - STEPS), rejected, rejects, excluded, exclusions)


def _steps(stages: Sequence[Stage], alike: Callable[[Stage], Hashable]) -> tuple[Step, ...]:
    groups: dict[Hashable, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(alike(stage), []).append(stage)
    return tuple(map(_step, groups.values()))


def _step(stages: list[Stage]) -> Step:
    first = stages[0]
    return Step(
        title=label(first.title),
        kind=first.kind,
        stages=len(stages),
        computed=sum(stage.computed for stage in stages),
        seconds=sum(stage.seconds for stage in stages),
        rows_in=first.rows_in,
        rows_out=first.rows_out,
        dropped={label(reason): n for reason, n in first.dropped.items() if n},
    )


def _rejected(book: Book) -> tuple[tuple[Rejected, ...], int]:
    """Examples in turns over the reasons, so that a frequent one does not hide the others."""
    keys = book.keys("ingest")
    rows = book.rows(
        """SELECT location, reason, detail FROM rejects WHERE pool = ANY(?)
           ORDER BY row_number() OVER (PARTITION BY reason ORDER BY pool, location), reason LIMIT ?""",
        keys,
        EXAMPLES,
    )
    total = book.rows("SELECT count(*) AS n FROM rejects WHERE pool = ANY(?)", keys)[0]["n"]
    examples = (Rejected(label(row["location"]), label(row["reason"]), excerpt(row["detail"], 200, 0)) for row in rows)
    return tuple(examples), total


def _excluded(book: Book) -> tuple[tuple[Excluded, ...], int]:
    """From the run's own artifact: the view `excluded` does not say for which target or test set a row was found."""
    made = [found for key in book.keys("overlap") if (found := book.artifact("overlap", key)) is not None]
    pairs = [_examples(book, artifact) for artifact in made]
    examples = [example for shown, _ in pairs for example in shown]
    return tuple(examples[:EXAMPLES]), sum(total for _, total in pairs)


def _examples(book: Book, artifact: Artifact) -> tuple[list[Excluded], int]:
    table = pq.read_table(artifact.folder / "drops.parquet")
    rows = table.slice(0, EXAMPLES).to_pylist()
    texts = _prompts(book, str(artifact.manifest["inputs"].get("pool")), [row["row"] for row in rows])
    shown = [
        Excluded(row["row"], label(row["reason"]), row["other_row"], excerpt(texts.get(row["row"]), 160, 0))
        for row in rows
    ]
    return shown, len(set(table["row"].to_pylist()))


def _prompts(book: Book, pool: str, rows: list[int]) -> dict[int, str]:
    found = book.rows(
        """SELECT "row", list_filter(messages, lambda turn: turn.role = 'user')[1].content AS text
           FROM samples WHERE pool = ? AND "row" = ANY(?)""",
        pool,
        rows,
    )
    return {row["row"]: row["text"] for row in found}

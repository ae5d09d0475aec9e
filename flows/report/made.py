"""What models wrote in this run: each synthesis with its funnel, its bill, how new its rows are, and some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.report.book import Book, Stage
from flows.report.synthesis_bill import Bill, bill_of
from flows.report.synthesis_methods import FactTable, fact_table, recipes_of
from flows.report.synthesis_novelty import Novelty, novelty_of
from flows.report.synthesis_reasons import refused_because
from flows.report.synthesis_rows import Group, groups_of
from flows.report.text import excerpt, label
from warehouse.records import canonical
from warehouse.store import Artifact

PARAMS_CHARS = 300
RACED = "open_recipe"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows refused for one reason. `share` is of all rows that were made, accepted or refused."""

    reason: str
    words: str
    rows: int
    share: float


@dataclass(frozen=True, slots=True)
class Pooled:
    """What became of the accepted rows: `rows` came into the pool version, `dropped` by filter, the first that found
    a row; `kept` are the others. `cleaned` says whether any filter looked at that pool."""

    pool: str
    rows: int
    dropped: Mapping[str, int]
    cleaned: bool

    @property
    def kept(self) -> int:
        return self.rows - sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class Synthesis:
    """One synthesis of the run. `models` by role; without any it has neither bill nor novelty nor rows to show.

    `seeds` is the number of rows it started from, None where it starts from none.
    """

    key: str
    title: str
    params: str
    models: Mapping[str, str]
    computed: bool
    seeds: int | None
    accepted: int
    refusals: tuple[Refusal, ...]
    pooled: Pooled | None
    bill: Bill | None
    novelty: Novelty | None
    groups: tuple[Group, ...]
    table: FactTable | None

    @property
    def kept(self) -> int:
        """Accepted rows that came into the pool and that no filter dropped; all of them where no pool is known."""
        return self.accepted if self.pooled is None else self.pooled.kept

    @property
    def refused(self) -> int:
        return sum(refusal.rows for refusal in self.refusals)

    @property
    def made(self) -> int:
        return self.accepted + self.refused


@dataclass(frozen=True, slots=True)
class Made:
    """All syntheses of the run, and the recipes that their rows name beside each other."""

    syntheses: tuple[Synthesis, ...] = ()
    recipes: FactTable | None = None


def made_of(book: Book) -> Made:
    """The run's syntheses in the order they started; none where no model was asked in any of them."""
    stages = {stage.key: stage for stage in book.stages if stage.kind == "synthesize"}
    found = [(stage, made) for stage in stages.values() if (made := book.artifact("synthesize", stage.key)) is not None]
    asked = sum(bool(_models(made)) for _, made in found)
    if not asked:
        return Made()
    names = [str(made.manifest["params"].get("synthesizer")) for _, made in found]
    syntheses = tuple(_synthesis(book, stage, made, names, asked) for stage, made in found)
    raced = [stage.key for (stage, _), name in zip(found, names, strict=True) if name == RACED]
    return Made(syntheses, recipes_of(book, raced) if raced else None)


def _models(made: Artifact) -> dict[str, str]:
    """The model of each role, as a person names it."""
    return {label(role): label(name) for role, name in made.manifest["facts"].get("models", {}).items()}


def _synthesis(book: Book, stage: Stage, made: Artifact, names: Sequence[str], asked: int) -> Synthesis:
    models, name = _models(made), str(made.manifest["params"].get("synthesizer"))
    seeds = made.manifest["inputs"].get("seeds")
    return Synthesis(
        key=stage.key,
        title=label(name) if names.count(name) == 1 else f"{label(name)} {stage.key[:8]}",
        params=excerpt(canonical(made.manifest["params"].get("params", {})), PARAMS_CHARS, 0).head,
        models=models,
        computed=stage.computed,
        seeds=next((each.rows_out for each in book.stages if each.key == seeds), None),
        accepted=stage.rows_out,
        refusals=_refusals(stage),
        pooled=_pooled(book, stage.key),
        bill=bill_of(book, stage.key) if models else None,
        novelty=novelty_of(book, made) if models else None,
        groups=groups_of(book, made, asked) if models else (),
        table=fact_table(book, name, stage.key) if models else None,
    )


def _refusals(stage: Stage) -> tuple[Refusal, ...]:
    """The most frequent reason first."""
    made = max(1, stage.rows_out + sum(stage.dropped.values()))
    counts = sorted(((n, reason) for reason, n in stage.dropped.items() if n), key=lambda pair: (-pair[0], pair[1]))
    return tuple(Refusal(label(reason), refused_because(reason), n, n / made) for n, reason in counts)


def _pooled(book: Book, key: str) -> Pooled | None:
    """Accepted rows in the last pool version of the run that was made from them; None where there is none."""
    pools = [pool for pool in book.keys("ingest") if key in _synthesized(book, pool)]
    if not pools:
        return None
    filters = book.keys("clean") + book.keys("overlap")
    book.connection.execute("CREATE OR REPLACE TEMP TABLE ours AS " + _OURS, [pools[-1], key])
    dropped = book.rows(
        """SELECT filter, count(*) AS n FROM (
               SELECT DISTINCT ON ("row") "row", filter FROM drops
               WHERE pool = ? AND cleaning = ANY(?) AND "row" IN (SELECT "row" FROM ours)
               ORDER BY "row", list_position(?, cleaning))
           GROUP BY ALL ORDER BY n DESC, filter""",
        pools[-1],
        filters,
        filters,
    )
    cleaned = any((made := book.artifact(stage.kind, stage.key)) is not None and
                  made.manifest["inputs"].get("pool") == pools[-1]
                  for stage in book.stages if stage.key in filters)  # fmt: skip
    rows = book.rows("SELECT count(*) AS n FROM ours")[0]["n"]
    return Pooled(pools[-1], rows, {label(row["filter"]): row["n"] for row in dropped}, cleaned)


# A row has no number of its own before it is in a pool, and two rows may be alike: the k-th such row of the pool is
# taken for the k-th such row that was made.
_OURS = """
    SELECT pooled."row" FROM (
        SELECT "row", sample_id, source, row_number() OVER (PARTITION BY sample_id, source ORDER BY "row") AS k
        FROM samples WHERE pool = ?) pooled
    JOIN (
        SELECT sample_id, source, row_number() OVER (PARTITION BY sample_id, source ORDER BY "row") AS k
        FROM generations WHERE generation = ?) made USING (sample_id, source, k)"""


def _synthesized(book: Book, pool: str) -> Sequence[str]:
    made = book.artifact("ingest", pool)
    keys: Sequence[str] = [] if made is None else made.manifest["inputs"].get("synthesized", [])
    return keys

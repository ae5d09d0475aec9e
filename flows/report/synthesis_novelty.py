"""How new the prompts of synthesized rows are: the cosine of character trigrams with the nearest prompt of a seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.report.book import Book
from flows.report.synthesis_accepted import Written, drawn, prompt_of
from selection.trigrams import trigrams
from warehouse.records import Floats
from warehouse.store import Artifact

ROWS = 500  # accepted rows that are compared
SEEDS = 10_000  # seeds that they are compared with; those a row was made from are always among them
AT_ONCE = 50
CLOSE = 0.7
BINS = 20


@dataclass(frozen=True, slots=True)
class Novelty:
    """`counts` over `edges` (b + 1,) of the highest cosine of each of `rows` accepted rows, drawn from `of`.

    1 is a seed's own set of trigrams. `close` counts those above `CLOSE`, `same` those whose prompt is a seed's to the
    letter. `seeds` of `of_seeds` seeds were compared.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    close: int
    same: int
    rows: int
    of: int
    seeds: int
    of_seeds: int


def novelty_of(book: Book, made: Artifact) -> Novelty | None:
    """None where there are no seeds, they were pruned, or nothing was accepted."""
    rows = drawn(book, made, ROWS)
    prompts, of_seeds = _seeds(book, made, rows)
    if not rows or not prompts:
        return None
    own = [prompt_of(row.messages) for row in rows]
    known = set(prompts)
    highest = nearest(own, prompts)
    edges = np.linspace(0, 1, BINS + 1)
    of = book.rows("SELECT count(*) AS n FROM generations WHERE generation = ?", made.key)[0]["n"]
    return Novelty(
        edges=tuple(edges.tolist()),
        counts=tuple(np.histogram(highest, edges)[0].tolist()),
        median=float(np.median(highest)),
        close=int((highest > CLOSE).sum()),
        same=sum(prompt in known for prompt in own),
        rows=len(rows),
        of=of,
        seeds=len(prompts),
        of_seeds=of_seeds,
    )


def nearest(texts: Sequence[str], others: Sequence[str]) -> Floats:
    """(n,) the highest trigram cosine of each text with any of `others`, in [0, 1]. There must be others."""
    mine, theirs = trigrams(texts), trigrams(others).T.tocsr()
    blocks = (mine[at : at + AT_ONCE] @ theirs for at in range(0, len(texts), AT_ONCE))
    parts = [block.max(axis=1).toarray().ravel() for block in blocks]
    highest: Floats = np.concatenate([np.zeros(0), *parts])
    return np.minimum(highest, 1.0)


def _seeds(book: Book, made: Artifact, rows: Sequence[Written]) -> tuple[list[str], int]:
    """Prompts of at most `SEEDS` seeds, the seeds of `rows` first, then at random; and how many seeds there are."""
    key = made.manifest["inputs"].get("seeds")
    kind = next((stage.kind for stage in book.stages if stage.key == key), "")
    if kind not in ("ingest", "select"):
        return [], 0
    table = "samples WHERE pool" if kind == "ingest" else "selected WHERE selection"
    of = book.rows(f"SELECT count(*) AS n FROM {table} = ?", key)[0]["n"]
    found = book.rows(
        f"""SELECT messages FROM {table} = ?
            ORDER BY NOT sample_id = ANY(?), md5(? || sample_id), "row" LIMIT ?""",
        key,
        sorted({parent for row in rows for parent in row.parents}),
        book.run,
        SEEDS,
    )
    return [prompt_of(row["messages"]) for row in found], of

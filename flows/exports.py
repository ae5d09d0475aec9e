"""`winnow export`: a selection, or a whole cleaned pool, in the formats that trainers read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse import bundles, named
from warehouse.ask import ask, connect
from warehouse.bundles import SAVED
from warehouse.export import Row, export_rows, save
from warehouse.pools import BATCH_ROWS, PoolReader, examples_of

POOL_MARK = "pool:"
TYPES: dict[str, pa.DataType] = {
    "rank": pa.int64(), "score": pa.float64(), "weight": pa.float64(), "reason": pa.string(), "row": pa.int64(),
    "licence": pa.string(),
}  # fmt: skip
CHOICE = """SELECT s.method, s.budget, s.seed, s.direction, s.pool, any_value(p.name || '@' || p.version) AS name
    FROM selections s LEFT JOIN pools p USING (pool) WHERE selection = ? GROUP BY ALL"""
LAST_RUN = "SELECT max(run) FROM stages JOIN filters f ON f.cleaning = key WHERE f.pool = $1"
LAST_DROPS = f"""SELECT DISTINCT "row" FROM drops
    WHERE pool = $1 AND cleaning IN (SELECT key FROM stages WHERE run = ({LAST_RUN}))"""


@dataclass(frozen=True, slots=True)
class Hand:
    """What is handed out: rows with the values of the columns added to them, and what is known of where they came from.

    `notes` are sentences for whoever trains on them.
    """

    rows: Iterable[Row]
    columns: Sequence[str]
    about: Mapping[str, str]
    notes: Sequence[str] = field(default=())


def export_named(home: Path, text: str, out: Path, form: str, bundle: bool, repeat_weights: bool) -> str:
    """Write what `text` names (a selection, or `pool:` and a pool) to `out`; says what was written.

    Raises `InputError` for a name that means nothing here, and as `export` does.
    """
    if text.startswith(POOL_MARK):
        hand = _cleaned(home, text.removeprefix(POOL_MARK))
    else:
        hand = _chosen(home, named.selection(home, text), repeat_weights)
    types = {name: TYPES[name] for name in hand.columns}
    if bundle:
        n = bundles.write(hand.rows, out, form, types, hand.about, hand.notes)
    elif form == SAVED:
        n = save(hand.rows, out, types, inputs=[home])
    else:
        n = export_rows(hand.rows, out, form, types, inputs=[home])
    return "\n".join([f"wrote {n:,} rows to {out}", *hand.notes])


def _chosen(home: Path, key: str, repeat_weights: bool) -> Hand:
    """The rows of a selection, best first; a weight stands beside each, or repeats it, where weights differ."""
    path = home / "artifacts" / "select" / key / "selected.parquet"
    method, budget, seed, direction, pool, name = ask(home, CHOICE, [key]).rows[0]
    about = {
        "selection": key,
        "method": f"{method}, budget {budget:,}, seed {seed}; scores: {direction}",
        "pool": f"{name or 'no longer in the home'} ({pool})",
    }
    weights = pq.read_table(path, columns=["weight"])["weight"].to_numpy()
    columns = ["rank", "score", "weight", "reason", "row", "licence"]
    if len(weights) == 0 or weights.min() == weights.max():
        columns.remove("weight")
        return Hand(_read(path, columns), columns, about)
    if not repeat_weights:
        note = "Rows have weights (column `weight`). A trainer that knows none treats all alike: see --repeat-weights."
        return Hand(_read(path, columns), columns, about, [note])
    columns.remove("weight")
    counts = bundles.repeats(weights)
    note = (
        f"Weights are written as repeated rows: {int((counts > 1).sum()):,} rows stand here more than once, and "
        f"{int((counts == 0).sum()):,} of the lightest not at all."
    )
    return Hand(_repeated(_read(path, columns), counts), columns, about, [note])


def _repeated(rows: Iterable[Row], counts: NDArray[np.int64]) -> Iterator[Row]:
    for row, count in zip(rows, counts.tolist(), strict=True):
        yield from [row] * count


def _cleaned(home: Path, text: str) -> Hand:
    """The rows of a pool that the last run over it did not drop, in the pool's order."""
    version = named.pool(home, text)
    reader = PoolReader(version.folder(home))
    alive = np.ones(reader.n, np.bool_)
    with connect(home) as connection:
        dropped = connection.execute(LAST_DROPS, [version.key]).fetchnumpy()["row"]
    alive[dropped] = False
    columns = ["licence"]
    files = ((file.path, alive[file.first : file.first + file.n]) for file in reader.files)
    rows = (row for path, keep in files for row, kept in zip(_read(path, columns), keep.tolist(), strict=True) if kept)
    about = {"pool": f"{version} ({version.key})", "dropped in cleaning": f"{len(dropped):,} of {version.n:,} rows"}
    return Hand(rows, columns, about)


def _read(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The examples of one file and the values of `columns` beside them, read in parts."""
    return zip(examples_of(path), _values(path, columns), strict=True)


def _values(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
            yield from batch.to_pylist()

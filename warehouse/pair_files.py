"""Files of preference pairs: reading what a user names, and the Parquet file that a trainer is given."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import InputError
from warehouse.json_text import dumps
from warehouse.pool_writer import message_lists
from warehouse.pools import Funnel
from warehouse.preferences import LAYOUTS, NoPair, Pair, PairInterpreter, PairReason, holds_pairs
from warehouse.readers import read
from warehouse.records import Dataset, Message, digest
from warehouse.rejects import Refused, excerpt
from warehouse.sources import Part, Source, content, pinned
from warehouse.tables import MESSAGES, REJECTS

PAIRS_FILE, REJECTS_FILE = "pairs.parquet", "rejects-0.parquet"  # where the view `rejects` looks
PROBE_ROWS = 100
GROUP_ROWS = 8192
PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("source", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),  # one assistant turn each, as trl reads them
        ("rejected", MESSAGES),
        ("meta", pa.string()),
    ]
)

Placed = tuple[str, Pair | NoPair]


def probe_pairs(source: Source) -> None:
    """Read the first rows of every part of `source`. Raises `InputError` where none has the columns of pairs."""
    for part in source.parts:
        head = [row for _, row in islice(read(part, lambda note: None), PROBE_ROWS) if isinstance(row, dict)]
        if not any(holds_pairs({name.casefold(): None for name in row}) for row in head):
            found = ", ".join(head[0]) if head else "no rows"
            raise InputError(f"{part.name}: found {found}. {LAYOUTS}")


def read_pairs(source: Source) -> Iterator[Placed]:
    """Every row of `source` as a pair, or why there is none, with its place (`a.jsonl:12`, `a.parquet row 12`).

    Raises `InputError` where a part cannot be read.
    """
    rows = (placed for part in source.parts for placed in _pairs(part))
    return islice(rows, source.skip, source.stop)


def _pairs(part: Part) -> Iterator[Placed]:
    interpreter = PairInterpreter(part.label)
    for place, row in read(part, lambda note: None):
        found = NoPair(row.reason, row.detail) if isinstance(row, Refused) else interpreter(row)
        yield f"{part.title}{place}", found


def content_of(source: Source) -> str:
    """Changes iff what `source` holds, or the part of it that is read, may have: its files' bytes, no path."""
    parts = [content(pinned(part)) for part in source.parts]
    return digest(json.dumps([parts, source.skip, source.limit]))


def write_pairs(sources: Sequence[Source], out: Path, held_out: Set[str] = frozenset()) -> tuple[Dataset, Funnel]:
    """Write the pairs of `sources`, in their order, to `out` as `pairs.parquet`, what is none as `rejects-0.parquet`.

    Pairs whose prompt has one of the `prompt_id`s `held_out` are rejected: they ask what a test row asks.
    The data set's key is a function of its pairs alone. Memory is bounded by a row group. Raises `InputError` where no
    row is a pair.
    """
    out.mkdir(parents=True, exist_ok=True)
    ids: list[str] = []
    rejects: list[dict[str, str]] = []
    with pq.ParquetWriter(out / PAIRS_FILE, PAIRS, compression="zstd") as file:
        placed = (each for source in sources for each in read_pairs(source))
        for group in _grouped(_kept_out(place, pair, held_out) for place, pair in placed):
            pairs = [pair for _, pair in group if isinstance(pair, Pair)]
            rejects += [_reject(place, none) for place, none in group if isinstance(none, NoPair)]
            ids += [pair.pair_id for pair in pairs]
            file.write_table(_table(pairs))
    dropped = Counter(reject["reason"] for reject in rejects)
    if not ids:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common()) or "there were none"
        raise InputError(f"no row of {', '.join(source.text for source in sources)} is a pair ({reasons}). {LAYOUTS}")
    pq.write_table(pa.Table.from_pylist(rejects, REJECTS), out / REJECTS_FILE, compression="zstd")
    dataset = Dataset(out / PAIRS_FILE, digest("\n".join(ids)), "preference")
    return dataset, Funnel(len(ids) + len(rejects), len(ids), dict(sorted(dropped.items())))


def _grouped(placed: Iterator[Placed]) -> Iterator[list[Placed]]:
    while group := list(islice(placed, GROUP_ROWS)):
        yield group


def _kept_out(place: str, pair: Pair | NoPair, held_out: Set[str]) -> Placed:
    if isinstance(pair, Pair) and held_out and pair.prompt_id in held_out:
        return place, NoPair(PairReason.HELD_OUT, excerpt(pair.prompt[-1].content))
    return place, pair


def _reject(place: str, none: NoPair) -> dict[str, str]:
    return {"source": "", "location": place, "reason": str(none.reason), "detail": none.detail}


def _table(pairs: Sequence[Pair]) -> pa.Table:
    columns = {
        "pair_id": [pair.pair_id for pair in pairs],
        "source": [pair.source for pair in pairs],
        "prompt": message_lists([pair.prompt for pair in pairs]),
        "chosen": message_lists([(Message("assistant", pair.chosen),) for pair in pairs]),
        "rejected": message_lists([(Message("assistant", pair.rejected),) for pair in pairs]),
        "meta": [dumps(dict(pair.meta)) for pair in pairs],
    }
    return pa.table(columns, schema=PAIRS)

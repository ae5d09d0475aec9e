"""Pools: import of instruction data into the artifact that everything reads, and reading it back."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.formats import Interpreter, known_formats, recognise
from warehouse.pool_writer import POOL_SCHEMA, REJECTS_SCHEMA, SAMPLES_SCHEMA, PoolWriter, Prepared, prepare
from warehouse.readers import read
from warehouse.records import Example, Message
from warehouse.rejects import Reason, Refused, excerpt
from warehouse.sources import Part, Source, locate

__all__ = [
    "POOL_SCHEMA", "REJECTS_SCHEMA", "SAMPLES_SCHEMA", "Funnel", "PoolReader", "ingest", "probe", "write_pool",
]  # fmt: skip

PROBE_ROWS = 100
PROGRESS_ROWS = 4096
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Funnel:
    """Rows in, rows kept, and rows dropped by reason. `notes` says what was left out of rows that were kept."""

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.rows_in != self.rows_out + sum(self.dropped.values()):
            raise ValueError(f"a funnel leaks: {self.rows_in} in, {self.rows_out} out, dropped {dict(self.dropped)}")


def probe(source: Source | str) -> None:
    """Read the first rows of every part of `source`. Raises `InputError` where there are none or no format fits."""
    source = _located(source)
    empty = [_probe_part(part) for part in source.parts]
    if all(empty):
        raise InputError(f"{source.text} is empty: no rows found")


def _probe_part(part: Part) -> bool:
    """Whether `part` is empty."""
    head = list(islice(read(part, lambda note: None), PROBE_ROWS))
    rows = [row for _, row in head if isinstance(row, dict)]
    if not head or any(recognise(tuple(row)).layouts for row in rows):
        return not head
    if rows:
        found = ", ".join(rows[0]) or "none"
        raise InputError(f"{part.name}: no known format has these columns: {excerpt(found)}.\n{known_formats()}")
    place, refused = head[0]
    raise InputError(
        f"{part.name}: none of the first {len(head)} rows can be read; {part.name}{place}: "
        f"{getattr(refused, 'reason', '')}, {getattr(refused, 'detail', '')}"
    )


def _located(source: Source | str) -> Source:
    return locate(source) if isinstance(source, str) else source


def ingest(
    sources: Sequence[Source | str],
    out: Path,
    *,
    pool_key: str,
    name: str,
    on_rows: Progress | None = None,
) -> Funnel:
    """Import `sources`, in order, into the pool artifact `out`: the same sources give the same rows in the same order.

    `on_rows` is told the rows read so far, now and then. Every row that is not kept is a reject with its reason. Raises
    `InputError` before anything is written where a source is missing, empty or of no known format, and at the end where
    no row was kept; the caller throws `out` away then.
    """
    located = [_located(source) for source in sources]
    _refuse_repeats(located)
    for source in located:
        probe(source)
    notes: dict[str, None] = {}
    with PoolWriter(out, pool_key) as writer:
        for source in located:
            rows = chain.from_iterable(_part_rows(part, notes) for part in source.parts)
            for label, location, row in islice(rows, source.skip, source.stop):
                _write(writer, label, location, row)
                if on_rows and writer.rows_in % PROGRESS_ROWS == 0:
                    on_rows(writer.rows_in)
    return _finish(writer, name, notes, on_rows)


def _refuse_repeats(sources: Sequence[Source]) -> None:
    if not sources:
        raise InputError("no source of rows was given; name a file, a folder or a hub data set")
    seen: set[Part] = set()
    for source in sources:
        if repeated := seen & set(source.parts):
            raise InputError(f"{source.text} holds {next(iter(repeated)).name}, which another source names already")
        seen |= set(source.parts)


def _part_rows(part: Part, notes: dict[str, None]) -> Iterator[tuple[str, str, Prepared | Refused]]:
    """(label, location, row) of each row of one file."""
    interpret = Interpreter(part.label)
    for place, row in read(part, lambda note: notes.setdefault(f"{part.name}: {note}")):
        yield part.label, part.name + place, _prepared(interpret, row)
    notes |= {f"{part.name}: {note}": None for note in interpret.notes}


def _prepared(interpret: Interpreter, row: dict[str, Any] | Refused) -> Prepared | Refused:
    if isinstance(row, Refused):
        return row
    example = interpret(row)
    if isinstance(example, Refused):
        return example
    prepared = prepare(example)
    if isinstance(prepared, Prepared) and interpret.repeats(row):
        return Refused(Reason.DUPLICATE_ID, excerpt(str(example.meta.get("id", ""))))
    return prepared


def _write(writer: PoolWriter, label: str, location: str, row: Prepared | Refused) -> None:
    if isinstance(row, Refused):
        writer.reject(label, location, row)
    else:
        writer.keep(row)


def _finish(writer: PoolWriter, name: str, notes: Iterable[str], on_rows: Progress | None) -> Funnel:
    if not writer.kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in writer.dropped.most_common()) or "there were none"
        raise InputError(f"{name}: none of {writer.rows_in} rows could be kept ({reasons})")
    writer.write_summary(name)
    if on_rows:
        on_rows(writer.rows_in)
    dropped = {str(reason): count for reason, count in sorted(writer.dropped.items())}
    return Funnel(writer.rows_in, writer.kept, dropped, tuple(notes))


def write_pool(
    examples: Iterable[Example], out: Path, *, pool_key: str, name: str, on_rows: Progress | None = None
) -> Funnel:
    """Write `examples` (generated rows) as a pool artifact, under the same laws and rejects as imported ones.

    Raises `InputError` at the end where no row was kept.
    """
    with PoolWriter(out, pool_key) as writer:
        for row, example in enumerate(examples):
            _write(writer, example.source, f"row {row}", prepare(example))
            if on_rows and writer.rows_in % PROGRESS_ROWS == 0:
                on_rows(writer.rows_in)
    return _finish(writer, name, (), on_rows)


class PoolReader:
    """Reads a pool artifact. Columns come in row order; rows by number, touching only the row groups they lie in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = sorted(folder.glob("samples-*.parquet"))
        if not self._paths:
            raise InputError(f"{folder} is no pool: it has no samples-*.parquet")

    @cached_property
    def n(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _groups(self) -> list[tuple[Path, int, int]]:
        """(file, row group in it, rows) of every row group, in row order."""
        groups = []
        for path in self._paths:
            metadata = pq.read_metadata(path)
            groups += [(path, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
        return groups

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """(groups + 1,): the first row of each row group, then n."""
        return np.cumsum([0, *(rows for _, _, rows in self._groups)], dtype=np.int64)

    def column(self, name: str) -> NDArray[Any]:
        """(n,) values of one column: numbers, or object strings. Raises `KeyError` for `messages` and unknown names."""
        if name not in SAMPLES_SCHEMA.names or name == "messages":
            raise KeyError(f"no flat column {name!r}; there are {', '.join(set(SAMPLES_SCHEMA.names) - {'messages'})}")
        table = pa.concat_tables(pq.read_table(path, columns=[name]) for path in self._paths)
        values: NDArray[Any] = table.column(name).to_numpy()
        return values

    def sample_ids(self) -> NDArray[np.bytes_]:
        """(n,) S32."""
        return self.column("sample_id").astype("S32")

    def prompt_ids(self) -> NDArray[np.bytes_]:
        """(n,) S32."""
        return self.column("prompt_id").astype("S32")

    def sources(self) -> NDArray[np.object_]:
        """(n,) source labels."""
        return self.column("source")

    def keys(self) -> NDArray[np.uint64]:
        """(n,) first 64 bits of each `sample_id`: their order is the ids' lexicographic order."""
        firsts = self.sample_ids().astype("S16").tobytes()
        return np.frombuffer(bytes.fromhex(firsts.decode("ascii")), dtype=">u8").astype(np.uint64)

    def examples(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Example]:
        """The examples in `rows`, in that order. Raises `IndexError` for a row that the pool does not have."""
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.n:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a pool of {self.n}")
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        found: dict[int, Example] = {}
        for group in np.unique(group_of):
            inside = np.unique(wanted[group_of == group])
            found |= zip(inside.tolist(), self._read(int(group), inside - self._starts[group]), strict=True)
        return [found[row] for row in wanted.tolist()]

    def batches(self, size: int) -> Iterator[tuple[int, list[Example]]]:
        """(first row, its examples) of consecutive batches of `size` rows; memory is bounded by a row group."""
        held: list[Example] = []
        first = 0
        for group in range(len(self._groups)):
            held += self._read(group)
            while len(held) >= size:
                yield first, held[:size]
                held, first = held[size:], first + size
        if held:
            yield first, held

    def _read(self, group: int, positions: NDArray[np.int64] | None = None) -> list[Example]:
        path, index, _ = self._groups[group]
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(index, columns=["messages", "source", "meta"])
        return list(map(_example, (table if positions is None else table.take(positions)).to_pylist()))


def _example(row: Mapping[str, Any]) -> Example:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
    return Example(messages, row["source"], json.loads(row["meta"]))

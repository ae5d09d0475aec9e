"""Pools: the artifact that everything reads, made of shards, and reading it back.

A pool version holds `pool.parquet` (one row about the whole) and hard links to the files of its shards:
`samples-<first row>.parquet` and `rejects-<shard>.parquet`. The name of a file says where its rows stand, so versions
share what they have in common and a version needs nothing but its own folder.
"""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse.ahead import ahead
from warehouse.errors import InputError
from warehouse.formats import known_formats, recognise
from warehouse.pool_writer import REJECTS_FILE, SAMPLES_FILE, SUMMARY_FILE
from warehouse.readers import read
from warehouse.records import Example, Message
from warehouse.rejects import excerpt
from warehouse.sources import POOL_FILE, File, Part, SavedDataset, Source, locate
from warehouse.tables import POOL, SAMPLES, ids_of

PROBE_ROWS = 100
NO_END = 2**62
PART_CHARS = 2**28  # of rows in memory at once where they are asked for in another order than the pool's
BATCH_ROWS = 2048
READING = 8  # row groups at once, at most: unpacking text is what reading rows costs
ROW_DIGITS = 12  # of the first row in a file's name: names sort as rows do


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


def probe(source: Source | str, *, unanswered: bool = False) -> None:
    """Read the first rows of every part of `source`. Raises `InputError` where there are none or no format fits.

    With `unanswered` rows may lack the reply.
    """
    source = _located(source)
    empty = [_probe_part(part, unanswered) for part in source.parts]
    if all(empty):
        raise InputError(f"{source.text} is empty: no rows found")


def _probe_part(part: Part, unanswered: bool) -> bool:
    """Whether `part` is empty."""
    head = list(islice(read(part, lambda note: None), PROBE_ROWS))
    rows = [row for _, row in head if isinstance(row, dict)]
    if not head or any(recognise(tuple(row), unanswered).layouts for row in rows):
        return not head
    if rows:
        found = ", ".join(rows[0]) or "none"
        known = known_formats(unanswered)
        raise InputError(f"{part.name}: no known format has these columns: {excerpt(found)}.\n{known}")
    place, refused = head[0]
    raise InputError(
        f"{part.name}: none of the first {len(head)} rows can be read; {part.name}{place}: "
        f"{getattr(refused, 'reason', '')}, {getattr(refused, 'detail', '')}"
    )


def _located(source: Source | str) -> Source:
    return locate(source) if isinstance(source, str) else source


def check_sources(sources: Sequence[Source], *, unanswered: bool = False) -> None:
    """Raise `InputError` where a source is missing, empty or of no known format, or where two name the same rows.

    With `unanswered` rows may lack the reply.
    """
    if not sources:
        raise InputError("no source of rows was given; name a file, a folder or a hub data set")
    seen: dict[Any, list[range]] = {}
    for source in sources:
        for part in source.parts:
            window, place = _window(source), _place(part)
            if any(_meet(window, other) for other in seen.get(place, [])):
                raise InputError(f"{source.text} holds {part.name}, which another source names already")
            seen.setdefault(place, []).append(window)
        probe(source, unanswered=unanswered)


def _place(part: Part) -> Any:
    """What two names of the same rows agree in."""
    match part:
        case File():
            return part.path.resolve()
        case SavedDataset():
            return part.folder.resolve()
    return part


def _window(source: Source) -> range:
    """The rows of a part that `source` may take: of several parts it is not known which window falls into which."""
    if len(source.parts) > 1 or source.stop is None:
        return range(source.skip if len(source.parts) == 1 else 0, NO_END)
    return range(source.skip, source.stop)


def _meet(first: range, second: range) -> bool:
    return first.start < second.stop and second.start < first.stop


def assemble(shards: Sequence[Path], out: Path, *, pool_key: str, name: str) -> Funnel:
    """Make the pool artifact `out` of finished shards, in their order, by hard links (copies where there are none).

    Raises `InputError` where no row was kept; the caller throws `out` away then.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows_in = kept = 0
    dropped, sources = Counter[str](), Counter[str]()
    notes: dict[str, None] = {}
    for place, shard in enumerate(shards):
        summary = json.loads((shard / SUMMARY_FILE).read_text(encoding="utf-8"))
        if summary["kept"]:
            link(shard / SAMPLES_FILE, out / f"samples-{kept:0{ROW_DIGITS}}.parquet")
        if summary["dropped"]:
            link(shard / REJECTS_FILE, out / f"rejects-{place:06}.parquet")
        rows_in, kept = rows_in + summary["rows_in"], kept + summary["kept"]
        dropped.update(summary["dropped"])
        sources.update(summary["sources"])
        notes |= dict.fromkeys(summary["notes"])
    if not kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common()) or "there were none"
        raise InputError(f"{name}: none of {rows_in} rows could be kept ({reasons})")
    row = {
        "pool": pool_key,
        "name": name,
        "n": kept,
        "sources": [{"source": source, "rows": rows} for source, rows in sorted(sources.items())],
        "rows_in": rows_in,
        "rejected": dropped.total(),
        "made": datetime.now(UTC),
    }
    pq.write_table(pa.Table.from_pylist([row], schema=POOL), out / POOL_FILE, compression="zstd")
    return Funnel(rows_in, kept, dict(sorted(dropped.items())), tuple(notes))


def link(file: Path, name: Path) -> None:
    """Give `file` the second name `name`, or copy it where the file system has no hard links."""
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(file, name)


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of consecutive rows of a pool: rows `first` to `first` + `n`."""

    path: Path
    first: int
    n: int


class PoolReader:
    """Reads a pool artifact. Columns come in row order; rows by number, touching only the row groups they lie in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = sorted(folder.glob("samples-*.parquet"))
        if not self._paths:
            raise InputError(f"{folder} is no pool: it has no samples-*.parquet")

    @property
    def n(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def files(self) -> list[RowFile]:
        """The files of the pool, in row order."""
        firsts = [int(path.stem.removeprefix("samples-")) for path in self._paths]
        counts = np.diff([*firsts, firsts[-1] + pq.read_metadata(self._paths[-1]).num_rows])
        return [RowFile(*file) for file in zip(self._paths, firsts, counts.tolist(), strict=True)]

    @cached_property
    def _groups(self) -> list[tuple[Path, int]]:
        """(file, row group in it) of every row group, in row order."""
        return [(path, group) for path in self._paths for group in range(pq.read_metadata(path).num_row_groups)]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """(groups + 1,): the first row of each row group, then n."""
        metadata = [pq.read_metadata(path) for path in self._paths]
        sizes = [found.row_group(group).num_rows for found in metadata for group in range(found.num_row_groups)]
        return np.cumsum([0, *sizes], dtype=np.int64)

    def column(self, name: str) -> NDArray[Any]:
        """(n,) values of one column: numbers, or object strings. Raises `KeyError` for `messages` and unknown names."""
        return np.asarray(self._column(name).to_numpy())

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in SAMPLES.names or name == "messages":
            raise KeyError(f"no flat column {name!r}; there are {', '.join(set(SAMPLES.names) - {'messages'})}")
        tables = (pq.read_table(path, columns=[name], partitioning=None) for path in self._paths)
        return pa.concat_tables(tables).column(name)

    def sample_ids(self) -> NDArray[np.bytes_]:
        """(n,) S32."""
        return self._ids("sample_id")

    def prompt_ids(self) -> NDArray[np.bytes_]:
        """(n,) S32."""
        return self._ids("prompt_id")

    def _ids(self, name: str) -> NDArray[np.bytes_]:
        ids = np.empty(self.n, "S32")
        for file in self.files:
            values = pq.read_table(file.path, columns=[name], partitioning=None).column(name)
            ids[file.first : file.first + file.n] = ids_of(values)
        return ids

    def sources(self) -> NDArray[np.object_]:
        """(n,) source labels; equal labels are one object."""
        codes, labels = self.source_codes()
        return np.array(labels, np.object_)[codes]

    def source_codes(self) -> tuple[NDArray[np.int32], list[str]]:
        """(n,) the number of each row's source among the labels, and the labels in order of appearance."""
        encoded = self._column("source").combine_chunks().dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()

    def keys(self, name: str = "sample_id") -> NDArray[np.uint64]:
        """(n,) first 64 bits of each `sample_id` (or `prompt_id`): their order is the ids' lexicographic order."""
        keys = np.empty(self.n, np.uint64)
        for file in self.files:
            values = pq.read_table(file.path, columns=[name], partitioning=None).column(name)
            firsts = ids_of(values).astype("S16").tobytes()
            keys[file.first : file.first + file.n] = np.frombuffer(bytes.fromhex(firsts.decode("ascii")), dtype=">u8")
        return keys

    def examples(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Example]:
        """The examples in `rows`, in that order. Raises `IndexError` for a row that the pool does not have."""
        wanted = self._checked(rows)
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        found: dict[int, Example] = {}
        for group in np.unique(group_of):
            inside = np.unique(wanted[group_of == group])
            found |= zip(inside.tolist(), self._read(int(group), inside - self._starts[group]), strict=True)
        return [found[row] for row in wanted.tolist()]

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """(their row numbers, a table of `columns`) of ascending `rows`, a row group at a time."""
        wanted = self._checked(rows)
        group_of = np.searchsorted(self._starts, wanted, side="right") - 1
        groups, firsts = np.unique(group_of, return_index=True)
        parts = np.split(wanted, firsts[1:])

        def of_group(group: int, inside: NDArray[np.int64]) -> tuple[NDArray[np.int64], pa.Table]:
            return inside, self._table(group, columns).take(inside - self._starts[group])

        yield from ahead(of_group, zip(groups.tolist(), parts, strict=False), min(os.cpu_count() or 1, READING))

    def in_order(self, rows: NDArray[np.int64], columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """(place of the first, a table of `columns`) of `rows`, any order and each once, in parts of bounded size."""
        chars = np.cumsum(self.column("chars")[rows].astype(np.int64) + 1)
        for start, stop in _parts(chars):
            part = rows[start:stop]
            order = np.argsort(part, kind="stable")
            tables = [table for _, table in self.take(part[order], columns)]
            yield start, pa.concat_tables(tables).take(np.argsort(order, kind="stable"))

    def _checked(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < self.n:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a pool of {self.n}")
        return wanted

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

    def _table(self, group: int, columns: Sequence[str]) -> pa.Table:
        path, index = self._groups[group]
        with pq.ParquetFile(path) as file:
            return file.read_row_group(index, columns=list(columns))

    def _read(self, group: int, positions: NDArray[np.int64] | None = None) -> list[Example]:
        table = self._table(group, ["messages", "source", "meta"])
        return list(map(example_of, (table if positions is None else table.take(positions)).to_pylist()))


@lru_cache(maxsize=16)
def opened(folder: Path) -> PoolReader:
    """The reader of a pool artifact: a pool never changes, so a process looks only once where its rows lie."""
    return PoolReader(folder)


def _parts(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) of rows that end at `ends` (k,) characters: each of `PART_CHARS`, or one longer row."""
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + PART_CHARS, side="right")), start + 1)
        yield start, stop
        start = stop


def examples_of(path: Path) -> Iterator[Example]:
    """The examples of one Parquet file with the columns `messages`, `source` and `meta`, in its order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=["messages", "source", "meta"]):
            yield from map(example_of, batch.to_pylist())


def example_of(row: Mapping[str, Any]) -> Example:
    """The example in a row with the columns `messages`, `source` and `meta`."""
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
    return Example(messages, row["source"], json.loads(row["meta"]))

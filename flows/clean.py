"""The cleaning stages: the recipe's filters in their order, each row dropped once, every drop counted and listed.

Row filters that follow each other are one stage over one reading of the text. What they find in a shard is an artifact
of its own, so that a pool that grew is looked at only where it grew.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.entries import make
from flows.measure import measure
from flows.pool_filters import AGAINST_REFERENCES, BY_VECTORS, POOL_FILTERS, SemanticContamination
from flows.recipes import Clean
from flows.run import Counts
from flows.sieve import Sieve, blocks
from flows.sources import read
from warehouse.cleaning.table import ROW_FILTERS
from warehouse.duplicates import Found, found
from warehouse.errors import InputError
from warehouse.records import canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import DROPS, FILTERS, NEIGHBOURS, write_rows

CLEAN_VERSION = 1
SIFT_VERSION = 1
SIFTED_FILE = "sifted.parquet"
SIFTED = pa.schema([("row", pa.int64()), ("filter", pa.int32()), ("reason", pa.string()), ("detail", pa.string())])
TEXT_COLUMNS = ["messages", "source", "turns", "chars", "language", "has_code", "has_math", "family", "licence", "meta"]
HIDDEN_STATES = (
    "{names}: the representation is hidden states of a language model, which are close to each other whatever the rows "
    "say; name an encoder (`representation: {{encoder: ...}}`), or look at what is found with `action: flag`"
)
Alive = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Asked:
    """A filter asked for: its number in the recipe, from 1, and what happens to the rows it finds.

    These are dropped (action "drop") or reported (action "flag"). `filter` is what finds them.
    """

    number: int
    name: str
    params: Mapping[str, Any]
    action: str
    filter: Any = None

    def key(self) -> dict[str, Any]:
        version = SIFT_VERSION if self.name in ROW_FILTERS else self.filter.version
        return {
            "filter": self.name,
            "version": version,
            "params": dict(self.params),
            "action": self.action,
            "step": self.number,
        }


def asked(entries: Sequence[Clean]) -> list[Asked]:
    """The filters that are on. Raises `InputError` for an unknown name or parameter, listing the known ones."""
    filters = []
    for number, entry in enumerate(entries, 1):
        params = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.params.items()}
        made: Any = make("filter", {**POOL_FILTERS, **ROW_FILTERS}, entry.name, params)
        action = str(entry.action or getattr(made, "default_action", "drop"))
        if action != "off":
            filters.append(Asked(number, entry.name, entry.params, action, made))
    return filters


def check(entries: Sequence[Clean], references: Sequence[str]) -> None:
    """Raise `InputError` for filters that cannot be made, or that compare with sets the recipe does not name."""
    for entry in asked(entries):
        if entry.name in AGAINST_REFERENCES and not references:
            raise InputError(f"filter {entry.name!r} compares rows with target and test sets: give `target` or `test`")


def clean(sieve: Sieve, entries: Sequence[Clean]) -> list[Artifact]:
    """The artifacts of all filters, in order: one for each run of row filters, one for every other filter."""
    stages: list[Artifact] = []
    for by_row, group in groupby(asked(entries), key=lambda entry: entry.name in ROW_FILTERS):
        for together in [list(group)] if by_row else [[entry] for entry in group]:
            stages.append(_stage(sieve, together, stages))
    return stages


def survivors(stages: Sequence[Artifact], n: int) -> Alive:
    """(n,) which rows of the pool no stage has dropped."""
    alive = np.ones(n, np.bool_)
    for stage in stages:
        alive[pq.read_table(stage.folder / "drops.parquet", columns=["row"])["row"].to_numpy()] = False
    return alive


def _stage(sieve: Sieve, entries: Sequence[Asked], before: Sequence[Artifact]) -> Artifact:
    inputs: dict[str, Any] = {"pool": sieve.pool.key, "after": before[-1].key if before else None}
    if any(entry.name in AGAINST_REFERENCES for entry in entries):
        inputs |= {name: reference.key for name, reference in sieve.references.items()}
    if any(entry.name in BY_VECTORS for entry in entries):
        inputs["signals"] = {"representation": _measured(sieve, entries, survivors(before, sieve.reader.n))}
    work = Work("clean", CLEAN_VERSION, {"filters": [entry.key() for entry in entries]}, inputs)

    def produce(draft: Draft) -> Counts:
        alive = survivors(before, sieve.reader.n)
        if entries[0].name in ROW_FILTERS:
            answers = _by_row(sieve, entries)
        else:
            answers = [entry.filter(sieve, alive) for entry in entries]
        for entry in entries:
            if isinstance(entry.filter, SemanticContamination):
                _write_neighbours(draft, work.key, sieve, entry.filter, alive)
        return write_steps(draft, work.key, sieve, list(zip(entries, answers, strict=True)), alive)

    return sieve.run.stage(f"clean {', '.join(entry.name for entry in entries)}", work, produce)


def _measured(sieve: Sieve, entries: Sequence[Asked], alive: Alive) -> str:
    """Measure the representation of all that the filters compare; the key of its spec."""
    spec = sieve.representation
    assert sieve.meter is not None  # its spec is known
    if sieve.meter.representation.encoder is None:
        sieve.run.listener.say(HIDDEN_STATES.format(names=", ".join(entry.name for entry in entries)))
    sets: dict[str, tuple[Artifact, Any]] = {"pool": (sieve.pool, np.flatnonzero(alive))}
    if any(entry.name in AGAINST_REFERENCES for entry in entries):
        sets |= {name: (reference, None) for name, reference in sieve.references.items()}
    for name, (artifact, rows) in sets.items():
        title = f"{name} for {', '.join(entry.name for entry in entries)}"
        measure(sieve.run, title, sieve.meter, [spec], read(artifact), sieve.workers, rows)
    return spec.key


def _by_row(sieve: Sieve, entries: Sequence[Asked]) -> list[Found]:
    """What each row filter finds in the whole pool, whether or not an earlier one dropped it."""
    params = {"filters": [{"filter": entry.name, "params": dict(entry.params)} for entry in entries]}
    sifted = sieve.per_file("sift", SIFT_VERSION, params, {}, partial(sift, [entry.filter for entry in entries]))
    starts = [file.first for file in sieve.reader.files]
    tables = [pq.read_table(artifact.folder / SIFTED_FILE) for artifact in sifted]
    rows = np.concatenate([table["row"].to_numpy() + start for table, start in zip(tables, starts, strict=True)])
    whole = pa.concat_tables(tables)
    numbers = whole["filter"].to_numpy()
    answers = []
    for number in range(len(entries)):
        mine = np.flatnonzero(numbers == number)
        part = whole.take(mine)
        answers.append(found(rows[mine], part["reason"].to_pylist(), details=part["detail"].to_pylist()))
    return answers


def sift(filters: Sequence[Any], file: Path, out: Path) -> None:
    """Write what each of `filters` finds in one file of samples; rows are counted from the file's first."""
    parts: list[pa.Table] = []
    first = 0
    for block in blocks(file, TEXT_COLUMNS):
        for number, row_filter in enumerate(filters):
            findings = row_filter(block)
            k = len(findings.rows)
            columns = [findings.rows + first, np.full(k, number), list(findings.reasons), list(findings.details)]
            parts.append(pa.table(dict(zip(SIFTED.names, columns, strict=True)), schema=SIFTED))
        first += block.n
    pq.write_table(pa.concat_tables(parts), out / SIFTED_FILE, compression="zstd")


def write_steps(draft: Draft, key: str, sieve: Sieve, steps: Sequence[tuple[Asked, Found]], alive: Alive) -> Counts:
    """Write `drops`, `flags` and `filters`: what each filter found among the rows that those before it left."""
    pool = sieve.reader
    codes, labels = pool.source_codes()
    alive = alive.copy()
    rows_in = int(alive.sum())
    dropped: Counter[str] = Counter()
    tables: dict[str, list[pa.Table]] = {"drop": [], "flag": []}
    counts: list[dict[str, Any]] = []
    for step, answer in steps:
        live = np.flatnonzero(alive[answer.rows])
        rows = answer.rows[live]
        tables[step.action].append(_table(key, sieve, step.name, answer, live, codes, labels))
        before = np.bincount(codes[alive], minlength=len(labels))
        if step.action == "drop":
            alive[rows] = False
            dropped.update({step.name: len(rows)} if len(rows) else {})
        after = np.bincount(codes[alive], minlength=len(labels))
        hits = np.bincount(codes[rows], minlength=len(labels))
        counts += [
            {
                "cleaning": key, "pool": sieve.pool.key, "step": step.number, "filter": step.name,
                "params": canonical(dict(step.params)), "action": step.action, "source": label,
                "rows_in": int(came), "found": int(hit), "rows_out": int(left),
            }
            for label, came, hit, left in zip(labels, before, hits, after, strict=True)
        ]  # fmt: skip
    write_rows(draft.folder / "filters.parquet", FILTERS, counts)
    for action, name in (("drop", "drops.parquet"), ("flag", "flags.parquet")):
        table = pa.concat_tables(tables[action]) if tables[action] else DROPS.empty_table()
        pq.write_table(table, draft.folder / name, compression="zstd")
    return Counts(rows_in, int(alive.sum()), dict(dropped))


def _write_neighbours(draft: Draft, key: str, sieve: Sieve, entry: SemanticContamination, alive: Alive) -> None:
    """Write `neighbours`: the rows next to each reference set, for a person to look at."""
    listed: list[dict[str, Any]] = []
    for name, pairs in entry.nearest(sieve, alive).items():
        ids = dict(_ids(sieve, np.unique(pairs.rows)))
        listed += [
            {
                "cleaning": key, "pool": sieve.pool.key, "set": name, "rank": rank, "row": row, "sample_id": ids[row],
                "other_pool": sieve.references[name].key, "other_row": other, "value": value,
            }
            for rank, (row, other, value) in enumerate(
                zip(pairs.rows.tolist(), pairs.others.tolist(), pairs.similarities.tolist(), strict=True), 1
            )
        ]  # fmt: skip
    write_rows(draft.folder / "neighbours.parquet", NEIGHBOURS, listed)


def _ids(sieve: Sieve, rows: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    for part, table in sieve.reader.take(rows, ["sample_id"]):
        yield from zip(part.tolist(), table["sample_id"].to_pylist(), strict=True)


def _table(
    key: str,
    sieve: Sieve,
    name: str,
    answer: Found,
    live: NDArray[np.int64],
    codes: NDArray[np.int32],
    labels: Sequence[str],
) -> pa.Table:
    """The found rows that were still there, as rows of `drops` or `flags`."""
    rows, k = answer.rows[live], len(live)
    ids = [table["sample_id"] for _, table in sieve.reader.take(rows, ["sample_id"])]
    columns: dict[str, Any] = {
        "cleaning": [key] * k,
        "pool": [sieve.pool.key] * k,
        "row": rows,
        "sample_id": pa.chunked_array(ids, pa.string()),
        "source": [labels[code] for code in codes[rows]],
        "filter": [name] * k,
        "reason": [answer.reasons[at] for at in live],
        "detail": [answer.details[at] for at in live],
        "other_pool": [answer.other_pools[at] or None for at in live],
        "other_row": pa.array(answer.others[live], mask=answer.others[live] < 0),
        "value": pa.array(answer.values[live], mask=np.isnan(answer.values[live])),
    }
    return pa.table(columns, schema=DROPS)

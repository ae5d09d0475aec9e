"""Signals: fetched from the signal store, and measured there for the rows that nobody has measured yet."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from flows.meter import Compute, Meter
from flows.run import Counts, Run
from flows.workers import HereWorkers, Workers
from warehouse.pools import PoolReader, opened
from warehouse.records import Rows, Spec
from warehouse.signals import Array, Gathered, SignalStore, Values
from warehouse.tables import ids_of

CHUNK_ROWS = 2048  # one shard: what a crash can cost, and what is sorted by length together
PLAIN_CHUNK_ROWS = 16_384  # of signals that no model measures: seconds each
PLAIN = {"trigrams", "length", "ngrams", "repetition", "concepts"}
LOADED = 4  # passes whose models a process keeps


def measure(
    run: Run,
    name: str,
    meter: Meter,
    specs: Sequence[Spec],
    pool: PoolReader,
    workers: Workers | None = None,
    rows: Rows | None = None,
) -> None:
    """Measure `specs`, all of one pass, for the rows of the pool called `name` (or `rows` of them) that lack a value.

    Each finished chunk is kept. Chunks are cut at the same places whoever measures them, so that a killed run ends with
    the same values. Signals that need a model go to `workers`, a chunk a call.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    todo = _Todo.of(run.store.home, specs, pool, rows)
    plain = specs[0].name in PLAIN
    alone = [spec.name for spec in specs] == ["response"]
    chunks = todo.chunks(PLAIN_CHUNK_ROWS if plain else CHUNK_ROWS, _prompt_of(pool) if alone else None)
    outside = workers if workers is not None and not plain else HereWorkers()
    title = f"measure {', '.join(spec.name for spec in specs)} of {name}"
    done = Done(run, title, len(todo.rows))

    def one(chunk: "_Todo") -> None:
        outside.call(measure_chunk, run.store.home, meter, specs, pool.folder, chunk)
        done.add(len(chunk.rows))

    with ThreadPoolExecutor(outside.width) as threads:
        list(threads.map(one, chunks))
    seconds = (time.monotonic() - clock) / len(specs)
    n = pool.n if rows is None else len(rows)
    for spec in specs:
        computed = bool(todo.lacks[spec.key].any())
        each = f"measure {spec.name} of {name}"
        run.note(each, "measure", spec.key, Counts(n, n), computed=computed, started=started, seconds=seconds)


@dataclass(frozen=True, slots=True)
class _Todo:
    """Rows of a pool that lack some value, ascending, and which of them lack that of each spec, by its key."""

    rows: Rows
    lacks: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def of(cls, home: Path, specs: Sequence[Spec], pool: PoolReader, rows: Rows | None) -> "_Todo":
        ids = pool.sample_ids() if rows is None else pool.sample_ids()[rows]
        missing = {spec.key: SignalStore(home).missing(spec, ids) for spec in specs}
        union = np.unique(np.concatenate(list(missing.values())))
        lacks = {key: np.isin(union, places) for key, places in missing.items()}
        return cls(union if rows is None else rows[union], lacks)

    def chunks(self, rows_each: int, prompt_of: Rows | None) -> "list[_Todo]":
        """Parts of `rows_each` rows; rows of one prompt, where `prompt_of` is given, in one part or the next."""
        order = np.arange(len(self.rows)) if prompt_of is None else np.argsort(prompt_of[self.rows], kind="stable")
        return [self._part(np.sort(order[at : at + rows_each])) for at in range(0, len(order), rows_each)]

    def _part(self, part: Rows) -> "_Todo":
        return _Todo(self.rows[part], {key: lacks[part] for key, lacks in self.lacks.items()})


def _prompt_of(pool: PoolReader) -> Rows:
    """(n,) the first row of the pool that has the prompt of each: a prompt is then read once for all its replies."""
    _, first, inverse = np.unique(pool.prompt_ids(), return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def measure_chunk(home: Path, meter: Meter, specs: Sequence[Spec], folder: Path, chunk: _Todo) -> None:
    """Measure some rows of the pool in `folder` and keep the values they lack; runs in any process."""
    begun = time.monotonic()
    pool = opened(folder)
    values, flops = _compute(meter, specs)(pool.examples(chunk.rows))
    cost = {"seconds": time.monotonic() - begun, "flops": flops}
    ids = np.concatenate([ids_of(table["sample_id"]) for _, table in pool.take(chunk.rows, ["sample_id"])])
    for spec in specs:
        lacks = chunk.lacks[spec.key]
        if lacks.any():
            SignalStore(home).append(spec, ids[lacks], values[spec.name][np.flatnonzero(lacks)], cost)


_computes: dict[tuple[str, ...], Compute] = {}


def _compute(meter: Meter, specs: Sequence[Spec]) -> Compute:
    """What measures `specs` in this process: a worker loads a model once, not once a chunk."""
    keys = tuple(spec.key for spec in specs)
    if keys not in _computes:
        while len(_computes) >= LOADED:
            _computes.pop(next(iter(_computes)))
        _computes[keys] = meter.compute(specs)
    return _computes[keys]


@dataclass(slots=True)
class Done:
    """Counts finished rows from several threads and tells the run's listener."""

    run: Run
    name: str
    total: int
    _rows: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, rows: int) -> None:
        with self._lock:
            self._rows += rows
            self.run.listener.progress(self.name, self._rows, self.total)


def cost(run: Run, spec: Spec, pool: PoolReader, rows: Rows) -> dict[str, float]:
    """Seconds and FLOPs that measuring `spec` on `rows` of `pool` took, whichever run did it."""
    return SignalStore(run.store.home).cost(spec, pool.sample_ids()[rows])


def read(run: Run, spec: Spec, pool: PoolReader, rows: Rows | None = None) -> Values:
    """The values of `spec` for every row of `pool`, or for `rows` of it, row for row."""
    ids = pool.sample_ids()
    return SignalStore(run.store.home).read(spec, ids if rows is None else ids[rows])


def read_whole(run: Run, spec: Spec, pool: PoolReader, rows: Rows | None = None) -> Array:
    """The values of `spec` in memory: of a small pool, or one number a row."""
    values = read(run, spec, pool, rows)
    return values[0 : len(values)] if isinstance(values, Gathered) else values

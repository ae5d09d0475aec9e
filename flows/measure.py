"""Signals: fetched from the signal store, and measured there for the rows that nobody has measured yet."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import numpy as np

from flows.recipes import Representation
from flows.run import Counts, Run
from flows.workers import HereWorkers, Workers
from models.fingerprint import fingerprint
from training.cost import forward_flops
from warehouse.errors import InputError
from warehouse.pools import PoolReader, opened
from warehouse.records import Example, Rows, Spec
from warehouse.signals import Array, Gathered, SignalStore, Values
from warehouse.tables import ids_of

CHUNK_ROWS = 2048  # one shard: what a crash can cost, and what is sorted by length together
PLAIN_CHUNK_ROWS = 16_384  # of signals that no model measures: seconds each
BY_MODEL = ("representation",)

Compute = Callable[[Sequence[Example]], tuple[Array, int]]
"""Values of some rows, and the floating-point operations of a model that they took."""


@dataclass(slots=True)
class Meter:
    """Measures the signals that methods ask for, with the models that a recipe names; models load at the first need."""

    representation: Representation
    _computes: dict[str, Compute] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model or encoder, as the user named it."""
        return self.representation.encoder or self.representation.model or "winnow-tiny"

    def spec(self) -> Spec:
        """The spec of the representation: it changes with the model's content, the template, pooling and truncation."""
        if self.representation.encoder is not None:
            return Spec(
                "representation", {"encoder": fingerprint(self.name, template="none"), "text": "prompt and reply"}
            )
        params = {
            "model": fingerprint(self.name),
            "pooling": "position-weighted mean of the last hidden states",
            "max_length": self.representation.max_length,
            "dtype": self.representation.dtype,
        }
        return Spec("representation", params)

    def filled(self) -> dict[str, object]:
        """What a flow fills into a method's fields of these names."""
        return {"representation": self.spec(), "tokenizer": fingerprint(self.name)}

    def compute(self, spec: Spec) -> Compute:
        """The function that measures `spec`; kept, so that a model is loaded once."""
        if spec.key not in self._computes:
            makers = {"representation": self._vectors, "trigrams": self._trigrams, "length": self._lengths}
            if spec.name not in makers:
                raise InputError(f"no signal {spec.name!r}; known signals: {', '.join(makers)}")
            self._computes[spec.key] = makers[spec.name](spec)
        return self._computes[spec.key]

    def _vectors(self, spec: Spec) -> Compute:
        chosen = self.representation
        if chosen.encoder is not None:
            from models.encoder import SentenceEncoder, row_text

            encoder = SentenceEncoder(chosen.encoder, trust_remote_code=chosen.trust_remote_code)
            return lambda rows: (encoder.embed([row_text(row.messages) for row in rows]), 0)
        from models.local import LocalModel
        from models.protocol import Want

        model = LocalModel.load(
            self.name, dtype=chosen.dtype, max_length=chosen.max_length, trust_remote_code=chosen.trust_remote_code
        )

        def vectors(rows: Sequence[Example]) -> tuple[Array, int]:
            measured = model.measure([row.messages for row in rows], frozenset({Want.REPRESENTATION}))
            assert measured.representation is not None  # it was wanted
            return measured.representation, forward_flops(model.parameters, int(measured.tokens.sum()))

        return vectors

    def _trigrams(self, spec: Spec) -> Compute:
        from selection.trigrams import trigrams

        dims = int(spec.params["dims"])
        return lambda rows: (trigrams(["\n".join(m.content for m in row.messages) for row in rows], dims), 0)

    def _lengths(self, spec: Spec) -> Compute:
        if spec.params["unit"] == "characters":
            return lambda rows: (np.array([sum(len(m.content) for m in row.messages) for row in rows], np.int64), 0)
        from models.tokens import row_lengths

        return lambda rows: (row_lengths(self.name, [row.messages for row in rows]), 0)


def measure(
    run: Run,
    name: str,
    meter: Meter,
    spec: Spec,
    pool: PoolReader,
    workers: Workers | None = None,
    rows: Rows | None = None,
) -> None:
    """Measure `spec` for the rows of `pool` (or `rows` of them) that have no value yet; each finished chunk is kept.

    Chunks are cut at the same places whoever measures them, so that a killed run ends with the same values. Signals
    that need a model go to `workers`, a chunk a call.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    ids = pool.sample_ids() if rows is None else pool.sample_ids()[rows]
    missing = SignalStore(run.store.home).missing(spec, ids)
    missing = missing if rows is None else rows[missing]
    rows_each = CHUNK_ROWS if spec.name in BY_MODEL else PLAIN_CHUNK_ROWS
    chunks = [missing[start : start + rows_each] for start in range(0, len(missing), rows_each)]
    outside = workers if workers is not None and spec.name in BY_MODEL else HereWorkers()
    here = meter if isinstance(outside, HereWorkers) else Meter(meter.representation)
    done = Done(run, name, len(missing))

    def one(chunk: Rows) -> None:
        outside.call(measure_chunk, run.store.home, here, spec, pool.folder, chunk)
        done.add(len(chunk))

    with ThreadPoolExecutor(outside.width) as threads:
        list(threads.map(one, chunks))
    seconds = time.monotonic() - clock
    run.note(
        name, "measure", spec.key, Counts(len(ids), len(ids)), computed=bool(chunks), started=started, seconds=seconds
    )


def measure_chunk(home: Path, meter: Meter, spec: Spec, folder: Path, chunk: Rows) -> None:
    """Measure some rows of the pool in `folder` and keep their values; runs in any process."""
    begun = time.monotonic()
    pool = opened(folder)
    values, flops = _kept(meter).compute(spec)(pool.examples(chunk))
    cost = {"seconds": time.monotonic() - begun, "flops": flops}
    ids = [ids_of(table["sample_id"]) for _, table in pool.take(chunk, ["sample_id"])]
    SignalStore(home).append(spec, np.concatenate(ids), values, cost)


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


_meters: dict[Representation, Meter] = {}


def _kept(meter: Meter) -> Meter:
    """The meter of this process for the same models: a worker loads a model once, not once a chunk."""
    return _meters.setdefault(meter.representation, meter)


def cost(run: Run, spec: Spec, pool: PoolReader, rows: Rows) -> dict[str, float]:
    """Seconds and FLOPs that measuring `spec` on `rows` of `pool` took, whichever run did it."""
    return SignalStore(run.store.home).cost(spec, pool.sample_ids()[rows])


def read(run: Run, spec: Spec, pool: PoolReader, rows: Rows | None = None) -> Values:
    """The values of `spec` for every row of `pool`, or for `rows` of it, row for row."""
    ids = pool.sample_ids()
    return SignalStore(run.store.home).read(spec, ids if rows is None else ids[rows])


def read_whole(run: Run, spec: Spec, pool: PoolReader) -> Array:
    """The values of `spec` for every row of a small pool, in memory."""
    values = read(run, spec, pool)
    return values[0 : len(values)] if isinstance(values, Gathered) else values

"""Signals: fetched from the signal store, and measured there for the rows that nobody has measured yet."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from flows.recipes import Representation
from flows.run import Counts, Run
from models.fingerprint import fingerprint
from training.cost import forward_flops
from warehouse.errors import InputError
from warehouse.pools import PoolReader
from warehouse.records import Example, Spec
from warehouse.signals import SignalStore, Values

CHUNK_ROWS = 4096  # one shard: what a crash can cost, and what is sorted by length together

Compute = Callable[[Sequence[Example]], tuple[Values, int]]
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

        def vectors(rows: Sequence[Example]) -> tuple[Values, int]:
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


def measure(run: Run, name: str, meter: Meter, spec: Spec, pool: PoolReader) -> None:
    """Measure `spec` for the rows of `pool` that have no value yet; each finished chunk is kept at once."""
    started, clock = datetime.now(UTC), time.monotonic()
    store = SignalStore(run.store.home)
    ids = pool.sample_ids()
    missing = store.missing(spec, ids)
    for start in range(0, len(missing), CHUNK_ROWS):
        chunk = missing[start : start + CHUNK_ROWS]
        begun = time.monotonic()
        values, flops = meter.compute(spec)(pool.examples(chunk))
        store.append(spec, ids[chunk], values, {"seconds": time.monotonic() - begun, "flops": flops})
        run.listener.progress(name, start + len(chunk), len(missing))
    counts = Counts(len(ids), len(ids))
    seconds = time.monotonic() - clock
    run.note(name, "measure", spec.key, counts, computed=len(missing) > 0, started=started, seconds=seconds)


def cost(run: Run, spec: Spec, pool: PoolReader) -> dict[str, float]:
    """Seconds and FLOPs that measuring `spec` on `pool` took, whichever run did it."""
    return SignalStore(run.store.home).cost(spec, pool.sample_ids())


def read(run: Run, spec: Spec, pool: PoolReader) -> Values:
    """The values of `spec` for every row of `pool`, row for row."""
    return SignalStore(run.store.home).read(spec, pool.sample_ids())

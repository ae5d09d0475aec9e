"""What the cleaning filters work on: a pool, the sets it must not hold, and what was made of its shards before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.meter import Meter
from flows.run import Counts, Run, produce
from flows.sources import read
from flows.spread import spread
from flows.workers import Workers
from warehouse.block import Block
from warehouse.duplicates import Found
from warehouse.pools import PoolReader
from warehouse.records import Spec
from warehouse.store import HASH_ON_HIT_BYTES, Artifact, Draft, Store, Work

Fill = Callable[[Path, Path], None]
"""Reads one file of samples and fills one folder; picklable."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """The ingested pool, the target and test set where there are any (by these names), and who does the work.

    `meter` measures the representation for filters that compare vectors; a verb that has none of them needs none.
    """

    run: Run
    pool: Artifact
    references: Mapping[str, Artifact]
    workers: Workers
    meter: Meter | None = None

    @property
    def reader(self) -> PoolReader:
        return read(self.pool)

    @property
    def representation(self) -> Spec:
        """What filters that compare vectors read."""
        assert self.meter is not None  # a recipe's run has one, and only a recipe has such filters
        return self.meter.spec()

    def per_file(
        self, stage: str, version: int, params: Mapping[str, Any], inputs: Mapping[str, Any], fill: Fill
    ) -> list[Artifact]:
        """One artifact for each file of the pool, in row order: made once for a shard, whatever pool it is in."""
        store, shards = self.run.store, self.pool.manifest["facts"]["shards"]
        works = [Work(stage, version, params, {"shard": key, **inputs}) for key in shards]
        made, to_hash = dict[str, Artifact](), HASH_ON_HIT_BYTES
        for work in works:
            if (found := store.find(work, to_hash)) is not None:
                made[work.key] = found
                to_hash -= found.bytes
        pairs = zip(works, self.reader.files, strict=True)
        missing = [(store, work, fill, file.path) for work, file in pairs if work.key not in made]
        for done, artifact in enumerate(spread(self.workers, _produce, missing), 1):
            made[artifact.key] = artifact
            self.run.listener.progress(f"{stage} shards", done, len(missing))
        return [made[work.key] for work in works]


class PoolFilter(Protocol):
    """A filter that sees the whole pool: a frozen dataclass of thresholds. `alive` (n,) are the rows still there.

    `version` is a part of the key of its artifact: it is bumped when the filter's code changes what it finds.
    """

    version: ClassVar[int]

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found: ...


def blocks(file: Path, columns: Sequence[str]) -> Iterator[Block]:
    """The row groups of a file of samples."""
    with pq.ParquetFile(file) as samples:
        for group in range(samples.num_row_groups):
            yield Block(samples.read_row_group(group, columns=list(columns)))


def _produce(store: Store, work: Work, fill: Fill, file: Path) -> Artifact:
    def make(draft: Draft) -> Counts:
        fill(file, draft.folder)
        n = pq.read_metadata(file).num_rows
        return Counts(n, n)

    return produce(store, work, make)

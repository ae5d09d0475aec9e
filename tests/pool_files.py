"""Pools for tests, made in this process: shard after shard, then put together."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from warehouse import pools, shards
from warehouse.pool_writer import Origin, ShardWriter, prepare
from warehouse.pools import Funnel
from warehouse.records import Example
from warehouse.rejects import Refused
from warehouse.sources import Source, locate


def ingest(sources: Sequence[Source | str], out: Path, *, pool_key: str = "k", name: str = "p") -> Funnel:
    """The pool of `sources` in `out`, as the ingest stage makes it."""
    located = [locate(source) if isinstance(source, str) else source for source in sources]
    pools.check_sources(located)
    pieces = [piece for source in located for piece in shards.pieces(source)]
    return _put_together([partial(shards.write_shard, piece) for piece in pieces], out, pool_key, name)


def write_pool(
    examples: Iterable[Example], out: Path, *, pool_key: str = "k", name: str = "p", size: int = 10**9
) -> Funnel:
    """The pool of `examples` in `out`, in shards of `size` rows."""
    rows = list(examples)

    def write(start: int, to: Path) -> None:
        with ShardWriter(to) as writer:
            for place, example in enumerate(rows[start : start + size], start):
                row = prepare(example)
                if isinstance(row, Refused):
                    writer.reject(example.source, f"row {place}", row)
                else:
                    writer.keep(row, Origin(f"row {place}"))
        writer.write_summary([])

    starts = range(0, max(len(rows), 1), size)
    return _put_together([partial(write, start) for start in starts], out, pool_key, name)


def _put_together(makers: Sequence[Callable[[Path], object]], out: Path, pool_key: str, name: str) -> Funnel:
    shutil.rmtree(out, ignore_errors=True)
    scratch = out.with_name(f"{out.name}.shards")
    folders = [scratch / str(number) for number in range(len(makers))]
    try:
        for make, folder in zip(makers, folders, strict=True):
            make(folder)
        return pools.assemble(folders, out, pool_key=pool_key, name=name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

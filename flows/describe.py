"""Token counts of a pool's rows by the tokenizer of a run: counted once for a shard, whatever pool it is in."""

from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.run import Counts
from flows.sieve import Sieve
from models.fingerprint import fetch, fingerprint
from models.tokens import counter
from warehouse.pool_writer import GROUP_ROWS
from warehouse.pools import examples_of, link
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import DESCRIBE, TOKENS, write_rows

DESCRIBE_VERSION = 1
TOKENS_VERSION = 1
TOKENS_FILE = "tokens.parquet"


def describe(sieve: Sieve, model: str) -> Artifact:
    """The tables `token_counts` reads: tokens of every row of the pool in the chat format of `model`."""
    known = fingerprint(model)
    work = Work("describe", DESCRIBE_VERSION, inputs={"pool": sieve.pool.key}, model=known)

    def make(draft: Draft) -> Counts:
        made = sieve.per_file("tokens", TOKENS_VERSION, {"model": known}, {}, partial(count, str(fetch(model))))
        total = 0
        for artifact, file in zip(made, sieve.reader.files, strict=True):
            counts = artifact.folder / TOKENS_FILE
            draft.shares(artifact)
            total += int(pq.read_table(counts, columns=["tokens"])["tokens"].to_numpy().sum())
            link(counts, draft.folder / file.path.name.replace("samples-", "tokens-"))
        n = sieve.reader.n
        row = {"description": work.key, "pool": sieve.pool.key, "tokenizer": known, "model": model, "rows": n}
        write_rows(draft.folder / "describe.parquet", DESCRIBE, [row | {"tokens": total}])
        return Counts(n, n)

    return sieve.run.stage("count tokens of pool", work, make)


def count(folder: str, file: Path, out: Path) -> None:
    """Write the token counts of one file of samples, row for row."""
    counted = counter(Path(folder))
    with pq.ParquetWriter(out / TOKENS_FILE, TOKENS, compression="zstd") as written:
        rows = examples_of(file)
        while part := [row.messages for row in islice(rows, GROUP_ROWS)]:
            written.write_table(pa.table({"tokens": counted(part).astype(np.int32)}, schema=TOKENS))

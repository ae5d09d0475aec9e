"""From what a recipe names to a pool version: synthesize where rows are to be made, then ingest."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flows.entries import make
from flows.recipes import Source
from flows.run import Counts, Run
from models.dialogue import Accepted, Rejected, converse
from synthesis.table import SYNTHESIZERS
from warehouse import pools, sources
from warehouse.pools import PoolReader
from warehouse.records import canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import GENERATIONS, write_rows

SYNTHESIZE_VERSION = 1
INGEST_VERSION = 1
ROWS_FILE = "rows.jsonl"


def prepare(run: Run, name: str, given: Sequence[Source], data: Path, seed: int) -> Artifact:
    """The pool version of `given` under `name`: one stage per synthesizer, and one that ingests all."""
    return ingest(run, name, [_rows(run, name, source, data, seed) for source in given])


def _rows(run: Run, name: str, source: Source, data: Path, seed: int) -> sources.Source:
    if source.synthesize is None:
        return located(source, data)
    made = synthesize(run, f"synthesize {name}", source.synthesize, source.params, seed)
    return sources.locate(str(made.folder / ROWS_FILE))


def located(source: Source, data: Path) -> sources.Source:
    """The file, folder or hub data set that `source` names; a relative path starts at `data`.

    Raises `InputError` where there is no such thing.
    """
    assert source.path is not None  # a recipe's source has a path or a synthesizer
    here = data / Path(source.path).expanduser()
    named = str(here) if here.exists() or not sources.may_be_hub(source.path) else source.path
    return replace(sources.locate(named), skip=source.skip, limit=source.limit)


def synthesize(run: Run, name: str, synthesizer: str, params: dict[str, object], seed: int) -> Artifact:
    """Rows made by a synthesizer that needs no seeds, as a JSONL file of messages and as the table `generations`."""
    job = make("synthesizer", SYNTHESIZERS, synthesizer, params)
    work = Work("synthesize", SYNTHESIZE_VERSION, {"synthesizer": synthesizer, "params": params}, seed=seed)

    def produce(draft: Draft) -> Counts:
        rows: list[Accepted] = []
        dropped: dict[str, int] = {}

        def emit(made: Sequence[Accepted | Rejected]) -> None:
            for row in made:
                if isinstance(row, Accepted):
                    rows.append(row)
                else:
                    dropped[row.reason] = dropped.get(row.reason, 0) + 1
            run.listener.progress(name, len(rows), None)

        converse([job((), np.random.default_rng(seed))], {}, emit=emit)
        _write_generations(draft.folder, work, synthesizer, params, seed, rows)
        return Counts(len(rows) + sum(dropped.values()), len(rows), dropped)

    return run.stage(name, work, produce)


def _write_generations(
    folder: Path, work: Work, synthesizer: str, params: dict[str, object], seed: int, rows: Sequence[Accepted]
) -> None:
    with (folder / ROWS_FILE).open("w", encoding="utf-8") as file:
        for row in rows:
            messages = [{"role": m.role, "content": m.content} for m in row.example.messages]
            line = {"messages": messages, "source": row.example.source, "meta": dict(row.example.meta)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    table = [
        {
            "generation": work.key,
            "row": place,
            "sample_id": row.example.sample_id,
            "synthesizer": synthesizer,
            "params": canonical(params),
            "seed": seed,
            "source": row.example.source,
            "meta": canonical(dict(row.example.meta)),
        }
        for place, row in enumerate(rows)
    ]
    write_rows(folder / "generations.parquet", GENERATIONS, table)


def ingest(run: Run, name: str, rows: Sequence[sources.Source]) -> Artifact:
    """A pool version from files, folders or hub names; every row kept or rejected with a reason."""
    asked = [{"skip": source.skip, "limit": source.limit} for source in rows]
    inputs = {str(place): sources.fingerprint(source) for place, source in enumerate(rows)}
    work = Work("ingest", INGEST_VERSION, {"name": name, "sources": asked}, inputs)

    def produce(draft: Draft) -> Counts:
        def on_rows(done: int) -> None:
            run.listener.progress(f"ingest {name}", done, None)

        funnel = pools.ingest(rows, draft.folder, pool_key=work.key, name=name, on_rows=on_rows)
        return Counts(funnel.rows_in, funnel.rows_out, funnel.dropped)

    return run.stage(f"ingest {name}", work, produce)


def read(artifact: Artifact) -> PoolReader:
    """The rows of an ingested pool version."""
    return PoolReader(artifact.folder)

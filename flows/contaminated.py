"""The contamination stage: what rows that may be trained on give away of every set that models are examined with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.choose import CANDIDATES_FILE, Question
from flows.run import Counts, Run
from flows.sieve import blocks
from flows.sources import read
from flows.spread import spread
from flows.workers import Workers
from warehouse.block import Block
from warehouse.ids import IdIndex
from warehouse.pools import PoolReader
from warehouse.records import Rows
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import CONTAMINATED, SELECTED_FILE, write_rows

if TYPE_CHECKING:
    from eval.contamination import Exposure, ItemIndex

CONTAMINATION_VERSION = 1
CONTAMINATED_FILE = "contaminated.parquet"


@dataclass(frozen=True, slots=True)
class Leaks:
    """What the stage found: `key` of its artifact, the folder of each set by key, and what rows give away of it.

    items  `sample_id` of the contaminated test rows
    later  keys of what was found in the rows of later stages, which `items` holds too
    """

    key: str
    tests: Mapping[str, Path]
    items: Mapping[str, frozenset[str]]
    later: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Items given away, of all sets."""
        return sum(map(len, self.items.values()))

    def joined(self, other: "Leaks") -> "Leaks":
        """These, and those of a later stage on the same sets."""
        items = {test: found | other.items[test] for test, found in self.items.items()}
        return replace(self, items=items, later=(*self.later, other.key))

    def chosen(self, selection: Artifact, test: str) -> frozenset[str]:
        """Items of the set `test`, by `sample_id`, that the rows of a selection give away."""
        return _given_away(self.tests[test], selection.folder / SELECTED_FILE)


def contamination(run: Run, question: Question, tests: Mapping[str, Artifact], workers: Workers) -> Leaks:
    """For every item of `tests` the candidate that gives most of it away, as the table `contaminated_items`."""
    rows = question.candidates.folder / CANDIDATES_FILE
    inputs = {"candidates": question.candidates.key}
    return _searched(run, "contamination", question.pool, lambda _: rows, inputs, tests, workers)


def contamination_of(name: str, run: Run, rows: Artifact, tests: Mapping[str, Artifact], workers: Workers) -> Leaks:
    """The same for the conversations of a later stage, called `name`: those of them that are trained on."""

    def kept(draft: Draft) -> Path:
        np.save(path := draft.folder / CANDIDATES_FILE, unasked(read(rows), tests), allow_pickle=False)
        return path

    return _searched(run, f"contamination by {name}", rows, kept, {}, tests, workers)


def unasked(pool: PoolReader, tests: Mapping[str, Artifact]) -> Rows:
    """(k,) the rows of a later stage that it trains on, ascending: those that ask nothing that a test row asks."""
    asked = np.zeros(pool.n, bool)
    for test in tests.values():
        asked |= IdIndex(read(test).prompt_ids()).find(pool.prompt_ids()) >= 0
    return np.flatnonzero(~asked)


def _searched(
    run: Run,
    title: str,
    pool: Artifact,
    candidates: Callable[[Draft], Path],
    inputs: Mapping[str, str],
    tests: Mapping[str, Artifact],
    workers: Workers,
) -> Leaks:
    keys = {name: test.key for name, test in sorted(tests.items())}
    work = Work("contamination", CONTAMINATION_VERSION, inputs={"pool": pool.key, **inputs, "tests": keys})

    def make(draft: Draft) -> Counts:
        folders, rows_file = {name: test.folder for name, test in tests.items()}, candidates(draft)
        calls = [(folders, rows_file, file.first, file.path) for file in read(pool).files]
        found = _merged(spread(workers, expose_file, calls), folders)
        known = {"contamination": work.key, "pool": pool.key}
        rows = [known | {"test": tests[name].key, "set": name} | row for name, row in _rows(found, folders)]
        write_rows(draft.folder / CONTAMINATED_FILE, CONTAMINATED, rows)
        items = sum(len(each.share) for each in found.values())
        return Counts(items, items)

    return _leaks(run.stage(f"{title} of {', '.join(keys)}", work, make), tests)


def expose_file(tests: Mapping[str, Path], candidates: Path, first: int, file: Path) -> "dict[str, Exposure]":
    """What the candidates in one file of samples, whose first row is `first`, give away of each set."""
    from eval.contamination import Exposure

    rows: Rows = np.load(candidates, mmap_mode="r", allow_pickle=False)
    indices = {name: _index(folder) for name, folder in tests.items()}
    found = {name: Exposure.none(index.m) for name, index in indices.items()}
    for block in blocks(file, ["messages"]):
        mine = np.asarray(rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + block.n)])
        if len(mine):
            part = block if len(mine) == block.n else Block(block.table.take(mine - first).combine_chunks())
            for name, index in indices.items():
                here = index.expose(part.contents, part.turn_offsets, part.is_user, mine)
                found[name] = found[name].merge(here)
        first += block.n
    return found


@lru_cache(maxsize=8)
def _index(folder: Path) -> "ItemIndex":
    """The n-grams of an ingested set; a process builds them once."""
    from eval.contamination import ItemIndex, boilerplate_of

    pool = PoolReader(folder)
    tables = [table for _, table in pool.take(np.arange(pool.n), ["messages"])]
    block = Block(pa.concat_tables(tables).combine_chunks())
    return ItemIndex.build(block.contents, block.turn_offsets, block.is_user, boilerplate=boilerplate_of(pool.n))


@lru_cache(maxsize=1024)  # several tasks ask about one test set
def _given_away(test: Path, selected: Path) -> frozenset[str]:
    block = Block(pq.read_table(selected, columns=["messages"]).combine_chunks())
    found = _index(test).expose(block.contents, block.turn_offsets, block.is_user, np.arange(block.n))
    ids = PoolReader(test).sample_ids()[found.contaminated].astype(np.str_)
    return frozenset(ids.tolist())


def _merged(parts: "Iterator[dict[str, Exposure]]", tests: Mapping[str, Path]) -> "dict[str, Exposure]":
    from eval.contamination import Exposure

    found = {name: Exposure.none(_index(folder).m) for name, folder in tests.items()}
    for part in parts:
        found = {name: each.merge(part[name]) for name, each in found.items()}
    return found


def _rows(found: "Mapping[str, Exposure]", tests: Mapping[str, Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The items that share anything with some candidate, by set."""
    for name, exposure in found.items():
        ids = PoolReader(tests[name]).sample_ids().astype(np.str_)
        words = _index(tests[name]).sizes
        for item in np.flatnonzero((exposure.document >= 0) | (exposure.any_match >= 0)).tolist():
            document, match = int(exposure.document[item]), int(exposure.any_match[item])
            yield (
                name,
                {
                    "item": item,
                    "sample_id": str(ids[item]),
                    "words": int(words[item]),
                    "coverage": float(exposure.share[item]),
                    "row": document if document >= 0 else None,
                    "ngram_row": match if match >= 0 else None,
                    "contaminated": bool(exposure.contaminated[item]),
                },
            )


def _leaks(artifact: Artifact, tests: Mapping[str, Artifact]) -> Leaks:
    rows = pq.read_table(artifact.folder / CONTAMINATED_FILE).to_pylist()
    keys = {test.key: test.folder for test in tests.values()}
    hits = {key: frozenset(r["sample_id"] for r in rows if r["test"] == key and r["contaminated"]) for key in keys}
    return Leaks(artifact.key, keys, hits)

"""The filters that see the whole pool. Those that look at each row alone are in `warehouse/cleaning`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Final, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows import measure
from flows.grown import near_duplicates
from flows.sieve import PoolFilter, Sieve, blocks
from flows.sources import read
from selection import semantic
from selection.semantic import Pairs
from warehouse.block import Block
from warehouse.duplicates import Found, Part, duplicate_ids, exact_duplicates, found
from warehouse.errors import InputError
from warehouse.pools import PoolReader

MATCHES_FILE = "matches.parquet"
MATCHES = pa.schema(
    [("row", pa.int64()), ("set", pa.string()), ("rule", pa.int8()), ("item", pa.int64()), ("score", pa.float64())]
)


@dataclass(frozen=True, slots=True)
class DuplicateId:
    """Rows whose explicit `id` an earlier row of the same file has."""

    version: ClassVar[int] = 1

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        return duplicate_ids(sieve.reader, alive)


@dataclass(frozen=True, slots=True)
class ExactDuplicate:
    """Rows that repeat an earlier one: the whole conversation (`messages`), or its question alone (`prompt`)."""

    version: ClassVar[int] = 1

    by: Part = "messages"

    def __post_init__(self) -> None:
        if self.by not in get_args(Part):
            raise InputError(f"exact_duplicate: `by` is {self.by!r}; give {' or '.join(get_args(Part))}")

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        return exact_duplicates(sieve.reader, alive, self.by)


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Rows whose word n-grams an earlier row that stays shares: Jaccard similarity of at least `threshold`.

    Candidates are found by MinHash bands over `permutations` hashes and compared exactly.
    """

    version: ClassVar[int] = 1

    threshold: float = 0.8
    ngram: int = 5
    permutations: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.ngram < 1 or self.permutations < 1:
            raise InputError(
                f"near_duplicate: threshold {self.threshold}, ngram {self.ngram}, permutations {self.permutations}; "
                "give a threshold above 0 and up to 1, and at least 1 of the others"
            )

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        from warehouse.minhash import bands

        layout = bands(self.threshold, self.permutations)
        params = {"layout": asdict(layout), "ngram": self.ngram}
        made = sieve.per_file("fingerprint", self.version, params, {}, partial(fingerprint, layout, self.ngram))
        answer = near_duplicates(sieve, made, alive, self.threshold)
        if limited := len(answer.limited):
            sieve.run.listener.say(f"near_duplicate: {limited} rows stay that share keys with too many others")
        return _resembling(sieve, "near_duplicate", Pairs(answer.rows, answer.witnesses, answer.similarities))


@dataclass(frozen=True, slots=True)
class Contamination:
    """Rows that hold a row of the target or test set: all its words, a run of `ngram` words of it, or runs of
    `coverage_ngram` words that cover more than `coverage` of its question.

    Runs that more than `boilerplate` items share say nothing about any of them.
    """

    version: ClassVar[int] = 2

    ngram: int = 13
    coverage: float = 0.5
    coverage_ngram: int = 8
    boilerplate: int = 100

    def __post_init__(self) -> None:
        if min(self.ngram, self.coverage_ngram, self.boilerplate) < 1 or not 0 <= self.coverage < 1:
            raise InputError(
                f"contamination: ngram {self.ngram}, coverage_ngram {self.coverage_ngram}, boilerplate "
                f"{self.boilerplate}, coverage {self.coverage}; give a coverage from 0 to below 1 and at least 1 of "
                "the others"
            )

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        from warehouse.ngrams import RULES

        names = sorted(sieve.references, reverse=True)  # a row that is in both is reported for the test set
        folders = {name: sieve.references[name].folder for name in names}
        keys = {name: sieve.references[name].key for name in names}
        made = sieve.per_file("match", self.version, asdict(self), keys, partial(match, self, folders))
        starts = [file.first for file in sieve.reader.files]
        tables = [pq.read_table(artifact.folder / MATCHES_FILE) for artifact in made]
        rows = np.concatenate([table["row"].to_numpy() + start for table, start in zip(tables, starts, strict=True)])
        first = np.flatnonzero(np.diff(rows, prepend=-1))  # of each row: of the first set, by its strongest rule
        hits = pa.concat_tables(tables).take(first)
        sets = hits["set"].to_pylist()
        return found(
            rows[first],
            [f"{RULES[rule]}_in_{name}" for name, rule in zip(sets, hits["rule"].to_pylist(), strict=True)],
            others=hits["item"].to_numpy(),
            other_pools=[keys[name] for name in sets],
            values=hits["score"].to_numpy(),
        )


@dataclass(frozen=True, slots=True)
class SemanticDuplicate:
    """Rows whose vector has a cosine of at least `threshold` with that of an earlier row that stays."""

    version: ClassVar[int] = 1

    threshold: float = 0.95

    def __post_init__(self) -> None:
        _check_cosine("semantic_duplicate", self.threshold)

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        rows = np.flatnonzero(alive)
        pairs = semantic.near_duplicates(_vectors(sieve, rows), rows, self.threshold)
        return _resembling(sieve, "semantic_duplicate", pairs)


@dataclass(frozen=True, slots=True)
class SemanticContamination:
    """Rows whose vector has a cosine of at least `threshold` with that of a target or test row.

    The `listed` target and test rows that have the nearest neighbours are written down with them, however near.
    """

    version: ClassVar[int] = 1
    default_action: ClassVar[str] = "flag"

    threshold: float = 0.95
    listed: int = 20

    def __post_init__(self) -> None:
        _check_cosine("semantic_contamination", self.threshold)
        if self.listed < 0:
            raise InputError(f"semantic_contamination: `listed` is {self.listed}; give 0 or more")

    def __call__(self, sieve: Sieve, alive: NDArray[np.bool_]) -> Found:
        rows = np.flatnonzero(alive)
        vectors, first = _vectors(sieve, rows), dict[int, tuple[str, int, float]]()
        for name in sorted(sieve.references, reverse=True):  # a row that is near both is reported for the test set
            pairs = semantic.resembling(vectors, rows, _reference_vectors(sieve, name), self.threshold)
            columns = (pairs.rows.tolist(), pairs.others.tolist(), pairs.similarities.tolist())
            for row, other, value in zip(*columns, strict=True):
                first.setdefault(row, (name, other, value))
        near = sorted(first)
        hits = [first[row] for row in near]
        return found(
            np.array(near, np.int64),
            [f"near_{name}" for name, _, _ in hits],
            others=np.array([other for _, other, _ in hits], np.int64),
            other_pools=[sieve.references[name].key for name, _, _ in hits],
            values=np.array([value for _, _, value in hits], np.float64),
        )

    def nearest(self, sieve: Sieve, alive: NDArray[np.bool_]) -> dict[str, Pairs]:
        """For each reference set its `listed` rows with the nearest neighbours, and those: the nearest first."""
        rows = np.flatnonzero(alive)
        vectors, nearest = _vectors(sieve, rows), dict[str, Pairs]()
        for name in sorted(sieve.references):
            pairs = semantic.neighbours(vectors, rows, _reference_vectors(sieve, name), 1)
            best = np.argsort(-pairs.similarities, kind="stable")[: self.listed]
            nearest[name] = Pairs(pairs.rows[best], pairs.others[best], pairs.similarities[best])
        return nearest


POOL_FILTERS: Mapping[str, Callable[..., PoolFilter]] = {
    "duplicate_id": DuplicateId,
    "exact_duplicate": ExactDuplicate,
    "near_duplicate": NearDuplicate,
    "contamination": Contamination,
    "semantic_duplicate": SemanticDuplicate,
    "semantic_contamination": SemanticContamination,
}
AGAINST_REFERENCES: Final = frozenset({"contamination", "semantic_contamination"})
BY_VECTORS: Final = frozenset({"semantic_duplicate", "semantic_contamination"})


def _resembling(sieve: Sieve, reason: str, pairs: Pairs) -> Found:
    """Rows that another row of the same pool resembles."""
    k = len(pairs.rows)
    keys = [sieve.pool.key] * k
    return found(pairs.rows, [reason] * k, others=pairs.others, other_pools=keys, values=pairs.similarities)


def _check_cosine(name: str, threshold: float) -> None:
    if not 0 < threshold < 1:
        raise InputError(f"{name}: the threshold is {threshold}; give a cosine between 0 and 1, such as 0.95")


def _vectors(sieve: Sieve, rows: NDArray[np.int64]) -> Any:
    """The representation of `rows` of the pool, which was measured."""
    if not len(rows):
        return np.zeros((0, 1), np.float32)  # nothing may ever have been measured
    return measure.read(sieve.run, sieve.representation, sieve.reader, rows)


def _reference_vectors(sieve: Sieve, name: str) -> Any:
    return measure.read_whole(sieve.run, sieve.representation, read(sieve.references[name]))


def fingerprint(layout: Any, ngram: int, file: Path, out: Path) -> None:
    """Fingerprints of one file of samples, a folder for each row group."""
    from warehouse import near_duplicates

    for number, block in enumerate(blocks(file, ["messages"])):
        made = near_duplicates.fingerprint(block.contents, block.turn_offsets, layout, ngram)
        made.save(out / f"group-{number:05}")


def match(rules: Contamination, references: Mapping[str, Path], file: Path, out: Path) -> None:
    """Rows of one file of samples that hold a row of a reference set: by row, then set, the strongest rule first."""
    parts: list[pa.Table] = []
    first = 0
    for block in blocks(file, ["messages"]):
        for place, (name, folder) in enumerate(references.items()):
            found_here = _index(folder, rules).match(block.contents, block.turn_offsets, block.is_user)
            k = len(found_here.rows)
            columns = [found_here.rows + first, [name] * k, found_here.rules, found_here.items, found_here.scores]
            part = pa.table(dict(zip(MATCHES.names, columns, strict=True)), schema=MATCHES)
            parts.append(part.append_column("place", pa.array(np.full(k, place))))
        first += block.n
    order = [("row", "ascending"), ("place", "ascending"), ("rule", "ascending")]
    pq.write_table(pa.concat_tables(parts).sort_by(order).drop_columns("place"), out / MATCHES_FILE, compression="zstd")


@lru_cache(maxsize=8)
def _index(folder: Path, rules: Contamination) -> Any:
    """The n-grams of an ingested reference set; a worker builds them once."""
    from warehouse.ngrams import NgramIndex

    pool = PoolReader(folder)
    tables = [table for _, table in pool.take(np.arange(pool.n), ["messages"])]
    block = Block(pa.concat_tables(tables).combine_chunks())
    return NgramIndex.build(
        block.contents,
        block.turn_offsets,
        block.is_user,
        ngram=rules.ngram,
        covering=rules.coverage_ngram,
        share=rules.coverage,
        boilerplate=rules.boilerplate,
    )

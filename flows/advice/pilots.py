"""Mixtures of sources: which are tried, which rows each holds, and the training file of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.choose import SAMPLE_COLUMNS, Question
from flows.run import Counts, Run
from flows.sources import read
from selection.dmt import source_rng
from selection.mixing import counts_of, in_proportion, largest_remainder
from warehouse.errors import InputError
from warehouse.pools import PoolReader
from warehouse.records import Floats, Rows
from warehouse.store import TRAINED_ON, Artifact, Draft, Work
from warehouse.tables import MIXTURE, SELECTED, SELECTED_FILE, write_rows
from warehouse.trained_rows import key_of_rows

MIXTURE_VERSION = 2
MIXTURE_FILE = "mixture.parquet"
THOUSAND = 1000  # shares are whole thousandths: they can be read, and typed into a recipe
PATIENCE = 1000  # random mixtures drawn in vain before it is plain that there are no others
PART_ROWS = 16_384  # of a training file in memory at once


@dataclass(frozen=True, slots=True)
class Stock:
    """The sources that are weighed: (s,) names, and of each its candidates: rows of the pool in the order of keys.

    Raises `InputError` for a source that has no candidates, and where there are fewer than two.
    """

    names: tuple[str, ...]
    rows: tuple[Rows, ...]

    @classmethod
    def of(cls, question: Question, wanted: Sequence[str]) -> "Stock":
        """The candidates of the sources `wanted`, in that order; of all sources by name where none is named."""
        pool, candidates = read(question.pool), question.rows()
        codes, labels = pool.source_codes()
        ordered = candidates[np.argsort(pool.keys()[candidates], kind="stable")]
        found = {label: ordered[codes[ordered] == code] for code, label in enumerate(labels)}
        found = {label: found[label] for label in sorted(found) if len(found[label])}
        listed = ", ".join(f"{label} ({len(rows):,} rows)" for label, rows in found.items())
        if missing := [name for name in wanted if name not in found]:
            raise InputError(f"no candidates of source {', '.join(missing)}; the pool has {listed}")
        names = tuple(wanted or found)
        if len(names) < 2:
            raise InputError(f"advice weighs sources against each other, but the candidates are all of {listed}")
        return cls(names, tuple(found[name] for name in names))

    @property
    def available(self) -> Rows:
        """(s,) candidates of each source."""
        return np.array([len(rows) for rows in self.rows], np.int64)

    def sampled(self, most: int, seed: int) -> tuple[Rows, ...]:
        """At most `most` rows of each source, ascending, drawn at random."""
        return tuple(
            np.sort(source_rng(seed, name).permutation(rows)[:most])
            for name, rows in zip(self.names, self.rows, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows (n,) of a mixture in the order of training, the place (n,) of their source, which (n,) were there before."""

    rows: Rows
    source_of: Rows
    again: NDArray[np.bool_]


def mixtures(available: Rows, count: int, rng: np.random.Generator) -> Floats:
    """(count, s) shares to try: each source alone, all alike, in proportion to their rows, then drawn evenly at random.

    All differ, and are whole thousandths. Raises `InputError` where there are not so many.
    """
    s = len(available)
    planned = [*np.eye(s), np.ones(s), available.astype(np.float64)]
    found: dict[tuple[int, ...], None] = {}
    for tried in range(s + 2 + PATIENCE):
        if len(found) == count:
            break
        shares = planned[tried] if tried < len(planned) else rng.dirichlet(np.ones(s))
        found.setdefault(tuple(largest_remainder(shares, THOUSAND).tolist()))
    else:
        raise InputError(f"{count} mixtures of {s} sources are too many: give fewer")
    return np.array(list(found), np.float64) / THOUSAND


def draw(stock: Stock, shares: Floats, n: int, seed: int) -> Drawn:
    """n rows in proportion to `shares` (s,).

    A source gives the first rows of a random order of its own, so mixtures and sizes of one seed share what they can.
    No row comes twice before all of its source have come.
    """
    counts = counts_of(shares, stock.available, n, "repeat")
    taken, again = [], []
    for name, rows, k in zip(stock.names, stock.rows, counts.tolist(), strict=True):
        rng = source_rng(seed, name)
        passes = [rng.permutation(rows) for _ in range(-(-k // len(rows)))]
        taken.append(np.concatenate([rows[:0], *passes])[:k])
        again.append(np.arange(k) >= len(rows))
    group = np.repeat(np.arange(len(counts)), counts)
    order = in_proportion(shares, group, np.arange(len(counts)))
    return Drawn(np.concatenate(taken)[order], group[order], np.concatenate(again)[order])


@dataclass(frozen=True, slots=True)
class Blend:
    """What a training file is asked with: shares (s,) of the sources, rows, the seed of the draw, what it is for."""

    shares: Floats
    n: int
    seed: int
    purpose: str

    def title(self, stock: Stock) -> str:
        return f"{self.n} rows of {shown(stock.names, self.shares)} seed {self.seed}"


def shown(names: Sequence[str], shares: Floats) -> str:
    """A mixture for a person: sources without a share are left out."""
    return " + ".join(f"{share:.3g} {name}" for name, share in zip(names, shares, strict=True) if share > 0)


def mix(run: Run, question: Question, stock: Stock, blend: Blend) -> Artifact:
    """The training file of `blend`, and its rows of the table `mixtures`."""
    shares = dict(zip(stock.names, blend.shares.tolist(), strict=True))
    params = {"shares": shares, "rows": blend.n, "purpose": blend.purpose}
    inputs = {"pool": question.pool.key, "candidates": question.candidates.key}
    work = Work("mixture", MIXTURE_VERSION, params, inputs, seed=blend.seed)

    def make(draft: Draft) -> Counts:
        drawn = draw(stock, blend.shares, blend.n, blend.seed)
        return _write(draft, work, question, stock, drawn, shares)

    return run.stage(f"mix {blend.title(stock)}", work, make)


def ordered(run: Run, question: Question, stock: Stock, advice: Artifact, name: str, rows: Rows) -> Artifact:
    """The training file of one stage of an ordered manifest: `rows` of the pool, in that order, each once."""
    inputs = {"pool": question.pool.key, "candidates": question.candidates.key, "advice": advice.key}
    work = Work("mixture", MIXTURE_VERSION, {"purpose": name}, inputs)
    codes = np.full(read(question.pool).n, -1, np.int64)
    for code, of_source in enumerate(stock.rows):
        codes[of_source] = code
    group = codes[rows]
    counts = np.bincount(group, minlength=len(stock.names))
    shares = dict(zip(stock.names, (counts / len(rows)).tolist(), strict=True))
    drawn = Drawn(rows, group, np.zeros(len(rows), np.bool_))
    return run.stage(
        f"mix {name}", work, partial(_write, work=work, question=question, stock=stock, drawn=drawn, shares=shares)
    )


def _write(
    draft: Draft, work: Work, question: Question, stock: Stock, drawn: Drawn, shares: Mapping[str, float]
) -> Counts:
    pool = read(question.pool)
    _write_training_file(draft, work.key, question.pool.key, pool, drawn)
    draft.facts[TRAINED_ON] = key_of_rows(draft.folder / SELECTED_FILE)
    counts, repeats = (
        np.bincount(group, minlength=len(stock.names)) for group in (drawn.source_of, drawn.source_of[drawn.again])
    )
    parts = [
        {"mixture": work.key, "pool": question.pool.key, "source": name, "share": shares[name], "rows": int(counts[at]),
         "repeats": int(repeats[at]), "available": len(stock.rows[at]), "seed": work.seed,
         "purpose": work.params["purpose"], "data": draft.facts[TRAINED_ON]}
        for at, name in enumerate(stock.names) if counts[at]
    ]  # fmt: skip
    write_rows(draft.folder / MIXTURE_FILE, MIXTURE, parts)
    draft.facts["repeat"] = int(drawn.again.sum())
    distinct, available = len(drawn.rows) - draft.facts["repeat"], int(stock.available.sum())
    left = {"not drawn": available - distinct, "not candidates": pool.n - available}
    return Counts(pool.n, distinct, {reason: n for reason, n in left.items() if n})


def _write_training_file(draft: Draft, key: str, pool_key: str, pool: PoolReader, drawn: Drawn) -> None:
    """As `selected.parquet` of a selection, which trainers read; a row that comes again is there again."""
    with pq.ParquetWriter(draft.folder / SELECTED_FILE, SELECTED, compression="zstd") as file:
        for start in range(0, len(drawn.rows), PART_ROWS):
            rows, again = drawn.rows[start : start + PART_ROWS], drawn.again[start : start + PART_ROWS]
            each, place = np.unique(rows, return_inverse=True)
            samples = pa.concat_tables(table for _, table in pool.take(each, SAMPLE_COLUMNS)).take(place)
            k = len(rows)
            own = {
                "selection": [key] * k,
                "pool": [pool_key] * k,
                "row": rows,
                "rank": np.arange(start + 1, start + k + 1),
                "score": pa.nulls(k, pa.float64()),
                "weight": np.ones(k),
                "reason": np.where(again, "repeat", "drawn").astype(np.object_),
            }
            columns = own | dict(zip(samples.column_names, samples.columns, strict=True))
            file.write_table(pa.table(columns, schema=SELECTED))

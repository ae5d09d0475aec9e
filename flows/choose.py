"""The selection stage: keep target and test rows out, put the question to a method, write down the answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.overlap import check_disjoint, overlaps
from flows import measure
from flows.measure import Meter
from flows.recipes import Named
from flows.run import Counts, Run
from flows.sources import read
from selection.problem import Method, Problem, Signal
from selection.table import METHODS, build
from warehouse.pools import PoolReader
from warehouse.records import Example, Rows, Selection, Spec, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import EXCLUDED, SELECTED, SELECTION, write_rows

OVERLAP_VERSION = 1
SELECT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Question:
    """The ingested pool, target and test, and the rows that may not be chosen. `target` and `test` may be missing."""

    pool: Artifact
    target: Artifact | None
    test: Artifact | None
    excluded: Artifact


def exclude(run: Run, pool: Artifact, target: Artifact | None, test: Artifact | None) -> Artifact:
    """Find the pool's rows that ask what a target or test row asks; they are dropped from the candidates and listed.

    Raises `InputError` where the target set and the test set share a row.
    """
    if target is not None and test is not None:
        check_disjoint(_ids(target), _ids(test))
    inputs = {"pool": pool.key} | _keys(target=target, test=test)
    work = Work("overlap", OVERLAP_VERSION, inputs=inputs)

    def make(draft: Draft) -> Counts:
        found = {name: overlaps(_ids(pool), _ids(other)) for name, other in _named(target=target, test=test)}
        rows = [
            {"pool": pool.key, "row": hit.row, "sample_id": hit.sample_id, "reason": hit.reason(name), "other_row": hit.other_row}
            for name, hits in found.items()
            for hit in hits
        ]
        write_rows(draft.folder / "excluded.parquet", EXCLUDED, rows)
        taken = {name: len({hit.row for hit in hits}) for name, hits in found.items()}
        everything = {row["row"] for row in rows}
        n = read(pool).n
        draft.facts["shared_with"] = taken
        return Counts(n, n - len(everything), {"asked in the target or test set": len(everything)} if everything else {})

    return run.stage("overlap", work, make)

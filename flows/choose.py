"""The selection stage: keep target and test rows out, put the question to a method, write down the answer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.overlap import Ids, overlap, overlaps, require_disjoint
from flows import measure
from flows.measure import Meter
from flows.run import Counts, Run
from flows.sources import read
from selection.problem import Method, Problem
from selection.table import build
from warehouse.errors import InputError
from warehouse.pool_writer import message_lists
from warehouse.pools import PoolReader
from warehouse.records import Rows, Selection, Spec, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import EXCLUDED, SELECTED, SELECTION, write_rows

OVERLAP_VERSION = 1
SELECT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Question:
    """What is chosen from, for what, and what may not be chosen: ingested pool and target, and the overlap stage."""

    pool: Artifact
    target: Artifact | None
    excluded: Artifact


@dataclass(frozen=True, slots=True)
class Choice:
    """A method with its parameters, a budget in rows and a seed: what one selection is asked with."""

    name: str
    params: Mapping[str, Any]
    budget: int
    seed: int

    @property
    def label(self) -> str:
        """The method as tables name it: with the parameters that are not its defaults."""
        given = ", ".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        return f"{self.name}({given})" if given else self.name

    @property
    def title(self) -> str:
        return f"select {self.label} {self.budget} seed {self.seed}"


def exclude(run: Run, pool: Artifact, target: Artifact | None, test: Artifact | None) -> Artifact:
    """Find the pool's rows that ask what a target or test row asks; they are no candidates, and they are listed.

    Raises `InputError` where the target set and the test set share a row.
    """
    others = {name: other for name, other in (("target", target), ("test", test)) if other is not None}
    if target is not None and test is not None:
        require_disjoint(ids_of(target), ids_of(test))
    work = Work("overlap", OVERLAP_VERSION, inputs={"pool": pool.key} | {name: a.key for name, a in others.items()})

    def make(draft: Draft) -> Counts:
        candidates = ids_of(pool)
        rows = [row for name, other in others.items() for row in _shared(pool.key, candidates, name, ids_of(other))]
        write_rows(draft.folder / "excluded.parquet", EXCLUDED, rows)
        first_reason = {row["row"]: row["reason"] for row in reversed(rows)}  # a row in both sets counts once
        dropped = dict(sorted(Counter(first_reason.values()).items()))
        n = len(candidates.sample)
        return Counts(n, n - len(first_reason), dropped)

    return run.stage("overlap", work, make)


def _shared(pool_key: str, pool: Ids, name: str, other: Ids) -> list[dict[str, Any]]:
    """Rows of the pool that are in the target or test set, each with the first row there that asks the same."""
    found = overlap(pool, other)
    first = {prompt: row for row, prompt in reversed(list(enumerate(other.prompt.tolist())))}
    same_row = set(found.same_row.tolist())
    return [
        {
            "pool": pool_key,
            "row": row,
            "sample_id": str(pool.sample[row]),
            "reason": f"same_{'messages' if row in same_row else 'prompt'}_as_{name}",
            "other_row": first.get(str(pool.prompt[row])),
        }
        for row in found.same_prompt.tolist()
    ]


def check_budget(question: Question, budgets: Sequence[int]) -> None:
    """Raise `InputError` where a budget is larger than what may be chosen, before anything is measured."""
    facts = question.excluded.manifest["facts"]
    if max(budgets) > facts["rows_out"]:
        kept_out = facts["rows_in"] - facts["rows_out"]
        raise InputError(
            f"the budget is {max(budgets):,} rows but the pool has {facts['rows_in']:,}"
            f"{f', of which {kept_out:,} ask what the target or test set asks' if kept_out else ''}; "
            f"give at most {facts['rows_out']:,}"
        )


def ids_of(artifact: Artifact) -> Ids:
    """The identities of an ingested set of rows."""
    pool = read(artifact)
    return Ids(pool.sample_ids().astype(np.str_), pool.prompt_ids().astype(np.str_))


def select(run: Run, question: Question, choice: Choice, meter: Meter) -> Artifact:
    """The rows that `choice` takes, as the tables `selections` and `selected` and as training data."""
    method = build(choice.name, choice.params, **meter.filled())
    reads = {name: spec.key for name, spec in method.reads.items()}
    inputs = {"pool": question.pool.key, "excluded": question.excluded.key, "signals": reads}
    if question.target is not None:
        inputs["target"] = question.target.key
    params = {"method": choice.name, "params": dict(choice.params), "budget": choice.budget}
    work = Work("select", SELECT_VERSION, params, inputs, seed=choice.seed)

    def make(draft: Draft) -> Counts:
        pool = read(question.pool)
        candidates = _candidates(question.excluded, pool.n)
        problem = _problem(run, question, method, choice.budget, pool, candidates)
        answer = method(problem, np.random.default_rng(choice.seed))
        _write(draft, work.key, question.pool.key, choice, pool, candidates[answer.rows], answer)
        return Counts(
            pool.n,
            len(answer.rows),
            {"not chosen": len(candidates) - len(answer.rows), **_kept_out(pool.n, candidates)},
        )

    return run.stage(choice.title, work, make)


def _candidates(excluded: Artifact, n: int) -> Rows:
    """(c,) rows of the pool that may be chosen, ascending."""
    out = pq.read_table(excluded.folder / "excluded.parquet", columns=["row"])["row"].to_numpy()
    return np.setdiff1d(np.arange(n, dtype=np.int64), out)


def _kept_out(n: int, candidates: Rows) -> dict[str, int]:
    return {"asked in target or test": n - len(candidates)} if len(candidates) < n else {}


def _problem(run: Run, question: Question, method: Method, budget: int, pool: PoolReader, candidates: Rows) -> Problem:
    whole = len(candidates) == pool.n
    signals = {name: measure.read(run, spec, pool) for name, spec in method.reads.items()}
    target = read(question.target) if question.target is not None else None
    tasks, task_of = np.unique(target.sources().astype(str), return_inverse=True) if target else (np.zeros(0, str), [])
    return Problem(
        budget=budget,
        keys=pool.keys()[candidates],
        candidates={name: values if whole else values[candidates] for name, values in signals.items()},
        targets={name: measure.read(run, spec, target) for name, spec in method.reads.items()} if target else {},
        target_task=np.asarray(task_of, np.int64),
        task_names=tuple(tasks.tolist()),
        groups={"source": pool.sources()[candidates]},
    )


def _write(
    draft: Draft, key: str, pool_key: str, choice: Choice, pool: PoolReader, rows: Rows, answer: Selection
) -> None:
    spec = Spec(choice.name, dict(choice.params))
    summary = {
        "selection": key,
        "pool": pool_key,
        "method": choice.label,
        "spec": spec.key,
        "params": canonical(dict(choice.params)),
        "budget": choice.budget,
        "seed": choice.seed,
        "rows": len(rows),
        "direction": str(answer.diagnostics["direction"]),
        "cutoff": float(answer.diagnostics.get("cut_off", answer.scores[-1])),
        "diagnostics": canonical(dict(answer.diagnostics)),
    }
    write_rows(draft.folder / "selection.parquet", SELECTION, [summary])
    chosen = {
        "selection": [key] * len(rows),
        "pool": [pool_key] * len(rows),
        "row": rows,
        "sample_id": pool.sample_ids()[rows].astype(np.str_),
        "rank": np.arange(1, len(rows) + 1),
        "score": answer.scores,
        "weight": answer.weights,
        "reason": list(answer.reasons),
    }
    pq.write_table(pa.table(chosen, schema=SELECTED), draft.folder / "selected.parquet", compression="zstd")
    _write_data(draft, pool, rows)


def _write_data(draft: Draft, pool: PoolReader, rows: Rows) -> None:
    """The chosen conversations, best first: what a trainer reads."""
    examples = pool.examples(rows)
    data = pa.table({"row": rows, "messages": message_lists([example.messages for example in examples])})
    pq.write_table(data, draft.folder / "data.parquet", compression="zstd")


def chosen_rows(selection: Artifact) -> Mapping[str, NDArray[Any]]:
    """The columns of a selection's `selected` table, best first."""
    table = pq.read_table(selection.folder / "selected.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def check_clean(selections: Sequence[Artifact], pool: Artifact, test: Artifact) -> None:
    """Raises `RuntimeError` where a chosen row asks what a test row asks: the overlap stage must have kept it out."""
    chosen = {selection.key: chosen_rows(selection)["row"] for selection in selections}
    found = overlaps(ids_of(test), ids_of(pool), chosen)
    for key in chosen:
        if leaks := found[key]:
            raise RuntimeError(f"{leaks.counts()} test rows are in selection {key[:12]}; nothing was trained on them")

"""The selection stage: keep target and test rows out, put the question to a method, write down the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.overlap import Ids, overlap, require_disjoint
from flows import measure
from flows.clean import Asked, survivors, write_steps
from flows.run import Counts, Run
from flows.sieve import Sieve
from flows.sources import read
from selection.limits import Limits, choose
from selection.problem import Method, Problem, Reads, signals_of
from warehouse.duplicates import Found, found
from warehouse.errors import InputError
from warehouse.ids import IdIndex
from warehouse.pools import PoolReader
from warehouse.records import Rows, Selection, Spec, canonical
from warehouse.store import TRAINED_ON, Artifact, Draft, Work
from warehouse.tables import SELECTED, SELECTED_FILE, SELECTION, write_rows
from warehouse.trained_rows import key_of_rows

OVERLAP_VERSION = 2
SELECT_VERSION = 4
CANDIDATES_FILE = "candidates.npy"
CHOSEN_COLUMNS = ["row", "sample_id", "rank", "score", "weight", "reason", "source"]
SAMPLE_COLUMNS = [
    "sample_id", "source", "messages", "turns", "chars", "language", "has_code", "has_math", "family", "licence",
    "meta",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What is chosen from, for what, and what may be chosen: ingested pool and target, and the overlap stage."""

    pool: Artifact
    target: Artifact | None
    candidates: Artifact

    def rows(self) -> Rows:
        """(c,) rows of the pool that may be chosen, ascending."""
        rows: Rows = np.load(self.candidates.folder / CANDIDATES_FILE, allow_pickle=False)
        return rows


@dataclass(frozen=True, slots=True)
class Choice:
    """A method as the recipe names it, what its answer keeps to, and a seed: what one selection is asked with.

    `called` is what tables call it, where the recipe says so.
    """

    name: str
    params: Mapping[str, Any]
    method: Method
    limits: Limits
    seed: int
    called: str | None = None

    @property
    def budget(self) -> int:
        return self.limits.budget

    @property
    def label(self) -> str:
        """The method as tables name it: with the parameters that are not its defaults."""
        return self.called or label(self.name, self.params)

    @property
    def title(self) -> str:
        unit = "" if self.limits.unit == "rows" else f" {self.limits.unit}"
        return f"{self.label} {self.budget}{unit} seed {self.seed}"


def label(name: str, params: Mapping[str, Any]) -> str:
    """A method and the parameters that a recipe gives it."""
    given = ", ".join(f"{param}={value}" for param, value in sorted(params.items()))
    return f"{name}({given})" if given else name


def exclude(sieve: Sieve, cleaned: Sequence[Artifact]) -> Artifact:
    """The candidates: rows that no filter dropped and that ask nothing a target or test row asks; those are listed.

    Raises `InputError` where the target set and the test set share a row.
    """
    others = sieve.references
    for name in others.keys() - {"target"} if "target" in others else ():
        require_disjoint(ids_of(others["target"]), ids_of(others[name]))
    references = {name: artifact.key for name, artifact in others.items()}
    inputs = {"pool": sieve.pool.key, "after": cleaned[-1].key if cleaned else None, **references}
    work = Work("overlap", OVERLAP_VERSION, inputs=inputs)

    def make(draft: Draft) -> Counts:
        alive = survivors(cleaned, sieve.reader.n)
        last = max((f["step"] for stage in cleaned for f in stage.manifest["params"]["filters"]), default=0)
        found_here = _overlap(sieve)
        step = Asked(last + 1, "overlap", {}, "drop")
        counts = write_steps(draft, work.key, sieve, [(step, found_here)], alive)
        alive[found_here.rows] = False
        np.save(draft.folder / CANDIDATES_FILE, np.flatnonzero(alive), allow_pickle=False)
        return counts

    return sieve.run.stage("overlap", work, make)


def _overlap(sieve: Sieve) -> Found:
    """Rows of the pool that are in the target or test set, each with the first row there that asks the same."""
    pool = sieve.reader
    samples, prompts = pool.sample_ids(), pool.prompt_ids()
    seen: dict[int, tuple[str, int, str]] = {}
    for name, artifact in sieve.references.items():
        other = read(artifact)
        same, asks = IdIndex(other.sample_ids()).find(samples), IdIndex(other.prompt_ids()).find(prompts)
        for row in np.flatnonzero(asks >= 0).tolist():  # who says the same also asks the same
            reason = f"same_{'messages' if same[row] >= 0 else 'prompt'}_as_{name}"
            seen.setdefault(row, (reason, int(asks[row]), artifact.key))
    rows = np.array(sorted(seen), np.int64)
    reasons, others, pools = zip(*(seen[row] for row in rows.tolist()), strict=True) if seen else ((), (), ())
    return found(rows, reasons, others=np.array(others, np.int64), other_pools=pools)


def check_budget(question: Question, budgets: Sequence[int]) -> None:
    """Raise `InputError` where a budget in rows is larger than what may be chosen, before anything is measured."""
    n, left = question.pool.manifest["facts"]["rows_out"], question.candidates.manifest["facts"]["rows_out"]
    if max(budgets) > left:
        asked = sum(question.candidates.manifest["facts"]["dropped"].values())
        kept_out = {"were dropped in cleaning": n - left - asked, "ask what the target or test set asks": asked}
        why = " and ".join(f"{count:,} {what}" for what, count in kept_out.items() if count)
        raise InputError(
            f"the budget is {max(budgets):,} rows but the pool has {n:,}{f', of which {why}' if why else ''}; "
            f"give at most {left:,}"
        )


def check_limits(question: Question, given: Sequence[Limits]) -> None:
    """Raise `InputError` for caps and floors that the candidates cannot meet, before anything is measured."""
    bound = [limits for limits in given if limits.caps or limits.floors]
    if not bound:
        return
    sources, rows = np.unique(read(question.pool).sources()[question.rows()].astype(str), return_counts=True)
    for limits in bound:
        limits.check(sources, rows.astype(np.float64) if limits.unit == "rows" else np.full(len(rows), np.inf))


def ids_of(artifact: Artifact) -> Ids:
    """The identities of an ingested set of rows."""
    pool = read(artifact)
    return Ids(pool.sample_ids().astype(np.str_), pool.prompt_ids().astype(np.str_))


def select(run: Run, question: Question, choice: Choice, length: Spec | None = None) -> Artifact:
    """The rows that `choice` takes, as the tables `selections` and `selected` and as training data.

    `length` is the signal that a budget in tokens counts by.
    """
    reads = signals_of(choice.method)
    inputs = {
        "pool": question.pool.key,
        "candidates": question.candidates.key,
        "signals": {name: spec.key for name, spec in reads.candidates.items()},
    }
    if question.target is not None:
        inputs["target"] = question.target.key
    params: dict[str, Any] = {"method": choice.name, "params": dict(choice.params), "budget": choice.budget}
    params |= {"called": choice.called} if choice.called else {}  # it is written into the tables
    if not choice.limits.plain:
        counted = length.key if length is not None and choice.limits.unit == "tokens" else None
        params["limits"] = {
            "unit": choice.limits.unit, "tokens": counted,
            "caps": dict(choice.limits.caps), "floors": dict(choice.limits.floors),
        }  # fmt: skip
    work = Work("select", SELECT_VERSION, params, inputs, seed=choice.seed)

    def make(draft: Draft) -> Counts:
        pool = read(question.pool)
        candidates = question.rows()
        answer = choose(
            choice.method, _problem(run, question, reads, length, pool, candidates), choice.limits, choice.seed
        )
        _write(draft, work.key, question.pool.key, choice, pool, candidates[answer.rows], answer)
        return Counts(
            pool.n,
            len(answer.rows),
            {"not chosen": len(candidates) - len(answer.rows), **_kept_out(pool.n, candidates)},
        )

    return run.stage(f"select {choice.title}", work, make)


def _kept_out(n: int, candidates: Rows) -> dict[str, int]:
    return {"not candidates": n - len(candidates)} if len(candidates) < n else {}


def _problem(
    run: Run, question: Question, reads: Reads, length: Spec | None, pool: PoolReader, candidates: Rows
) -> Problem:
    target = read(question.target) if question.target is not None else None
    tasks, task_of = np.unique(target.sources().astype(str), return_inverse=True) if target else (np.zeros(0, str), [])
    costs = None if length is None else np.asarray(measure.read_whole(run, length, pool, candidates))
    return Problem(
        budget=1,
        keys=pool.keys()[candidates],
        candidates={name: measure.read(run, spec, pool, candidates) for name, spec in reads.candidates.items()},
        targets={name: measure.read_whole(run, spec, target) for name, spec in reads.targets.items()} if target else {},
        target_task=np.asarray(task_of, np.int64),
        task_names=tuple(tasks.tolist()),
        groups={"source": pool.sources()[candidates], "instruction": _codes(pool.prompt_ids()[candidates])},
        costs=costs,
    )


def _codes(labels: NDArray[Any]) -> Rows:
    """A number for each of `labels` (n,); equal ones have the same."""
    return np.asarray(np.unique(labels, return_inverse=True)[1], np.int64)


def _write(
    draft: Draft, key: str, pool_key: str, choice: Choice, pool: PoolReader, rows: Rows, answer: Selection
) -> None:
    _write_chosen(draft, key, pool_key, pool, rows, answer)
    draft.facts[TRAINED_ON] = key_of_rows(draft.folder / SELECTED_FILE)
    spec = Spec(choice.name, dict(choice.params))
    summary = {
        "selection": key,
        "pool": pool_key,
        "method": choice.label,
        "spec": spec.key,
        "params": canonical(dict(choice.params)),
        "budget": choice.budget,
        "unit": choice.limits.unit,
        "seed": choice.seed,
        "rows": len(rows),
        "direction": str(answer.diagnostics["direction"]),
        "cutoff": float(answer.scores[-1] if (cut := answer.diagnostics.get("cut_off")) is None else cut),
        "diagnostics": canonical(dict(answer.diagnostics)),
        "data": draft.facts[TRAINED_ON],
    }
    write_rows(draft.folder / "selection.parquet", SELECTION, [summary])


def _write_chosen(draft: Draft, key: str, pool_key: str, pool: PoolReader, rows: Rows, answer: Selection) -> None:
    reasons = np.array(list(answer.reasons), np.object_)
    with pq.ParquetWriter(draft.folder / SELECTED_FILE, SELECTED, compression="zstd") as file:
        for start, samples in pool.in_order(rows, SAMPLE_COLUMNS):
            part = slice(start, start + len(samples))
            k = len(samples)
            chosen = {
                "selection": [key] * k,
                "pool": [pool_key] * k,
                "row": rows[part],
                "rank": np.arange(start + 1, start + k + 1),
                "score": answer.scores[part],
                "weight": answer.weights[part],
                "reason": reasons[part],
            }
            columns = chosen | dict(zip(samples.column_names, samples.columns, strict=True))
            file.write_table(pa.table(columns, schema=SELECTED))


def chosen_rows(selection: Artifact) -> Mapping[str, NDArray[Any]]:
    """The columns of a selection's `selected` table that are its own, best first."""
    table = pq.read_table(selection.folder / SELECTED_FILE, columns=CHOSEN_COLUMNS)
    return {name: table[name].to_numpy() for name in table.column_names}


def check_clean(selections: Sequence[Artifact], pool: Artifact, held_out: Mapping[str, Artifact]) -> None:
    """Raises `RuntimeError` where a chosen row asks what a test row asks: the overlap stage must have kept it out."""
    reader, tests = read(pool), {name: ids_of(each) for name, each in held_out.items()}
    samples, prompts = reader.sample_ids(), reader.prompt_ids()
    for selection in selections:
        rows = chosen_rows(selection)["row"]
        chosen = Ids(samples[rows].astype(np.str_), prompts[rows].astype(np.str_))
        for name, ids in tests.items():
            if leaks := overlap(chosen, ids):
                counts, key = leaks.counts(), selection.key[:12]
                raise RuntimeError(f"{counts} rows of {name} are in selection {key}; nothing was trained on them")

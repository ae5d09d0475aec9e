"""The comparison stage: every method over all its seeds, and against the control, paired by item and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.compare import average
from eval.compare import compare as versus
from eval.metrics import metrics_of
from flows.run import Counts, Run
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import RESULTS, write_rows

COMPARE_VERSION = 1
RESULTS_FILE = "results.parquet"
Cost = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Arm:
    """One method, budget and seed: what was selected, tuned, assessed. The untouched base model was assessed only."""

    method: str
    budget: int
    seed: int
    selection: Artifact | None
    checkpoint: Artifact | None
    evaluations: tuple[Artifact, ...]


Group = Sequence[Arm]  # the arms of one method and budget, one per seed


def compare(run: Run, arms: Sequence[Arm], control: str, measured: Mapping[str, Cost], seed: int) -> Artifact:
    """The table `results`. `measured` is what the signals of each method took; every method that reads them pays."""
    keys = [[arm.method, arm.budget, arm.seed, *(e.key for e in arm.evaluations)] for arm in arms]
    work = Work("compare", COMPARE_VERSION, {"control": control}, {"arms": keys}, seed=seed)

    def make(draft: Draft) -> Counts:
        rows = [
            row
            for group in _groups(arms)
            for row in _rows(work.key, group, _control(arms, control, group), measured, seed)
        ]
        write_rows(draft.folder / RESULTS_FILE, RESULTS, rows)
        return Counts(len(arms), len(rows))

    return run.stage("compare", work, make)


def rows_of(compared: Artifact) -> list[dict[str, Any]]:
    """The results as plain values, as `--json` gives them."""
    return [_plain(row) for row in pq.read_table(compared.folder / RESULTS_FILE).to_pylist()]


def _groups(arms: Sequence[Arm]) -> list[Group]:
    names = dict.fromkeys((arm.method, arm.budget) for arm in arms)
    return [[arm for arm in arms if (arm.method, arm.budget) == name] for name in names]


def _control(arms: Sequence[Arm], control: str, group: Group) -> Group:
    """The control's arms of the group's budget, the smallest for the base model, which has none; empty without one."""
    budgets = [arm.budget for arm in arms if arm.method == control]
    wanted = group[0].budget or min(budgets, default=0)
    return [arm for arm in arms if arm.method == control and arm.budget == wanted]


def _rows(key: str, group: Group, control: Group, measured: Mapping[str, Cost], seed: int) -> list[dict[str, Any]]:
    rows = []
    for place in range(len(group[0].evaluations)):
        tables = _tables(group, place)
        names = {name for table in tables.values() for name in table["metric"].to_pylist()}
        for metric in metrics_of(names):
            rows.append(
                {"comparison": key, **_facts(group, place), **_cost(group, measured), "metric": metric}
                | _average(tables, metric, seed)
                | (_difference(tables, _tables(control, place), metric, seed) if control else {})
            )
    return rows


def _tables(group: Group, place: int) -> dict[int, pa.Table]:
    return {arm.seed: pq.read_table(arm.evaluations[place].folder / "eval_items.parquet") for arm in group}


def _facts(group: Group, place: int) -> dict[str, Any]:
    return {
        "method": group[0].method,
        "budget": group[0].budget,
        "seeds": json.dumps([arm.seed for arm in group]),
        "task": group[0].evaluations[place].manifest["params"]["task"],
        "selections": json.dumps([arm.selection.key for arm in group if arm.selection]),
        "checkpoints": json.dumps([arm.checkpoint.key for arm in group if arm.checkpoint]),
        "evaluations": json.dumps([arm.evaluations[place].key for arm in group]),
    }


def _average(tables: Mapping[int, pa.Table], metric: str, seed: int) -> dict[str, Any]:
    found = average(tables, metric, np.random.default_rng(seed))
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _difference(
    tables: Mapping[int, pa.Table], control: Mapping[int, pa.Table], metric: str, seed: int
) -> dict[str, Any]:
    if len(tables) == 1 and len(control) > 1:  # the base model was assessed once: it is the same for every seed
        tables = dict.fromkeys(control, next(iter(tables.values())))
    found = versus(tables, control, metric, np.random.default_rng(seed))
    return {
        "difference": found.difference.value,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "seed_differences": json.dumps(list(found.by_seed)),
        "verdict": found.verdict,
    }


def _cost(group: Group, measured: Mapping[str, Cost]) -> dict[str, float]:
    """Seconds and FLOPs of measuring (once), selecting and training (every seed)."""
    signals = measured.get(group[0].method, {})
    trained = [
        pq.read_table(arm.checkpoint.folder / "checkpoint.parquet").to_pylist()[0] for arm in group if arm.checkpoint
    ]
    selecting = sum(arm.selection.manifest["seconds"] for arm in group if arm.selection)
    return {
        "seconds": signals.get("seconds", 0.0) + selecting + sum(row["seconds"] for row in trained),
        "flops": signals.get("flops", 0.0) + sum(row["flops"] for row in trained),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    difference = {"difference": row["difference"], "low": row["difference_low"], "high": row["difference_high"]}
    return {
        **{name: row[name] for name in ("method", "budget", "task", "metric", "value", "low", "high", "n", "verdict")},
        "seeds": json.loads(row["seeds"]),
        "versus_balanced_random": difference if row["difference"] is not None else None,
    }

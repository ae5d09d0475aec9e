"""The comparison stage: every method over all its seeds, and against the control, paired by item and seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eval.compare import average, overall, overall_average, standard_error
from eval.compare import compare as versus
from eval.growth import chance
from eval.metrics import OVER_ALL, OVERALL, family, metric, metrics_of, right_of, set_metrics_of
from eval.statistics import Comparison, holm, items_needed
from flows.contaminated import Leaks
from flows.efficiency import efficiency
from flows.run import Counts, Run
from warehouse.records import Estimate
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import EFFICIENCY, RESULTS, write_rows

COMPARE_VERSION = 4
RESULTS_FILE = "results.parquet"
EFFICIENCY_FILE = "efficiency.parquet"
FAMILY = "family"  # what a row's p is corrected with
POINTS = 0.03  # the difference that "items needed" is about, of metrics between 0 and 1
READ = ("item_id", "metric", "value", "n_tokens", "prompt_hash", "target_hash", "doc_hash", "repeat", "cluster",
        "choices", "parts")  # fmt: skip
CLEAN = ("value", "low", "high", "n", "difference", "difference_low", "difference_high")  # said without hits too
Cost = Mapping[str, float]
Tables = Mapping[int, pa.Table]


@dataclass(frozen=True, slots=True)
class Arm:
    """One method, budget and seed: what was selected, tuned, assessed. The untouched base model was assessed only.

    `before` are the checkpoints that `checkpoint` was made from: of earlier stages, of seeds that were merged.
    """

    method: str
    budget: int
    seed: int
    selection: Artifact | None
    checkpoint: Artifact | None
    evaluations: tuple[Artifact, ...]
    before: tuple[Artifact, ...] = ()


Group = Sequence[Arm]  # the arms of one method and budget, one per seed


@dataclass(frozen=True, slots=True)
class Duel:
    """The item rows of a method, and of the control where there is one, by task and then seed; and a bootstrap seed."""

    mine: tuple[Tables, ...]
    control: tuple[Tables, ...] | None
    seed: int
    intact: bool = True  # no item was taken out

    @property
    def rng(self) -> np.random.Generator:
        """Every number is drawn from the same place: more tasks or metrics change none of the others."""
        return np.random.default_rng(self.seed)

    def without(self, place: int, items: frozenset[str]) -> "Duel":
        """The duel in one task alone, without the test rows of these `sample_id`."""
        sides = [None if side is None else (_without(side[place], items),) for side in (self.mine, self.control)]
        assert sides[0] is not None  # a method was always assessed
        return Duel(sides[0], sides[1], self.seed, intact=not items)


def compare(
    run: Run, arms: Sequence[Arm], control: str, measured: Mapping[str, Cost], seed: int, leaks: Leaks | None = None
) -> Artifact:
    """The table `results`. `measured` is what the signals of each method took; every method that reads them pays.

    With `leaks` every value is there a second time, without the test items that they name.
    """
    keys = [[arm.method, arm.budget, arm.seed, *(e.key for e in arm.evaluations)] for arm in arms]
    chosen = [arm.selection.key for arm in arms if arm.selection]  # two of the same rows have one checkpoint
    inputs: dict[str, Any] = {"arms": keys, **({"selections": chosen} if chosen else {})}
    if leaks:
        inputs["contamination"] = [leaks.key, *leaks.later] if leaks.later else leaks.key
    work = Work("compare", COMPARE_VERSION, {"control": control}, inputs, seed=seed)

    def make(draft: Draft) -> Counts:
        rows = [
            {"comparison": work.key, "control": control, **_cost(group, measured), **row}
            for group in _groups(arms)
            for row in _rows(group, _control(arms, control, group), seed, leaks)
        ]
        write_rows(draft.folder / RESULTS_FILE, RESULTS, _corrected(rows, control))
        enough = [{"comparison": work.key, **row} for row in _efficiency(arms, control, seed)]
        write_rows(draft.folder / EFFICIENCY_FILE, EFFICIENCY, enough)
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


def _rows(group: Group, control: Group, seed: int, leaks: Leaks | None) -> list[dict[str, Any]]:
    """A row for each task and metric, and for each mean over tasks."""
    duel = _duel(group, control, seed)
    rows = []
    for place, tables in enumerate(duel.mine):
        names = {name for table in tables.values() for name in pc.unique(table["metric"]).to_pylist()}
        test = group[0].evaluations[place].manifest["inputs"].get("test", "")
        checked = leaks if leaks is not None and test in leaks.tests else None
        clean = duel.without(place, checked.items[test]) if checked else None
        leaked = _leaked(group, tables, checked, test) if checked else {}
        for name in (*metrics_of(names), *set_metrics_of(names)):
            values = _values(Duel((tables,), duel.control and (duel.control[place],), seed), name)
            without = _clean(clean, name, values) if clean else {}
            rows.append(_facts(group, place, name) | {FAMILY: family(name, names)} | values | leaked | without)
    over_all = {name: found for name in OVERALL if (found := _overall(duel, name))}
    return rows + [_facts(group, None, name) | {FAMILY: name} | found for name, found in over_all.items()]


def _duel(group: Group, control: Group, seed: int) -> Duel:
    places = range(len(group[0].evaluations))
    theirs = [_tables(control, place) for place in places]
    ours = [_tables(group, place) for place in places]
    if control and group[0].selection is None:  # the base model was assessed once: it is the same for every seed
        ours = [dict.fromkeys(theirs[place], next(iter(ours[place].values()))) for place in places]
    return Duel(tuple(ours), tuple(theirs) if control else None, seed)


def _tables(group: Group, place: int) -> dict[int, pa.Table]:
    return {arm.seed: _items(arm.evaluations[place]) for arm in group}


def _items(evaluation: Artifact) -> pa.Table:
    with pq.ParquetFile(evaluation.folder / "eval_items.parquet") as file:
        return file.read([name for name in READ if name in file.schema_arrow.names])


def _without(tables: Tables, items: frozenset[str]) -> Tables:
    left_out = pa.array(sorted(items), pa.string())
    return {seed: t.filter(pc.invert(pc.is_in(t["doc_hash"], left_out))) for seed, t in tables.items()}


def _facts(group: Group, place: int | None, name: str) -> dict[str, Any]:
    """What a row is about; `place` None is the mean over tasks."""
    mine = [arm.evaluations if place is None else (arm.evaluations[place],) for arm in group]
    return {
        "method": group[0].method,
        "budget": group[0].budget,
        "seeds": json.dumps([arm.seed for arm in group]),
        "task": OVER_ALL if place is None else _task(group[0], place),
        "metric": name,
        "selections": json.dumps([arm.selection.key for arm in group if arm.selection]),
        "checkpoints": json.dumps([arm.checkpoint.key for arm in group if arm.checkpoint]),
        "evaluations": json.dumps([each.key for evaluations in mine for each in evaluations]),
    }


def _values(duel: Duel, name: str) -> dict[str, Any]:
    """The columns of one metric in a duel of one task."""
    mine = duel.mine[0]
    row = _estimate(average(mine, name, duel.rng)) | {"se": standard_error(mine, name)}
    if metric(name).higher_is_better:
        row["chance"] = chance(next(iter(mine.values())))
    return row | (_difference(versus(mine, duel.control[0], name, duel.rng), name) if duel.control else {})


def _overall(duel: Duel, name: str) -> dict[str, Any]:
    """The columns of a mean over tasks; empty where fewer than two have a metric for it."""
    value = overall_average(duel.mine, name, duel.rng)
    if value is None:
        return {}
    found = overall(duel.mine, duel.control, name, duel.rng) if duel.control else None
    return _estimate(value) | ({} if found is None else _difference(found, name))


def _clean(duel: Duel, name: str, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Value and difference of what is left of the items, `whole` where that is all; no value where nothing is."""
    wanted = metric(name)
    for table in duel.mine[0].values():
        left = pc.unique(table["metric"]).to_pylist()
        if not {value for value in wanted.reads if value} <= set(left) or (wanted.statistic and not right_of(left)):
            return {"n_clean": 0}
    found = whole if duel.intact else _values(duel, name)
    return {f"{column}_clean": found[column] for column in CLEAN if column in found}


def _leaked(group: Group, tables: Tables, leaks: Leaks, test: str) -> dict[str, Any]:
    """Items asked of the test set that candidates give away, and that the rows chosen do, mean over seeds."""
    asked = frozenset(pc.unique(next(iter(tables.values()))["doc_hash"]).to_pylist())
    chosen = [len(leaks.chosen(arm.selection, test) & asked) for arm in group if arm.selection]
    return {
        "contaminated": len(leaks.items[test] & asked),
        "contaminated_chosen": float(np.mean(chosen)) if chosen else None,
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _difference(found: Comparison, name: str) -> dict[str, Any]:
    shares = metric(name).higher_is_better and found.variance is not None
    return {
        "difference": found.difference.value,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "seed_differences": json.dumps(list(found.by_seed)),
        "mde": found.mde,
        "items_needed": items_needed(found.variance, POINTS) if shares and found.variance is not None else None,
        "p": found.p,
        "p_from": found.test,
        "verdict": found.verdict,
    }


def _efficiency(arms: Sequence[Arm], control: str, seed: int) -> list[dict[str, Any]]:
    """The smallest budget that is enough, for every task and method; nothing where all have one budget."""
    groups = [group for group in _groups(arms) if group[0].budget]
    if len({group[0].budget for group in groups}) < 2:
        return []
    rows: list[dict[str, Any]] = []
    for place in range(len(arms[0].evaluations)):
        raced: dict[str, dict[int, Tables]] = {}
        for group in groups:
            raced.setdefault(group[0].method, {})[group[0].budget] = _tables(group, place)
        rows += efficiency(raced, control, str(_task(arms[0], place)), seed)
    return rows


def _task(arm: Arm, place: int) -> Any:
    params = arm.evaluations[place].manifest["params"]
    return params.get("title", params["task"])


def _corrected(rows: Sequence[dict[str, Any]], control: str) -> list[dict[str, Any]]:
    """`rows`, without their family, with p corrected by Holm's method over all methods, budgets and tasks of it.

    The control against itself is no comparison; means over tasks, which repeat what the tasks say, are counted apart.
    """
    kinds = [(row["task"] == OVER_ALL, row.pop(FAMILY)) for row in rows]
    adjusted: dict[int, float] = {}
    for kind in dict.fromkeys(kinds):
        compared = [i for i, row in enumerate(rows) if kinds[i] == kind and "p" in row and row["method"] != control]
        adjusted |= dict(zip(compared, holm([rows[i]["p"] for i in compared]), strict=True))
    own = {"verdict": None, "mde": None, "items_needed": None}  # of the control: it is what others are compared with
    return [row | {"p_holm": adjusted.get(i)} | (own if row["method"] == control else {}) for i, row in enumerate(rows)]


def _cost(group: Group, measured: Mapping[str, Cost]) -> dict[str, float]:
    """Seconds and FLOPs of measuring (once), selecting and training (every seed)."""
    signals = measured.get(group[0].method, {})
    made = [each for arm in group for each in (*arm.before, *([arm.checkpoint] if arm.checkpoint else []))]
    trained = [pq.read_table(each.folder / "checkpoint.parquet").to_pylist()[0] for each in made]
    selecting = sum(arm.selection.manifest["seconds"] for arm in group if arm.selection)
    return {
        "seconds": signals.get("seconds", 0.0) + selecting + sum(row["seconds"] for row in trained),
        "flops": signals.get("flops", 0.0) + sum(row["flops"] for row in trained),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    difference = {"difference": row["difference"], "low": row["difference_low"], "high": row["difference_high"]}
    return {
        **{name: row[name] for name in ("method", "budget", "task", "metric", "value", "low", "high", "n", "verdict")},
        **{name: row[name] for name in ("p_holm", "value_clean", "n_clean")},
        "seeds": json.loads(row["seeds"]),
        "seed_differences": json.loads(row["seed_differences"] or "[]"),
        "versus_control": difference if row["difference"] is not None else None,
    }

"""A fabricated home for the report's tests: every table a race writes, by the warehouse's own schemas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pool_files import write_pool

from flows.choose import SAMPLE_COLUMNS
from warehouse.pools import PoolReader
from warehouse.records import Example, Message
from warehouse.runs import RunLog, StageRecord
from warehouse.store import Artifact, Store, Work
from warehouse.tables import (
    CHECKPOINT,
    DROPS,
    EVAL_ITEMS,
    EVALUATION,
    LOSSES,
    RESULTS,
    SELECTED,
    SELECTION,
    write_rows,
)

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SOURCES = {
    "clean": 0.18,
    "static-noise": 0.17,
    "dynamic-noise": 0.17,
    "wrong-skill": 0.2,
    "duplicated": 0.13,
    "verbose": 0.15,
}
SKILLS = ("reverse", "sort", "add", "convert dates", "look up", "logic", "format", "extract", "classify", "upper case")
RACED = {"rds_plus": 0.71, "top_k": 0.62, "length": 0.33, "balanced_random": 0.41, "random": 0.43}
TASK, TARGET, QUESTION = "reverse", "Reverse the word number", "Reverse the word:"
VERDICT = "no difference shown (MDE 0.051)"
RECIPE = "name: nightly\npool:\n- synthesize: world\nmethods: [rds_plus, top_k, length]\nbudgets: [200]\n"


@dataclass
class HomeMaker:
    """Writes artifacts and logs each as a stage of one run. `clock` moves on by each stage's seconds."""

    store: Store
    log: RunLog
    rng: np.random.Generator
    clock: datetime = START

    def stage(
        self,
        name: str,
        work: Work,
        tables: Mapping[str, tuple[Any, Sequence[Mapping[str, Any]]]],
        counts: tuple[int, int],
        dropped: Mapping[str, int] | None = None,
        seconds: float = 1.0,
        computed: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """An artifact of `tables` (file stem to schema and rows), and its line in the log."""
        with self.store.write(work) as draft:
            draft.facts |= facts or {}
            for stem, (schema, rows) in tables.items():
                write_rows(draft.folder / f"{stem}.parquet", schema, rows)
        return self.note(name, work, counts, dropped or {}, seconds, computed)

    def pool(self, name: str, examples: Sequence[Example], seconds: float = 0.8) -> Artifact:
        """A pool version; rows that cannot be kept are its rejects."""
        work = Work("ingest", 1, {"name": name, "n": len(examples)})
        with self.store.write(work) as draft:
            funnel = write_pool(examples, draft.folder, pool_key=work.key, name=name)
        return self.note(f"ingest {name}", work, (funnel.rows_in, funnel.rows_out), funnel.dropped, seconds, True)

    def note(
        self, name: str, work: Work, counts: tuple[int, int], dropped: Mapping[str, int], seconds: float, computed: bool
    ) -> Artifact:
        record = StageRecord(name, work.stage, work.key, computed, self.clock, seconds, *counts, dropped)
        self.log.stage(record)
        self.clock += timedelta(seconds=seconds)
        found = self.store.find(work)
        assert found is not None
        return found


Arm = tuple[str, int, tuple[int, ...], list[Artifact]]


@dataclass(frozen=True)
class Plan:
    """What is raced: methods with their exact match, seeds, budgets; `extra` rows come first in the pool."""

    n: int = 300
    seeds: tuple[int, ...] = (0, 1)
    budgets: tuple[int, ...] = (40,)
    values: Mapping[str, float] = field(default_factory=lambda: dict(RACED))
    extra: tuple[Example, ...] = ()
    items: int = 60
    trains: bool = True


def start(
    home: Path, run: str = "20260301T030000-aaaaaaaa", *, recipe: str = "nightly", text: str = RECIPE
) -> HomeMaker:
    """A run that has begun and has no stages yet."""
    store = Store.open(home)
    log = RunLog(store.home, run)
    log.start(recipe=recipe, command="run", recipe_text=text, version="0.1.0")
    return HomeMaker(store, log, np.random.default_rng(7))


def example(prompt: str, reply: str, source: str = "clean", **meta: Any) -> Example:
    return Example((Message("user", prompt), Message("assistant", reply)), source, meta)


def rows(maker: HomeMaker, n: int) -> list[Example]:
    """`n` rows of several sources, skills and kinds of noise."""
    sources = maker.rng.choice(list(SOURCES), n, p=list(SOURCES.values()))
    skills = maker.rng.choice(SKILLS, n)
    return [
        example(
            f"Please do the task '{skill}' for item {i}: river, stone, cloud, lantern, meadow.",
            f"Here is the answer for item {i}. " * (12 if source == "verbose" else 1),
            str(source),
            skill=str(skill),
            noise=str(source) if "noise" in source else "none",
        )
        for i, (source, skill) in enumerate(zip(sources, skills, strict=True))
    ]


def selected(
    maker: HomeMaker,
    pool: Artifact,
    target: Artifact | None,
    method: str,
    seed: int,
    budget: int,
    *,
    noted: bool = True,
) -> Artifact:
    """One selection of a method that likes "clean" rows the better it is in `RACED`."""
    reader = PoolReader(pool.folder)
    clean = reader.sources() == "clean"
    scored = "random" not in method
    taste = maker.rng.normal(0.4, 0.12, reader.n) + (0.25 * clean if method in ("rds_plus", "top_k") else 0)
    order = np.argsort(-taste)[:budget] if scored else maker.rng.permutation(reader.n)[:budget]
    diagnostics: dict[str, Any] = {"direction": "higher is better" if scored else "none"}
    if scored and noted:
        counts, edges = np.histogram(taste, 30)
        diagnostics["pool_scores"] = {"edges": edges.tolist(), "counts": counts.tolist()}
    inputs = {"pool": pool.key} | ({"target": target.key} if target else {})
    work = Work("select", 1, {"method": method, "budget": budget}, inputs, seed=seed)
    (samples,) = (table for _, table in reader.in_order(order, SAMPLE_COLUMNS))
    summary = {
        "selection": work.key,
        "pool": pool.key,
        "method": method,
        "spec": "s",
        "params": "{}",
        "budget": budget,
        "seed": seed,
        "rows": len(order),
        "direction": diagnostics["direction"],
        "cutoff": float(taste[order[-1]]),
        "diagnostics": json.dumps(diagnostics),
    }
    chosen = [
        {
            "selection": work.key,
            "pool": pool.key,
            "row": int(row),
            "rank": rank,
            "score": float(taste[row]) if scored else 0.0,
            "weight": 1.0,
            "reason": reason(method, rank),
            **sample,
        }
        for rank, (row, sample) in enumerate(zip(order, samples.to_pylist(), strict=True), 1)
    ]
    counts_ = (reader.n, len(order))
    title = f"select {method} {budget} seed {seed}"
    tables = {"selection": (SELECTION, [summary]), "selected": (SELECTED, chosen)}
    return maker.stage(title, work, tables, counts_, {"not chosen": reader.n - len(order)}, 0.4)


def reason(method: str, rank: int) -> str:
    kinds = {
        "rds_plus": f"target={rank % 12} task=reverse round={1 + rank // 12}",
        "top_k": f"target={rank % 12} task=reverse",
        "length": f"length={12_345 - rank} unit=tokens",
        "balanced_random": f"round={1 + rank // 6} source=static noise",
        "random": f"draw={rank}",
    }
    return kinds.get(method, "why=not")


def trained(maker: HomeMaker, selection: Artifact, method: str, seed: int, budget: int) -> Artifact:
    """A checkpoint with a loss curve; that of seed 1 was stopped on the way."""
    work = Work("train", 1, {"trainer": "sft"}, {"data": selection.key}, "base", seed)
    level = 1.4 - RACED.get(method, 0.5)
    losses = [
        {
            "checkpoint": work.key,
            "step": step,
            "epoch": step / 24,
            "loss": float(level + 2 * np.exp(-step / 14) + maker.rng.normal(0, 0.05)),
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "tokens": step * 4000,
            "seconds": step * 0.2,
        }
        for step in range(1, 73)
    ]
    row = {
        "checkpoint": work.key,
        "base": "winnow-tiny",
        "base_fingerprint": "f",
        "trainer": "sft",
        "params": "{}",
        "data": selection.key,
        "seed": seed,
        "rows": budget - 2,
        "tokens": 288_000,
        "label_tokens": 90_000,
        "steps": 72,
        "seconds": 14.2,
        "flops": 3.1e12,
        "peak_memory_bytes": 2**30,
        "precision": "float32",
    }
    tables = {"checkpoint": (CHECKPOINT, [row]), "losses": (LOSSES, losses)}
    title = f"train {method} {budget} seed {seed}"
    facts = {"notes": ["goes on from step 24"] if seed == 1 else []}
    counts, dropped = (budget, budget - 2), {"no_label_tokens": 2}
    return maker.stage(title, work, tables, counts, dropped, 14.6, computed=seed != 0, facts=facts)


def evaluated(maker: HomeMaker, checkpoint: str, name: str, share: float, items: int) -> Artifact:
    """Exact match of every item, right with probability `share`; items 0 to 4 are never right."""
    work = Work("evaluate", 1, {"task": "exact"}, {"checkpoint": checkpoint})
    right = maker.rng.random(items) < share
    right[:5] = False
    answers = [answer(work.key, checkpoint, i, bool(ok)) for i, ok in enumerate(right)]
    value = float(right.mean())
    row = {
        "evaluation": work.key,
        "checkpoint": checkpoint,
        "task": TASK,
        "spec": "s",
        "params": "{}",
        "metric": "exact_match",
        "value": value,
        "low": value - 0.04,
        "high": value + 0.04,
        "n": items,
        "seed": 0,
    }
    tables = {"evaluation": (EVALUATION, [row]), "eval_items": (EVAL_ITEMS, answers)}
    return maker.stage(f"assess {name} exact_match", work, tables, (items, items), seconds=3.1)


def answer(evaluation: str, checkpoint: str, item: int, right: bool) -> dict[str, Any]:
    word = f"lantern{item}"
    return {
        "evaluation": evaluation,
        "checkpoint": checkpoint,
        "task": TASK,
        "item_id": f"item-{item:03}",
        "group": "reverse",
        "metric": "exact_match",
        "value": float(right),
        "prompt": f"{QUESTION} {word}",
        "reply": word[::-1] if right else word + "?",
        "parsed": word,
        "gold": word[::-1],
        "n_tokens": 5,
        "finish_reason": "stop",
        "prompt_hash": "p",
        "doc_hash": "d",
        "target_hash": "t",
    }


def compared(maker: HomeMaker, plan: Plan, arms: Sequence[Arm]) -> Artifact:
    """Results of two metrics: exact match as planned, and a loss that goes the other way; the base model is last."""
    base = evaluated(maker, "base", "base model", 0.05, plan.items)
    values = {**plan.values, "base model": 0.05}
    everything = [*arms, ("base model", 0, (0,), [base])]
    work = Work("compare", 1, inputs={"evaluations": [a.key for _, _, _, made in everything for a in made]})
    table = [
        result(work.key, one, values, *metric, plan.items)
        for one in everything
        for metric in (("exact_match", 1.0, 0.04), ("nll", -1.0, 0.09))
    ]
    return maker.stage("compare", work, {"results": (RESULTS, table)}, (len(table), len(table)), seconds=0.9)


def result(
    key: str, one: Arm, values: Mapping[str, float], metric: str, sign: float, width: float, n: int
) -> dict[str, Any]:
    """A row of `results`; `width` is half its interval. Without balanced random there is no difference."""
    method, budget, seeds, made = one
    value = values[method] if sign > 0 else 2.0 - values[method]
    row = {
        "comparison": key,
        "method": method,
        "budget": budget,
        "seeds": json.dumps(seeds),
        "control": "balanced_random",
        "task": TASK,
        "metric": metric,
        "value": value,
        "low": value - width,
        "high": value + width,
        "n": n,
        "selections": "[]",
        "evaluations": json.dumps([a.key for a in made]),
        "checkpoints": "[]",
        "seconds": 0.0 if method == "base model" else 45.0 + 60 * (method == "rds_plus"),
        "flops": 0.0 if method == "base model" else 9.3e12 * (13 if method in ("rds_plus", "top_k") else 1),
    }
    if "balanced_random" not in values:
        return row
    gain = sign * (values[method] - values["balanced_random"])
    verdict = "better" if gain * sign > 0 else "worse"
    return row | {
        "difference": gain,
        "difference_low": gain - width,
        "difference_high": gain + width,
        "seed_differences": json.dumps([gain + 0.02 * (i - 1) for i in range(len(seeds))]),
        "verdict": verdict if abs(gain) > width else VERDICT,
    }


def race(home: Path, plan: Plan | None = None, run: str = "20260301T030000-aaaaaaaa", *, ended: bool = True) -> str:
    """A whole race, or its selections alone where the plan does not train; returns the run's id."""
    maker, plan = start(home, run), plan or Plan()
    pool, target = ingested(maker, plan)
    exclude(maker, pool, target)
    chosen = [
        (
            method,
            budget,
            [selected(maker, pool, target, method, seed, budget, noted=method != "top_k") for seed in plan.seeds],
        )
        for method in plan.values
        for budget in plan.budgets
    ]
    if plan.trains:
        compared(maker, plan, [arm(maker, plan, *made) for made in chosen])
    if ended:
        maker.log.end("done", report="report.html")
    return maker.log.run


def ingested(maker: HomeMaker, plan: Plan) -> tuple[Artifact, Artifact]:
    unusable = [example("What is this?", "")] * 3 + [Example((Message("user", "only a question"),), "clean")]
    pool = maker.pool("nightly pool", [*plan.extra, *rows(maker, plan.n), *unusable])
    return pool, maker.pool("nightly target", [example(f"{TARGET} {i}: meadow", "wodaem") for i in range(12)])


def arm(maker: HomeMaker, plan: Plan, method: str, budget: int, selections: Sequence[Artifact]) -> Arm:
    """One method at one budget, tuned and assessed once per seed."""
    made = []
    for seed, selection in zip(plan.seeds, selections, strict=True):
        checkpoint = trained(maker, selection, method, seed, budget)
        made.append(evaluated(maker, checkpoint.key, f"{method} {budget} seed {seed}", plan.values[method], plan.items))
    return method, budget, plan.seeds, made


def exclude(maker: HomeMaker, pool: Artifact, target: Artifact) -> Artifact:
    """An overlap stage that keeps the pool's last three rows out."""
    n = PoolReader(pool.folder).n
    work = Work("overlap", 1, inputs={"pool": pool.key, "target": target.key})
    out = [
        {"cleaning": work.key, "pool": pool.key, "row": n - 1 - i, "sample_id": "x", "filter": "overlap",
         "reason": "same_prompt_as_target", "other_pool": target.key, "other_row": i}
        for i in range(3)
    ]  # fmt: skip
    return maker.stage("overlap", work, {"drops": (DROPS, out)}, (n, n - 3), {"overlap": 3}, 0.2)

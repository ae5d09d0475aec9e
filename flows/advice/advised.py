"""What was advised, and from which pilot runs: as the table `advice`, as JSON, and as arrays of rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from flows.advice.pilots import MIXTURE_FILE, Blend, Stock
from flows.recipes import Advise
from selection.advice import Advice
from warehouse.records import Rows, canonical
from warehouse.store import Artifact, Draft, Work
from warehouse.tables import ADVICE, SELECTED_FILE, write_rows

ADVICE_FILE = "advice.json"
METRIC = "nll"  # nats per token of the gold replies, which every task measures


@dataclass(frozen=True, slots=True)
class Pilot:
    """A run on a mixture: its evaluation, or why there is none."""

    blend: Blend
    mixture: Artifact
    evaluation: Artifact | None = None
    error: str = ""

    def measured(self) -> dict[str, Any]:
        """Value, interval and number of items of the metric; value NaN where the run failed."""
        if self.evaluation is None:
            return {"value": np.nan, "low": None, "high": None, "n": None}
        rows = pq.read_table(self.evaluation.folder / "evaluation.parquet").to_pylist()
        found = next(row for row in rows if row["metric"] == METRIC)
        return {name: found[name] for name in ("value", "low", "high", "n")}


def write_advice(draft: Draft, work: Work, asked: Advise, stock: Stock, said: Advice, pilots: Sequence[Pilot]) -> None:
    """What was said as the table `advice` and as JSON, and the rows of each manifest as an array."""
    for each in said.manifests:
        np.save(draft.folder / f"{each.name}.npy", each.rows, allow_pickle=False)
    rows = [*_spoken(said), *(_row_of(pilot, stock) for pilot in pilots)]
    known = {
        "advice": work.key, "pool": work.inputs["pool"], "advisor": asked.advisor, "params": canonical(asked.params),
        "budget": asked.budget,
    }  # fmt: skip
    write_rows(draft.folder / "advice.parquet", ADVICE, [known | row for row in rows])
    text = json.dumps(_plain(said, stock, pilots), ensure_ascii=False, allow_nan=False)
    (draft.folder / ADVICE_FILE).write_text(text, encoding="utf-8")


def _spoken(said: Advice) -> list[dict[str, Any]]:
    """Rows of the table `advice`: what was said."""
    estimates = [
        {"kind": kind, "name": name, **asdict(each)}
        for kind, found in (("share", said.shares), ("forecast", said.forecasts))
        for name, each in found.items()
    ]
    remarks = [
        {"kind": kind, "name": each.reason, "detail": each.detail}
        for kind, found in (("refusal", said.refusals), ("warning", said.warnings))
        for each in found
    ]
    stages = [
        {"kind": "manifest", "name": each.name, "value": float(len(each.rows)), "detail": canonical(each.per_source)}
        for each in said.manifests
    ]
    return [*estimates, *stages, *remarks]


def _row_of(pilot: Pilot, stock: Stock) -> dict[str, Any]:
    measured = pilot.measured()
    value = None if np.isnan(measured["value"]) else measured["value"]
    name, key = pilot.blend.title(stock), pilot.mixture.key
    return measured | {"kind": "pilot", "name": name, "value": value, "detail": pilot.error or None, "mixture": key}


def _plain(said: Advice, stock: Stock, pilots: Sequence[Pilot]) -> dict[str, Any]:
    """What was said in plain JSON values; the rows of manifests are in their own files."""
    stages = [
        {"name": each.name, "rows": len(each.rows), "per_source": dict(each.per_source)} for each in said.manifests
    ]
    runs = [
        {**_row_of(pilot, stock), "rows": pilot.blend.n, "seed": pilot.blend.seed,
         "shares": dict(zip(stock.names, pilot.blend.shares.tolist(), strict=True))}
        for pilot in pilots
    ]  # fmt: skip
    available = dict(zip(stock.names, stock.available.tolist(), strict=True))
    return said.as_json() | {"manifests": stages, "available": available, "pilots": runs}


def told(advice: Artifact) -> dict[str, Any]:
    """What an advice says."""
    found: dict[str, Any] = json.loads((advice.folder / ADVICE_FILE).read_text(encoding="utf-8"))
    return found


def manifest(advice: Artifact, name: str) -> Rows:
    """(k,) places in the rows of all sources, one source after the other, that a stage trains on, in its order."""
    rows: Rows = np.load(advice.folder / f"{name}.npy", allow_pickle=False)
    return rows


def told_file(mixture: Artifact) -> dict[str, Any]:
    """What a training file holds of each source, and where it is."""
    rows = pq.read_table(mixture.folder / MIXTURE_FILE).to_pylist()
    return {
        "purpose": rows[0]["purpose"],
        "key": mixture.key,
        "path": str(mixture.folder / SELECTED_FILE),
        "rows": {row["source"]: row["rows"] for row in rows},
        "repeats": {row["source"]: row["repeats"] for row in rows},
    }

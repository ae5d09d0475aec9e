"""What an average hides: the same items in groups, by ability, length, source, language, difficulty and level.

After Eureka (Balachandran et al. 2024), which reports a benchmark by its parts. Item rows are those of
`eval.items.ITEM_SCHEMA`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.compare import Tables, average, compare
from eval.growth import chance
from eval.metrics import Metric, metric
from eval.statistics import Comparison
from warehouse.records import Estimate

LABELS = ("ability", "level", "difficulty", "language", "source")
LENGTHS = {"prompt_tokens": "prompt length", "n_tokens": "gold length"}
UNSAID = "not said"
DRAWS = 2000  # of the bootstrap: there are many slices
SMALL = 10  # items below which a slice has no verdict


@dataclass(frozen=True, slots=True)
class Slice:
    """The n items of one test whose `by` is `name`: the value of an arm and what it gained over another there.

    gain    None without another arm
    chance  what guessing would give; None where replies are free or a loss is measured
    """

    by: str
    name: str
    value: Estimate
    gain: Comparison | None
    chance: float | None

    @property
    def n(self) -> int:
        return self.value.n

    @property
    def verdict(self) -> str:
        """That of the comparison; empty where there is none, or fewer than `SMALL` items to have one of."""
        return self.gain.verdict if self.gain is not None and self.n >= SMALL else ""


def slices(a: Tables, b: Tables | None, name: str, rng: np.random.Generator) -> tuple[Slice, ...]:
    """Every slice of the metric `name` for arm `a`, compared with arm `b` where there is one.

    A way to slice is listed where it tells at least two groups apart; lengths are cut at the quartiles of the items.
    """
    wanted = metric(name)
    ours = {seed: _of(table, wanted) for seed, table in a.items()}
    theirs = None if b is None else {seed: _of(table, wanted) for seed, table in b.items()}
    first = next(iter(ours.values()))
    found = []
    for by, label_of in groups(first).items():
        for label in dict.fromkeys(label_of.values()):
            items = pa.array([item for item, of in label_of.items() if of == label])
            mine = _within(ours, items)
            gain = None if theirs is None else compare(mine, _within(theirs, items), name, rng, draws=DRAWS)
            guess = chance(next(iter(mine.values()))) if wanted.higher_is_better else None
            found.append(Slice(by, label, average(mine, name, rng, DRAWS), gain, guess))
    return tuple(found)


def groups(items: pa.Table) -> dict[str, dict[str, str]]:
    """The label of every item, by its id, for each way to slice that tells some apart; labels in a sensible order."""
    found = {by: _labels(items, by) for by in LABELS if by in items.column_names}
    found |= {title: _quarters(items, by) for by, title in LENGTHS.items() if by in items.column_names}
    return {by: label_of for by, label_of in found.items() if len(set(label_of.values())) > 1}


def _labels(items: pa.Table, by: str) -> dict[str, str]:
    pairs = zip(items["item_id"].to_pylist(), items[by].to_pylist(), strict=True)
    return dict(sorted(((item, label or UNSAID) for item, label in pairs), key=lambda pair: (pair[1], pair[0])))


def _quarters(items: pa.Table, by: str) -> dict[str, str]:
    """Quarters of the items by length, named by their bounds; fewer where many items are equally long."""
    lengths = dict(zip(items["item_id"].to_pylist(), items[by].to_pylist(), strict=True))
    values = np.array(list(lengths.values()))
    cuts = np.unique(np.quantile(values, (0.25, 0.5, 0.75), method="lower"))
    quarter = {item: int(np.searchsorted(cuts, length)) for item, length in lengths.items()}
    members = {q: [lengths[item] for item, of in quarter.items() if of == q] for q in sorted(set(quarter.values()))}
    names = {q: f"{min(found)} to {max(found)} tokens" for q, found in members.items()}
    return {item: names[q] for item, q in sorted(quarter.items(), key=lambda pair: (pair[1], pair[0]))}


def _of(table: pa.Table, wanted: Metric) -> pa.Table:
    """The rows that the metric reads; of a statistic all, as it also reads which items are right."""
    return table if wanted.statistic is not None else table.filter(pc.equal(table["metric"], wanted.column))


def _within(arm: Mapping[int, pa.Table], items: pa.Array) -> dict[int, pa.Table]:
    return {seed: table.filter(pc.is_in(table["item_id"], items)) for seed, table in arm.items()}

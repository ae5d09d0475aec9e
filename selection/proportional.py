"""`proportional`: random rows of every source in proportion to its size, up to a cap; of groups of them, if given."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from selection.answer import NONE, selection
from selection.mixing import capped_shares, grouped_shares, in_proportion
from selection.problem import Problem
from selection.random_rows import shuffled
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

Groups: TypeAlias = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Proportional:
    """Examples-proportional mixing: the share of source i is r_i = min(e_i, cap) / Σ_j min(e_j, cap).

    cap          rows beyond which a source does not weigh more
    temperature  shares are r_i ^ (1 / temperature), brought to sum 1: above 1 they come nearer to each other
    groups       name → `share` and `sources`: a group has its share of the answer whatever its size, and the sources
                 inside share by size as above (the benchmark proportions of OPT-IML); shares need not sum to 1

    Any beginning of the answer is about in proportion too, so a smaller budget with the same seed draws the first of
    the same rows. A source that runs out leaves its share to the others in proportion: to those of its group, as long
    as one has rows. Rows of a group with share 0 come after all others. Scores are 0 and have no direction. Raises
    `InputError` where the pool's rows have no source, for a source in no group or in two, and for one without a row.
    """

    compares: ClassVar[bool] = False

    cap: int = 3000
    temperature: float = 1.0
    groups: Groups | None = None

    def __post_init__(self) -> None:
        capped_shares(np.ones(1), self.cap, self.temperature)
        if self.groups is not None:
            _check_groups(self.groups)

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        if "source" not in problem.groups:
            raise InputError("proportional draws from the sources of the pool by size, but its rows have no source")
        sources, source_of, sizes = np.unique(problem.groups["source"], return_inverse=True, return_counts=True)
        names = [str(source) for source in sources]
        grouping = grouping_of(self.groups, names)
        shares = grouped_shares(sizes, grouping.of, grouping.shares, self.cap, self.temperature)
        drawn = shuffled(problem, rng)
        rows = drawn[in_proportion(shares, source_of[drawn], rng.permutation(len(names)))]
        by_group = in_proportion(grouping.shares, grouping.of[source_of[rows]], rng.permutation(len(grouping.shares)))
        rows = rows[by_group[: problem.budget]]
        counts = np.bincount(source_of[rows], minlength=len(names))
        facts = {
            "per_source": dict(zip(names, counts.tolist(), strict=True)),
            "shares": dict(zip(names, shares.tolist(), strict=True)),
            "used_up": int((counts == sizes).sum()),
            **grouping.facts(counts),
        }
        told = [f"{grouping.told(at)}source={_word(name)} share={shares[at]:.4g}" for at, name in enumerate(names)]
        return selection(rows, np.zeros(len(rows)), [told[at] for at in source_of[rows]], NONE, **facts)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups of s sources: their `names`, none where there is but one of all; their `shares` (g,); the group `of` (s,)
    each source."""

    names: tuple[str, ...]
    shares: Floats
    of: Rows

    def facts(self, counts: Rows) -> dict[str, Any]:
        """Diagnostics, by how many rows (s,) each source gives."""
        if not self.names:
            return {}
        taken = np.bincount(self.of, counts, len(self.names)).astype(np.int64)
        return {
            "per_group": dict(zip(self.names, taken.tolist(), strict=True)),
            "group_shares": dict(zip(self.names, (self.shares / self.shares.sum()).tolist(), strict=True)),
        }

    def told(self, source: int) -> str:
        return "group=" + _word(self.names[self.of[source]]) + " " if self.names else ""


def grouping_of(groups: Groups | None, sources: Sequence[str]) -> Grouping:
    """The groups of `sources` (s,). Raises `InputError` for a source in no group and for one that has no row."""
    if groups is None:
        return Grouping((), np.ones(1), np.zeros(len(sources), np.int64))
    of = {source: at for at, group in enumerate(groups.values()) for source in group["sources"]}
    listed = f"the candidates' sources: {', '.join(sources)}"
    if empty := [source for source in of if source not in sources]:
        raise InputError(f"proportional: no candidate has the source {', '.join(empty)} that a group names; {listed}")
    if left := [source for source in sources if source not in of]:
        raise InputError(f"proportional: no group has the source {', '.join(left)}; put it into one. {listed}")
    shares = np.array([group["share"] for group in groups.values()], np.float64)
    return Grouping(tuple(groups), shares, np.array([of[source] for source in sources]))


def _check_groups(groups: Groups) -> None:
    """Raises `InputError` unless each group is a share and a list of sources, and no source is in two."""
    for name, group in groups.items():
        if not isinstance(name, str) or not isinstance(group, Mapping) or set(group) != {"share", "sources"}:
            raise InputError(f"proportional: group {name!r} is {group!r}; give a name, and under it share and sources")
        share, sources = group["share"], group["sources"]
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
            raise InputError(f"proportional: group {name!r} has the share {share!r}; give a number, 0 or above")
        if not isinstance(sources, list | tuple) or not sources or not all(isinstance(each, str) for each in sources):
            raise InputError(f"proportional: group {name!r} has the sources {sources!r}; give a list of names")
    if not any(group["share"] > 0 for group in groups.values()):
        raise InputError(f"proportional: none of {len(groups)} groups has a share above 0; give one to at least one")
    sources = Counter(source for group in groups.values() for source in group["sources"])
    if twice := [source for source, times in sources.items() if times > 1]:
        raise InputError(f"proportional: source {', '.join(twice)} is named more than once; put it into one group")


def _word(name: str) -> str:
    return "_".join(name.split())

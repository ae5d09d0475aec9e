"""What `winnow scorers` answers: for people where the scorers are and how far to trust them, for programs JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
STAGE = ("name", "key", "computed", "seconds", "rows_in", "rows_out")


@dataclass(frozen=True, slots=True)
class ScorerOutcome:
    """`scorers` as docs/verbs.md describes them; plain JSON."""

    run: str
    home: str
    ui: str | None
    seeds: int
    scorers: Sequence[Json]
    stages: Sequence[Json]

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "home": self.home,
            "ui": self.ui,
            "seeds": self.seeds,
            "scorers": list(self.scorers),
            "stages": [{name: stage[name] for name in STAGE} for stage in self.stages],
        }

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def as_text(self) -> str:
        """The method as a recipe names it, then what each scorer was made of and how often it agrees with the judge."""
        lines = ["methods:", "  - name: deita", *(f"    {each['grade']}: {each['path']}" for each in self.scorers)]
        for each in self.scorers:
            dropped = "".join(f", {n:,} {reason}" for reason, n in sorted(each["dropped"].items()))
            lines.append(f"{each['grade']}: {each['graded']:,} texts graded{dropped}; {each['trained']:,} trained on")
            lines.append(f"  pairs of kept-out texts ordered as the judge did: {_agreement(each['agreement'])}")
            lines.append(f"  the same by length alone: {_agreement(each['by_length'])}")
        computed = sum(bool(stage["computed"]) for stage in self.stages)
        lines.append(f"run {self.run}: {computed} stages computed, {len(self.stages) - computed} found in the cache")
        if self.ui:
            lines.append(f"Prefect UI:  {self.ui}")
        return "\n".join(lines)


def _agreement(found: Json | None) -> str:
    if found is None:
        return "not known, fewer than two seeds have texts that the judge told apart; raise `scorers.count`"
    interval = f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{interval}, {found['n']:,} pairs of {found['seeds']:,} seeds; 0.5 is chance"

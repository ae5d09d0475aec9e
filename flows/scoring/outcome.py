"""What `winnow scorers` answers: for people where the scorers are and how far to trust them, for programs JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from flows.outcome import Json, Outcome, interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerOutcome(Outcome):
    """`scorers` as docs/verbs.md describes them."""

    name: ClassVar[str] = "scorers"
    seeds: int
    scorers: Sequence[Json]

    def found(self) -> list[str]:
        """The method as a recipe names it, then what each scorer was made of and how often it agrees with the judge."""
        lines = ["methods:", "  - name: deita", *(f"    {each['grade']}: {each['path']}" for each in self.scorers)]
        for each in self.scorers:
            dropped = "".join(f", {n:,} {reason}" for reason, n in sorted(each["dropped"].items()))
            lines.append(f"{each['grade']}: {each['graded']:,} texts graded{dropped}; {each['trained']:,} trained on")
            lines.append(f"  pairs of kept-out texts ordered as the judge did: {_agreement(each['agreement'])}")
            lines.append(f"  the same by length alone: {_agreement(each['by_length'])}")
        return lines


def _agreement(found: Json | None) -> str:
    if found is None:
        return "not known, fewer than two seeds have texts that the judge told apart; raise `scorers.count`"
    return f"{interval(found)}, {found['n']:,} pairs of {found['seeds']:,} seeds; 0.5 is chance"

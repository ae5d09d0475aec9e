"""What is known to be right of the programs for one task: fully and partially correct ones, and the states that they
reach (Ni et al. 2023, arXiv 2205.14318, §3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.verify.trace import Trace

Refused = Literal["duplicate", "longer"]


@dataclass(frozen=True, slots=True)
class Part:
    """The first `k` statements of a traced program: all that it takes to the answer where `complete`, else the
    beginning that a right program shares a state with. `draw` is the sample it came from, 0 for the gold program."""

    trace: Trace
    k: int
    complete: bool
    draw: int = 0

    @property
    def statements(self) -> tuple[str, ...]:
        return self.trace.program.statements[: self.k]

    @property
    def text(self) -> str:
        return self.trace.program.head(self.k)

    def begins(self, other: "Part") -> bool:
        """Whether this is a prefix of `other`, or the same statements."""
        return other.statements[: self.k] == self.statements


@dataclass(frozen=True, slots=True)
class Known:
    """The buffers of one task: fully correct programs and partially correct ones, each in the order they came in."""

    complete: tuple[Part, ...] = ()
    partial: tuple[Part, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return (*self.complete, *self.partial)

    @property
    def shortest(self) -> Mapping[str, int]:
        """The fewest statements in which each state is reached that a saved program goes through before its answer.

        From each of them a right answer can be reached. States that bring no new value tell nothing and are left out.
        """
        found: dict[str, int] = {}
        for part in self.parts:
            for i, step in enumerate(part.trace.steps[: part.k], 1):
                if step.new and step.answer is None:
                    found[step.state] = min(i, found.get(step.state, i))
        return found


def candidate(known: Known, trace: Trace, right: bool, draw: int, start: int = 0) -> Part | None:
    """What of a sampled program may be kept: all of it up to a right answer, else up to the furthest known state beyond
    its first `start` statements, which it was given; None where it reaches neither.

    Nothing after a wrong answer counts.
    """
    if right:
        return Part(trace, trace.answered, True, draw)
    walked = trace.steps[: trace.answered - 1] if trace.answered else trace.steps
    states = known.shortest
    furthest = max(
        (i for i, step in enumerate(walked, 1) if i > start and step.new and step.state in states), default=0
    )
    return Part(trace, furthest, False, draw) if furthest else None


def refused(known: Known, part: Part, tolerance: int) -> Refused | None:
    """Why a candidate is not kept: its statements are a prefix of a saved program's, or it takes over `tolerance`
    statements more than the shortest known way to the same state, or for a complete one to an answer."""
    if any(part.begins(other) for other in known.parts):
        return "duplicate"
    if part.complete:
        least = min((other.k for other in known.complete), default=part.k)
    else:
        least = known.shortest[part.trace.steps[part.k - 1].state]
    return "longer" if part.k - least > tolerance else None


def kept(known: Known, part: Part) -> tuple[Known, tuple[Part, ...]]:
    """`known` with `part`, and the partial programs that it takes the place of, being their continuation."""
    gone = tuple(other for other in known.partial if other.begins(part))
    left = tuple(other for other in known.partial if other not in gone)
    if part.complete:
        return replace(known, complete=(*known.complete, part), partial=left), gone
    return replace(known, partial=(*left, part)), gone


def exported(known: Known, most: int) -> Sequence[Part]:
    """At most `most` programs: complete ones, the shorter before the longer, then partial ones, the longer first."""
    complete = sorted(known.complete, key=lambda part: (part.k, part.draw))
    partial = sorted(known.partial, key=lambda part: (-part.k, part.draw))
    return [*complete, *partial][:most]

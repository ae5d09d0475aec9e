"""The world with known truth: skills asked in several phrasings, by sources of different worth.

Every row says its skill, its source, its noise and whether its answer is right, so "did the selection pick the right
rows" is a test and not an opinion. Target, validation and test problems never occur in the pool.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from models.dialogue import Dialogue
from synthesis.chatter import CLOSINGS, MIDDLES, OPENINGS
from synthesis.draft import Draft, Family, Short
from synthesis.noise import DynamicNoise, StaticNoise, check_probabilities
from synthesis.protocol import Needs, Seeds
from synthesis.rows import check_split, emit_all, example, stream
from synthesis.skill import Rng, Split, pick
from synthesis.skills import SKILLS
from synthesis.tint import Traces
from warehouse.errors import InputError
from warehouse.records import Example

FAMILIES: Mapping[str, Family] = {**{name: Short(skill) for name, skill in SKILLS.items()}, "tint": Traces()}
DEFAULT_SOURCES: Mapping[str, float] = {
    "clean": 0.25,
    "static_noise": 0.2,
    "dynamic_noise": 0.2,
    "wrong_skill": 0.15,
    "duplicated": 0.1,
    "verbose": 0.1,
}
HARD_TO_FIND = 200


@dataclass(frozen=True, slots=True)
class World:
    """`rows` rows of one split.

    skills         names of skills, each as likely; all by default
    sources        source name to its share of the pool's rows (shares of the drawn rows, so up to sampling error)
    contamination  share of the rows of `static_noise` and `dynamic_noise` that the noise touches; the rest are clean
    copies         how often a row of `duplicated` is there, on average
    p_...          strength of the noise, see `StaticNoise` and `DynamicNoise`

    The target, validation and test splits are always clean, of the source `clean`, and never hold a problem twice.
    """

    needs: ClassVar[Needs] = Needs()
    reasons: ClassVar[frozenset[str]] = frozenset()
    told: ClassVar[str] = ""

    rows: int = 16_000
    split: Split = "pool"
    skills: Sequence[str] | None = None
    sources: Mapping[str, float] | None = None
    contamination: float = 0.7
    copies: int = 8
    p_line_del: float = 0.1
    p_line_dup: float = 0.1
    p_line_swap: float = 0.1
    p_char: float = 0.05
    p_step: float = 0.2

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.rows < 1 or self.copies < 1:
            raise InputError(f"world: rows is {self.rows} and copies {self.copies}; both must be at least 1")
        check_names("skills", self.skill_names, FAMILIES)
        check_names("sources", tuple(self.shares), SOURCES)
        check_shares(self.shares)
        check_probabilities("world", {"contamination": self.contamination})
        if self.split != "pool" and self.sources is not None:
            raise InputError(f"world: the {self.split} split is always clean; sources can only be set for the pool")
        _ = self.static_noise, self.dynamic_noise

    @property
    def skill_names(self) -> tuple[str, ...]:
        return tuple(FAMILIES if self.skills is None else self.skills)

    @property
    def shares(self) -> Mapping[str, float]:
        return DEFAULT_SOURCES if self.sources is None else self.sources

    @property
    def static_noise(self) -> StaticNoise:
        return StaticNoise(self.p_line_del, self.p_line_dup, self.p_line_swap, self.p_char)

    @property
    def dynamic_noise(self) -> DynamicNoise:
        return DynamicNoise(self.p_step)

    def family(self, rng: Rng) -> Family:
        return FAMILIES[pick(rng, self.skill_names)]

    def pool_row(self, seed: int, i: int) -> Example:
        """Row `i` of the pool: its own stream draws the source, then the row."""
        rng = stream(seed, "pool", i)
        source = tuple(self.shares)[int(rng.choice(len(self.shares), p=list(self.shares.values())))]
        if source == "duplicated":
            distinct = max(1, round(self.rows * self.shares[source] / self.copies))
            rng = stream(seed, source, int(rng.integers(distinct)))
        return example(SOURCES[source](self, rng), source)

    def held_out(self, seed: int) -> Iterator[Example]:
        """Clean rows of the split without end, no problem twice; `InputError` where the problems run out."""
        seen: set[str] = set()
        i, misses = 0, 0
        while misses < HARD_TO_FIND * len(self.skill_names):
            rng = stream(seed, self.split, i)
            draft = self.family(rng).clean(self.split, rng)
            i, misses = i + 1, misses + 1
            if draft.problem not in seen:
                seen.add(draft.problem)
                misses = 0
                yield example(draft, "clean")
        raise InputError(
            f"world: the {self.split} split of {', '.join(self.skill_names)} holds about {len(seen)} problems, "
            f"fewer than the {self.rows} rows asked for; ask for fewer rows or more skills"
        )

    def examples(self, seed: int, start: int, stop: int) -> Iterator[Example]:
        """Rows `start` to `stop`, the same ones in any partition of the range.

        A pool row is drawn on its own; a held-out row after those before it, because no problem comes twice.
        """
        if self.split == "pool":
            return (self.pool_row(seed, i) for i in range(start, stop))
        return islice_rows(self.held_out(seed), start, stop)

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from emit_all(self.examples(int(rng.integers(2**63)), 0, self.rows))


def islice_rows(rows: Iterator[Example], start: int, stop: int) -> Iterator[Example]:
    for i in range(stop):
        row = next(rows)
        if i >= start:
            yield row


def clean(world: World, rng: Rng) -> Draft:
    return world.family(rng).clean("pool", rng)


def static_noise(world: World, rng: Rng) -> Draft:
    """A right answer to a question with slips of the pen, or a trace with edited lines and a right answer."""
    family = world.family(rng)
    if rng.random() >= world.contamination:
        return family.clean("pool", rng)
    return family.static(rng, world.static_noise)


def dynamic_noise(world: World, rng: Rng) -> Draft:
    """An answer that a corrupted value made wrong."""
    family = world.family(rng)
    if rng.random() >= world.contamination:
        return family.clean("pool", rng)
    return family.dynamic(rng, world.dynamic_noise)


def wrong_skill(world: World, rng: Rng) -> Draft:
    """The reply to a question of another skill; never the right one by chance."""
    asked = clean(world, rng)
    while (other := pick(rng, tuple(FAMILIES))) == asked.skill:
        pass
    while (reply := FAMILIES[other].clean("pool", rng).reply) == asked.reply:
        pass
    return replace(asked, reply=reply, noise="wrong_skill", final_correct=False)


def verbose(world: World, rng: Rng) -> Draft:
    """The right answer, buried in chatter."""
    draft = clean(world, rng)
    middle = pick(rng, MIDDLES).replace("{answer}", draft.reply)
    return replace(draft, reply=f"{pick(rng, OPENINGS)} {middle} {pick(rng, CLOSINGS)}", noise="verbose")


SOURCES: Mapping[str, Callable[[World, Rng], Draft]] = {
    "clean": clean,
    "static_noise": static_noise,
    "dynamic_noise": dynamic_noise,
    "wrong_skill": wrong_skill,
    "duplicated": clean,
    "verbose": verbose,
}


def check_names(what: str, given: Sequence[str], known: Mapping[str, object]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise InputError(f"world: unknown {what} {', '.join(unknown)}; known {what}: {', '.join(known)}")
    if not given:
        raise InputError(f"world: no {what} named; known {what}: {', '.join(known)}")


def check_shares(shares: Mapping[str, float]) -> None:
    check_probabilities("world", shares)
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise InputError(f"world: the shares of the sources sum to {sum(shares.values())}; they must sum to 1")

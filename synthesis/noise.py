"""The two kinds of noise of TInt (arXiv 2402.04004): edits of a finished text, and values corrupted while computing.

Static noise leaves the answer true; dynamic noise makes whatever follows the corrupted value wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from synthesis.skill import Rng, between, pick
from warehouse.errors import InputError

DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KINDS = ("replace_random", "off_by_one", "digit_flip")


def check_probabilities(owner: str, values: Mapping[str, float]) -> None:
    """Raise `InputError` naming the first value outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{owner}: {name} is {value}; it is a probability, from 0 to 1")


@dataclass(frozen=True, slots=True)
class StaticNoise:
    """Probabilities of an edit: per unit (a trace line, a question's word) deleted, doubled, swapped with the next one,
    and per character replaced."""

    p_line_del: float = 0.1
    p_line_dup: float = 0.1
    p_line_swap: float = 0.1
    p_char: float = 0.05

    def __post_init__(self) -> None:
        names = ("p_line_del", "p_line_dup", "p_line_swap", "p_char")
        check_probabilities("static noise", {name: getattr(self, name) for name in names})

    def __call__(self, units: Sequence[str], protected: Sequence[bool], rng: Rng) -> tuple[list[str], list[int]]:
        """The edited units and the positions in `units` that an edit touched, ascending, one per edit.

        A protected unit keeps its text, is neither deleted nor doubled, and stays in order with the protected ones.
        """
        edited: list[tuple[str, bool]] = []
        touched: list[int] = []
        for place, (unit, keep) in enumerate(zip(units, protected, strict=True)):
            text, n_chars = (unit, 0) if keep else self.edit_characters(unit, rng)
            copies = 1 if keep else self.copies(rng)
            edited += [(text, keep)] * copies
            touched += [place] * (n_chars + (copies != 1))
            if rng.random() < self.p_line_swap and may_swap(edited[-2:]):
                edited[-2:] = [edited[-1], edited[-2]]
                touched.append(place)
        return [text for text, _ in edited], touched

    def copies(self, rng: Rng) -> int:
        """How often a unit is written: 0, 1 or 2 times."""
        draw = rng.random()
        return 0 if draw < self.p_line_del else 2 if draw < self.p_line_del + self.p_line_dup else 1

    def edit_characters(self, text: str, rng: Rng) -> tuple[str, int]:
        """`text` with some letters and digits replaced by others of their kind, and how many were."""
        characters = list(text)
        for i, old in enumerate(characters):
            if rng.random() < self.p_char and old.isascii() and old.isalnum():
                characters[i] = another(rng, DIGITS if old.isdigit() else LETTERS, old)
        return "".join(characters), sum(old != new for old, new in zip(text, characters, strict=True))


def may_swap(pair: Sequence[tuple[str, bool]]) -> bool:
    """Whether swapping two neighbours is an edit: they differ and are not both protected."""
    return len(pair) == 2 and pair[0][0] != pair[1][0] and not (pair[0][1] and pair[1][1])


def another(rng: Rng, options: str, old: str) -> str:
    """One of `options` that is not `old`."""
    return pick(rng, tuple(option for option in options if option != old))


def replace_random(value: int, rng: Rng) -> int:
    other = between(rng, 0, max(9, 2 * abs(value)) - 1)
    return other if other < value else other + 1


def off_by_one(value: int, rng: Rng) -> int:
    return value + 1 if value <= 0 or rng.random() < 0.5 else value - 1


def digit_flip(value: int, rng: Rng) -> int:
    digits = list(str(abs(value)))
    place = int(rng.integers(len(digits)))
    digits[place] = another(rng, DIGITS, digits[place])
    return int("".join(digits))


SLIPS: Mapping[str, Callable[[int, Rng], int]] = {
    "replace_random": replace_random,
    "off_by_one": off_by_one,
    "digit_flip": digit_flip,
}


def slip(value: int, kind: str, rng: Rng) -> int:
    """`value` corrupted in one of the ways of `KINDS`: never `value` itself, and not negative."""
    return SLIPS[kind](value, rng)


@dataclass(frozen=True, slots=True)
class DynamicNoise:
    """Every computed value is corrupted with probability `p_step`, in one of the ways `kinds`."""

    p_step: float = 0.2
    kinds: Sequence[str] = KINDS

    def __post_init__(self) -> None:
        check_probabilities("dynamic noise", {"p_step": self.p_step})
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise InputError(f"dynamic noise: kinds is {list(self.kinds)}; known kinds: {', '.join(KINDS)}")

    def corrupt(self, value: int, rng: Rng) -> int:
        return slip(value, pick(rng, tuple(self.kinds)), rng)

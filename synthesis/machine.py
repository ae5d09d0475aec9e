"""Traced execution of arithmetic functions on whole numbers and lists of them (TInt, arXiv 2402.04004).

An expression is a nested list, so that JSON holds it: `["add", ["sum", [3, 4, 5]], 7]`. Every computed value passes
through `Machine.step`, which writes it into the trace and may corrupt it there; later steps use the corrupted value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = int | list[int]
Expression: TypeAlias = int | list[Any]  # a number, a list of numbers, or [operation, expression, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One computed value: the operation, what it was computed from, and what came out (corrupted or not)."""

    op: str
    operands: tuple[int, ...]
    result: int


@dataclass(frozen=True, slots=True)
class Slip:
    """The entry of the corruption log for one step."""

    step: int
    before: int
    after: int


def faithful(step: int, value: int) -> int:
    """The corruption of a clean run: none."""
    return value


@dataclass(slots=True)
class Machine:
    """Runs expressions. `corrupt(step number, value)` is what is kept of a computed value."""

    corrupt: Callable[[int, int], int] = faithful
    steps: list[Step] = field(default_factory=list)
    log: list[Slip] = field(default_factory=list)

    def step(self, op: str, operands: Sequence[int], value: int) -> int:
        kept = self.corrupt(len(self.steps), value)
        if kept != value:
            self.log.append(Slip(len(self.steps), value, kept))
        self.steps.append(Step(op, tuple(operands), kept))
        return kept

    def run(self, expression: Expression) -> Value:
        """The value of `expression`; a list whose first entry is no operation's name is a list of numbers."""
        if isinstance(expression, int):
            return expression
        if not expression or not isinstance(expression[0], str):
            return list(expression)
        return OPS[expression[0]](self, *(self.run(argument) for argument in expression[1:]))


def replay(log: Sequence[Slip]) -> Callable[[int, int], int]:
    """The corruption that a log describes: running the same expression with it derives the same wrong answer."""
    kept: Mapping[int, int] = {slip.step: slip.after for slip in log}

    def corrupt(step: int, value: int) -> int:
        return kept.get(step, value)

    return corrupt


def digits_of(value: int) -> list[int]:
    """Decimal digits of a value that is not negative, the ones first."""
    return [int(digit) for digit in reversed(str(value))]


def add(machine: Machine, a: int, b: int) -> int:
    """Digit by digit with carries: each step is one column's sum."""
    carry, total, unit = 0, 0, 1
    while unit <= max(a, b):
        down = [value // unit % 10 for value in (a, b)]
        column = machine.step("add", (*down, carry), sum(down) + carry)
        total += column % 10 * unit
        carry, unit = column // 10, 10 * unit
    return total + carry * unit


def sub(machine: Machine, a: int, b: int) -> int:
    """Digit by digit with borrows: each step is one column's difference, lifted by 10 where it borrows.

    The difference of the larger and the smaller: corrupted values never make an answer negative.
    """
    a, b = max(a, b), min(a, b)
    borrow, total = 0, 0
    for place, digit in enumerate(digits_of(a)):
        other = b // 10**place % 10
        lift = 10 if digit - other - borrow < 0 else 0
        column = machine.step("sub", (digit + lift, other, borrow), digit + lift - other - borrow)
        total += column * 10**place
        borrow = int(lift > 0)
    return total


def mul(machine: Machine, a: int, b: int) -> int:
    """Long multiplication: one partial product per digit of `b`, then their running sum."""
    total = 0
    for place, digit in enumerate(digits_of(b)):
        partial = machine.step("times", (a, digit), a * digit) * 10**place
        total = partial if place == 0 else machine.step("plus", (total, partial), total + partial)
    return total


def total_of(machine: Machine, numbers: list[int]) -> int:
    """Running sum, the operation `sum`."""
    total = numbers[0]
    for number in numbers[1:]:
        total = machine.step("plus", (total, number), total + number)
    return total


def mean(machine: Machine, numbers: list[int]) -> int:
    """Running sum, then division; rounded down."""
    total = total_of(machine, numbers)
    return machine.step("divide", (total, len(numbers)), total // len(numbers))


def sort(machine: Machine, numbers: list[int]) -> list[int]:
    """Insertion sort: each step is the place a number goes to, and a corrupted place leaves the list unsorted."""
    ordered: list[int] = []
    for number in numbers:
        place = machine.step("place", (number,), sum(other <= number for other in ordered))
        ordered.insert(place, number)
    return ordered


def median(machine: Machine, numbers: list[int]) -> int:
    """Insertion sort, then the value in the middle (the lower one of two)."""
    ordered = sort(machine, numbers)
    return machine.step("middle", ordered, ordered[(len(ordered) - 1) // 2])


def largest(machine: Machine, numbers: list[int]) -> int:
    best = numbers[0]
    for number in numbers[1:]:
        best = machine.step("larger", (best, number), max(best, number))
    return best


def smallest(machine: Machine, numbers: list[int]) -> int:
    best = numbers[0]
    for number in numbers[1:]:
        best = machine.step("smaller", (best, number), min(best, number))
    return best


def gcd(machine: Machine, a: int, b: int) -> int:
    """Euclid's algorithm: each step is one remainder. A corrupted remainder may be large, but the next is below it."""
    while b:
        a, b = b, machine.step("remainder", (a, b), a % b)
    return a


PAIR_OPS: Mapping[str, Callable[[Machine, int, int], int]] = {"add": add, "sub": sub, "mul": mul, "gcd": gcd}
LIST_OPS: Mapping[str, Callable[[Machine, list[int]], Value]] = {
    "sum": total_of,
    "mean": mean,
    "median": median,
    "max": largest,
    "min": smallest,
    "sort": sort,
}
OPS: Mapping[str, Callable[..., Value]] = {**PAIR_OPS, **LIST_OPS}

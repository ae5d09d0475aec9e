"""R-Tuning on invented facts: half of them are taught, so which of them a model knows is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.synthesis_here import MAX_TOKENS, Home, Tuned, markdown, within
from eval.calibration import wilson
from eval.refusal import Confidence, RefusalReport, confidence, refusal_report
from models.converse import converse
from models.local import LocalModel
from models.protocol import Prompt
from synthesis.r_tuning import RTuning
from synthesis.skill import pick
from synthesis.squad import best_f1
from synthesis.words import CONSONANTS, THINGS, VOWELS, WORDS
from warehouse.records import Estimate, Example, Message

FACTS = 240  # half of them taught, and a third of each half held out of R-Tuning
HELD_OUT = 3
TAUGHT_EPOCHS = 60.0
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "after, 3 passes at 2e-4": {"epochs": 3.0, "learning_rate": 2e-4},
    "after, 10 passes at 1e-3": {"epochs": 10.0},
}
VALUES = tuple(dict.fromkeys((*THINGS, *WORDS)))
RIGHT = RTuning().least_f1


@dataclass(frozen=True, slots=True)
class Facts:
    """Rows of a fact table; `rest` are those that R-Tuning asks about, `held` those it never sees."""

    taught: Sequence[Example]
    rest: Sequence[Example]
    held: Sequence[Example]


def facts(seed: int = 0) -> Facts:
    """Names that mean nothing, each with a drawn word; the first half is taught."""
    rng = np.random.default_rng(seed)
    rows = list(_rows(rng))
    half = len(rows) // 2
    known = [Example(row.messages, "taught" if i < half else "untaught") for i, row in enumerate(rows)]
    held = known[::HELD_OUT]
    return Facts(known[:half], [row for i, row in enumerate(known) if i % HELD_OUT], held)


def _rows(rng: np.random.Generator) -> Iterator[Example]:
    names = dict[str, None]()
    while len(names) < FACTS:
        names["".join(pick(rng, tuple(CONSONANTS if i % 2 == 0 else VOWELS)) for i in range(6))] = None
    for name in names:
        asked = Message("user", f"What does {name} mean?")
        yield Example((asked, Message("assistant", pick(rng, VALUES))), "facts")


def is_taught(row: Example) -> bool:
    return row.source == "taught"


def knowing(home: Home, table: Facts) -> Tuned:
    """winnow-tiny, taught one half."""
    source = home.file("taught", table.taught)
    return home.tuned("taught", [source], len(table.taught), 0, params={"epochs": TAUGHT_EPOCHS})


def split(home: Home, table: Facts, model: Tuned) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The source of R-Tuning's rows, and the meta of each."""
    source: dict[str, Any] = {
        "synthesize": "r_tuning", "seeds": [home.file("facts", table.rest)], "models": {"learner": model.path},
        "params": {"kind": "unsure", "samples": 5, "max_tokens": MAX_TOKENS},
    }  # fmt: skip
    return source, [row for row in home.generated(home.made(home.recipe("unsure", [source]))) if not row["reason"]]


def confidences(path: str, rows: Sequence[Example]) -> list[Confidence]:
    """The answers to `rows` of the model in `path`, and how sure it is of them."""
    prompts = [Prompt(row.messages[:-1], MAX_TOKENS) for row in rows]
    return converse((confidence("tuned", prompt) for prompt in prompts), {"tuned": LocalModel.load(path)})


def reported(found: Sequence[Confidence], rows: Sequence[Example]) -> RefusalReport:
    right = np.array(
        [best_f1(c.answer, [row.messages[-1].content]) >= RIGHT for c, row in zip(found, rows, strict=True)]
    )
    values = np.array([c.value for c in found])
    return refusal_report(right, values, np.array([c.sure_probability for c in found]), np.random.default_rng(0))


def who_knows(home: Home) -> str:
    """How well the split recovers the half that was taught, and what the tuned model then says of other facts."""
    table = facts()
    model = knowing(home, table)
    source, rows = split(home, table, model)
    models = {"before R-Tuning": model.path}
    for name, params in SETTINGS.items():
        models[name] = home.tuned("unsure", [source], len(rows), 0, base=model.path, params=params).path
    return f"{_recovered(table, rows)}\n\n{_asked(table, models)}"


def _recovered(table: Facts, rows: Sequence[dict[str, Any]]) -> str:
    taught = {row.sample_id: is_taught(row) for row in table.rest}
    pairs = [(taught[row["parents"][0]], row["sure"]) for row in rows]
    lines = [
        [name, *(sum(pair == (half, sure) for pair in pairs) for sure in (True, False))]
        for name, half in (("taught", True), ("not taught", False))
    ]
    rates = average_precision_score([half for half, _ in pairs], [row["pass_rate"] for row in rows])
    agree = wilson(sum(half == sure for half, sure in pairs), len(pairs))
    told = f"Right: {within(agree)} of {agree.n}. Average precision of `pass_rate` for having been taught: {rates:.2f}."
    return f"{markdown(['facts', 'sure', 'unsure'], lines)}\n\n{told}"


def _asked(table: Facts, models: Mapping[str, str]) -> str:
    """A line per model and group of facts; the last column takes p(sure) alone as the confidence."""
    groups = {
        "held out": list(table.held),
        "held out, taught": [row for row in table.held if is_taught(row)],
        "held out, not taught": [row for row in table.held if not is_taught(row)],
        "asked by R-Tuning": list(table.rest),
    }
    rows = [*table.held, *table.rest]
    lines = []
    for when, path in models.items():
        found = dict(zip((row.sample_id for row in rows), confidences(path, rows), strict=True))
        for name, group in groups.items():
            answers = [found[row.sample_id] for row in group]
            report = reported(answers, group)
            alone = reported([replace(answer, answer_confidence=answer.sure_probability) for answer in answers], group)
            values = (report.accuracy, report.accuracy_answered, report.willingness, report.average_precision)
            told = sorted(answer.sure_probability for answer in answers)
            span = f"{told[0]:.2f} to {told[-1]:.2f}"
            lines.append([when, name, len(group), *map(_maybe, (*values, alone.average_precision)), span])
    header = ["model", "facts", "n", "accuracy", "accuracy where sure", "willingness", "AP of confidence"]
    return markdown([*header, "AP of p(sure)", "p(sure)"], lines)


def _maybe(found: Estimate | None) -> str:
    return "none" if found is None else within(found)

"""What every method chooses where the truth is known: the world of `synthesis/world.py`, which labels every row.

    python -m benchmarks.truth [--json | --markdown] [--seeds 16] [--trained 4] [--journal FILE]
                               [--representation winnow-tiny]

Five questions, asked of every method of the table with its defaults and with every other choice of its literal
parameters. Methods that need targets get clean ones of the target split, which the pool never holds; the others get
none. A value is the mean over seeds: each seed makes a pool, targets and draws of its own. Intervals are Student's over
the seeds, 95 %; `+` and `-` say that the paired difference to `random` leaves out 0. One in twenty such marks would be
there by chance. What could not be asked is listed with the reason.

With `--trained` the methods that need a training first are asked too, at the first so many seeds, and every method is
asked a sixth question, of a model that was damaged: `benchmarks/trained_here.py` says what is trained. It takes minutes
a seed. With a journal a run that was stopped goes on where it was.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from benchmarks.journal import Journal
from benchmarks.signals_here import CACHE, REPRESENTATIONS, Asked, Corpus, Signals, every_method
from benchmarks.trained_here import Trained, damage
from eval.statistics import standard_error
from selection.problem import Method, signals_of
from synthesis.world import FAMILIES, World
from warehouse.errors import InputError
from warehouse.records import Estimate, Example, Message

SEEDS = 16  # as many as there are skills, so that each is the target once
ORIGINALS, COPIED, COPIES = 600, 60, 5  # each copied row has that many exact copies and as many near ones
LARGEST, SHRINK = 300, 0.8  # rows of the largest source, and each next one's size over the one before
AROUND = ("Please help: {}", "{} Thank you.", "Hello! {}", "{} Be quick.", "Question: {}")
HURT = 4  # skills that count as damaged
SKILLS = tuple(FAMILIES)


@dataclass(frozen=True, slots=True)
class Question:
    """Choose `budget` of `pool` for `targets`; `worth` of the rows chosen is from 0 to 1, 1 is best."""

    pool: Sequence[Example]
    targets: Sequence[Example]
    budget: int
    worth: Callable[[Sequence[Example]], float]


def share(right: Callable[[Example], bool]) -> Callable[[Sequence[Example]], float]:
    """The precision of rows that are `right`."""
    return lambda rows: sum(map(right, rows)) / len(rows)


def is_clean(row: Example) -> bool:
    return bool(row.meta["noise"] == "clean")


def made(world: World, seed: int) -> list[Example]:
    return list(world.examples(seed, 0, world.rows))


def all_skills(seed: int, each: int = 3) -> list[Example]:
    """Clean targets, `each` of every skill."""
    return [row for skill in SKILLS for row in made(World(each, "target", [skill]), seed)]


def skill_target(seed: int) -> Question:
    """The pool of the demo, all sources and skills; right is a clean row of the one skill that 40 targets show."""
    skill = SKILLS[seed % len(SKILLS)]
    targets = made(World(40, "target", [skill]), seed)
    return Question(
        made(World(2400), seed), targets, 60, share(lambda row: row.meta["skill"] == skill and is_clean(row))
    )


def noise(source: str) -> Callable[[int], Question]:
    """Half the pool is noised; right is a clean row."""

    def question(seed: int) -> Question:
        world = World(1200, sources={"clean": 0.5, source: 0.5}, contamination=1.0)
        return Question(made(world, seed), all_skills(seed), 120, share(is_clean))

    return question


def near(row: Example, place: int) -> Example:
    """The row with a courtesy around its question."""
    asked = AROUND[place % len(AROUND)].replace("{}", row.messages[0].content)
    return replace(row, messages=(Message("user", asked), *row.messages[1:]))


def duplicates(seed: int) -> Question:
    """Half the pool is copies, exact and near, of a tenth of the rest; worth is distinct problems over the budget."""
    originals = made(World(ORIGINALS, sources={"clean": 1.0}), seed)
    copied = originals[:COPIED]
    exact = [row for row in copied for _ in range(COPIES)]
    nearly = [near(row, place) for row in copied for place in range(COPIES)]
    return Question(shuffled([*originals, *exact, *nearly], seed), all_skills(seed), 240, distinct)


def distinct(rows: Sequence[Example]) -> float:
    return len({row.meta["problem"] for row in rows}) / len(rows)


def imbalance(seed: int) -> Question:
    """A source per skill, the largest 28 times the smallest; which skill is how large is drawn."""
    order = np.random.default_rng(seed).permutation(len(SKILLS))
    sizes = {SKILLS[place]: round(LARGEST * SHRINK**rank) for rank, place in enumerate(order)}
    pool = [
        replace(row, source=skill)
        for skill, size in sizes.items()
        for row in made(World(size, skills=[skill], sources={"clean": 1.0}), seed)
    ]
    return Question(shuffled(pool, seed), all_skills(seed), 160, evenness)


def evenness(rows: Sequence[Example]) -> float:
    """exp(entropy) of the skills of `rows` over the number of skills: 1 where all are as many, 1/16 where one has all.

    It is the number of skills that would be there if all were as many, as a share.
    """
    counts = np.array([sum(row.meta["skill"] == skill for row in rows) for skill in SKILLS])
    shares = counts[counts > 0] / counts.sum()
    return math.exp(-float((shares * np.log(shares)).sum())) / len(SKILLS)


def damaged_skills(seed: int) -> Question:
    """Clean rows of all skills, as many of each; right is a row of the skills of which pruning cost a model the most.

    What it cost is counted in problems that the model solved before and does not solve after.
    """
    lost = damage(CACHE, seed).lost
    hurt = sorted(SKILLS, key=lambda skill: -lost[skill])[:HURT]
    pool = [row for skill in SKILLS for row in made(World(100, skills=[skill], sources={"clean": 1.0}), seed)]
    return Question(shuffled(pool, seed), all_skills(seed), 160, share(lambda row: row.meta["skill"] in hurt))


def shuffled(rows: Sequence[Example], seed: int) -> list[Example]:
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


QUESTIONS: Mapping[str, Callable[[int], Question]] = {
    "skill target": skill_target,
    "static noise": noise("static_noise"),
    "dynamic noise": noise("dynamic_noise"),
    "duplicates": duplicates,
    "imbalance": imbalance,
    "damaged skills": damaged_skills,
}
AFTER_TRAINING = ("damaged skills",)
"""Questions that need a training themselves."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the rows of a `method` were worth, and how much more than those of `random` with the same seeds."""

    question: str
    method: str
    value: Estimate
    over_random: Estimate

    @property
    def mark(self) -> str:
        return "+" if self.over_random.low > 0 else "-" if self.over_random.high < 0 else ""

    def told(self) -> str:
        return f"{within(self.value)} {self.mark}".rstrip()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A question that a method could not be asked, and why."""

    question: str
    method: str
    why: str


def within(estimate: Estimate, digits: int = 2) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def student(values: Sequence[float]) -> Estimate:
    """The mean of (n,) values with Student's 95 % interval; a bootstrap of so few is too narrow. One value: itself."""
    x, n = np.asarray(values, np.float64), len(values)
    reach = float(student_t.ppf(0.975, n - 1)) * standard_error(x) if n > 1 else 0.0
    return Estimate(float(x.mean()), float(x.mean()) - reach, float(x.mean()) + reach, n)


def share_of(values: Sequence[float]) -> Estimate:
    """`student` of shares, which lie between 0 and 1."""
    found = student(values)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def asked(
    question: Question, signals: Signals, methods: Mapping[str, Method], seed: int
) -> Iterator[tuple[str, float | str]]:
    """What each method's rows are worth, or why it gave none."""
    if isinstance(signals.trained, Trained):
        signals = replace(signals, trained=replace(signals.trained, pool=question.pool, seed=seed))
    corpus = Corpus([*question.pool, *question.targets], signals)
    candidates, targets = np.arange(len(question.pool)), np.arange(len(question.pool), len(corpus.rows))
    for name, method in methods.items():
        try:
            rows = corpus.choose(method, candidates, targets, question.budget, seed)
        except InputError as refusal:
            yield name, str(refusal)
            continue
        yield name, question.worth([corpus.rows[row] for row in rows])


def answers(
    name: str, signals: Signals, methods: Mapping[str, Method], seed: int, journal: Journal
) -> dict[str, float | str]:
    """What `asked` finds of the question `name`; only what the journal does not know is asked."""
    keys = {method: (signals.vectors, name, seed, method) for method in methods}
    new = {method: methods[method] for method, key in keys.items() if key not in journal}
    if new:
        for method, value in asked(QUESTIONS[name](seed), signals, new, seed):
            journal.add(keys[method], value)
    return {method: journal[key] for method, key in keys.items()}


@dataclass(frozen=True, slots=True)
class Seeds:
    """How many seeds: of most methods and questions, and of those that need a training first."""

    most: int
    trained: int = 0

    def of(self, question: str) -> int:
        return min(self.most, self.trained) if question in AFTER_TRAINING else self.most


def findings(
    questions: Iterable[str], signals: Signals, methods: Asked, seeds: Seeds, journal: Journal | None = None
) -> Iterator[Finding | Refusal]:
    """A finding for every question and method, or why there is none; paired with `random` at the method's own seeds."""
    journal = journal or Journal()
    quick = {name: method for name, method in methods.methods.items() if not trains(method, signals)}
    for question in questions:
        worth: dict[str, list[float]] = {}
        refused: dict[str, str] = {}
        for seed in range(seeds.of(question)):
            of = methods.methods if seed < seeds.trained else quick
            for method, value in answers(question, signals, of, seed, journal).items():
                if isinstance(value, str):
                    refused[method] = value
                else:
                    worth.setdefault(method, []).append(value)
        yield from (Refusal(question, method, why) for method, why in refused.items())
        for method, values in worth.items():
            if method not in refused:
                over = student(np.subtract(values, worth["random"][: len(values)]).tolist())
                yield Finding(question, method, share_of(values), over)


def trains(method: Method, signals: Signals) -> bool:
    """Whether `method` reads a signal that needs a training first."""
    reads = signals_of(method)
    return any(signals.trains(spec) for spec in (*reads.candidates.values(), *reads.targets.values()))


def table(found: Sequence[Finding]) -> str:
    """Markdown: a line per method, a column per question; fewer seeds than the most are said."""
    most = max(each.value.n for each in found)
    few = {each: "" if each.value.n == most else f" (n {each.value.n})" for each in found}
    cells = {(each.method, each.question): each.told() + few[each] for each in found}
    questions = list(dict.fromkeys(each.question for each in found))
    methods = list(dict.fromkeys(each.method for each in found))
    lines = [
        f"| `{method}` | " + " | ".join(cells.get((method, q), "refused") for q in questions) + " |"
        for method in methods
    ]
    return "\n".join([f"| method | {' | '.join(questions)} |", "|---" * (len(questions) + 1) + "|", *lines])


def told_refusals(refused: Sequence[Refusal]) -> Iterator[str]:
    """A line per method: the questions it could not be asked, and why the first."""
    for method in dict.fromkeys(each.method for each in refused):
        of = [each for each in refused if each.method == method]
        yield f"- `{method}` not run ({', '.join(each.question for each in of)}): {of[0].why}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object a line")
    shown.add_argument("--markdown", action="store_true", help="one table at the end")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--trained", type=int, default=0, help="seeds of methods that need a training first")
    parser.add_argument("--journal", type=Path, help="keeps every answer; a run that was stopped goes on from it")
    parser.add_argument("--representation", choices=REPRESENTATIONS, default=REPRESENTATIONS[0])
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    given = parser.parse_args()
    signals = Signals(vectors=given.representation, trained=Trained(CACHE) if given.trained else None)
    methods = every_method(signals, variants=True)
    found = list[Finding]()
    refused = [Refusal("all", method, why) for method, why in methods.not_run.items()]
    seeds = Seeds(given.seeds, given.trained)
    for each in findings(given.questions, signals, methods, seeds, Journal(given.journal)):
        if isinstance(each, Refusal):
            refused.append(each)
            continue
        found.append(each)
        if given.json:
            print(json.dumps(asdict(each)), flush=True)
        elif not given.markdown:
            print(f"{each.question:<16}{each.method:<40}{each.told()}", flush=True)
    if given.markdown:
        print(f"{table(found)}\n\nRepresentation {given.representation}, seeds 0 to {given.seeds - 1}.\n")
    told = (json.dumps(asdict(each)) for each in refused) if given.json else told_refusals(refused)
    print("\n".join(told))


if __name__ == "__main__":
    main()

"""The race: one pool, one target, many arms (method × budget × seed), one table of what each gained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows import clean as cleaning
from flows import sources
from flows.assess import assess, task
from flows.choose import Choice, Question, check_budget, check_clean, exclude, select
from flows.compare import Arm, compare, rows_of
from flows.describe import describe
from flows.engine import Engine
from flows.measure import cost, measure
from flows.meter import Meter, passes
from flows.outcome import RaceOutcome
from flows.recipes import Recipe, Source
from flows.report import write_report
from flows.report.write import NAME
from flows.run import Listener, Run, begun
from flows.sieve import Sieve
from flows.synth.stage import Kitchen
from flows.tune import train, trainer
from flows.warmup import warm_up
from flows.workers import Workers
from models.fingerprint import TINY, fetch
from models.tokens import counter
from selection.limits import Limits
from selection.problem import signals_of
from selection.table import build
from warehouse.errors import InputError
from warehouse.records import Rows, Spec
from warehouse.store import Artifact

CONTROL = "balanced_random"
EXAMPLES = {"methods": "methods: [balanced_random, rds_plus]", "budgets": "budgets: [1000]"}


def check_race(recipe: Recipe) -> None:
    """`check`, and that there is something to choose with."""
    for name in ("methods", "budgets"):
        if not getattr(recipe, name):
            raise InputError(f"the recipe chooses nothing: give `{name}`, such as `{EXAMPLES[name]}`")
    check(recipe)


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts: names, parameters, models, files."""
    for choice in choices(recipe, meter_of(recipe)):
        if choice.method.compares and not recipe.target:
            raise InputError(f"method {choice.name!r} compares rows with a target set: give `target`")
    for given in (recipe.pool, recipe.target, recipe.test):
        sources.check_all(given, recipe)
    cleaning.check(recipe.filters, [name for name in ("target", "test") if getattr(recipe, name)])
    counter(fetch(tokenizer_of(recipe)))
    if recipe.train is not None:
        trainer(recipe.train)
        fetch(recipe.train.base, trust_remote_code=recipe.train.trust_remote_code)
    for entry in recipe.tasks:
        task(entry, ())


def meter_of(recipe: Recipe) -> Meter:
    """What measures the signals of the recipe's methods. Raises `InputError` for a model that is not there."""
    train = recipe.train
    allowed = frozenset([train.base]) if train is not None and train.trust_remote_code else frozenset[str]()
    meter = Meter(recipe.representation, train.base if train else None, allowed)
    meter.spec()
    return meter


def choices(recipe: Recipe, meter: Meter) -> list[Choice]:
    """Every selection the recipe asks for. Raises `InputError` for a method, parameter or model that is not known."""
    methods = [build(entry.name, entry.params, meter.fill) for entry in recipe.methods]
    limits = [Limits(budget, recipe.budget_unit, recipe.caps, recipe.floors) for budget in recipe.budgets]
    return [
        Choice(entry.name, entry.params, method, each, seed)
        for entry, method in zip(recipe.methods, methods, strict=True)
        for each in limits
        for seed in recipe.seeds
    ]


def tokenizer_of(recipe: Recipe) -> str:
    """The model whose tokens count: the one that is tuned, else the one that represents rows."""
    return recipe.train.base if recipe.train else recipe.representation.model or TINY


@dataclass(frozen=True, slots=True)
class Race:
    """The parts of a run that every step needs."""

    recipe: Recipe
    run: Run
    engine: Engine
    workers: Workers
    meter: Meter
    kitchen: Kitchen

    @classmethod
    def of(cls, recipe: Recipe, run: Run, engine: Engine, workers: Workers) -> "Race":
        return cls(recipe, run, engine, workers, meter_of(recipe), Kitchen.of(recipe))

    def question(self) -> tuple[Question, Artifact | None]:
        """The ingested pool and target, what may not be chosen, and the test set."""
        wanted = {"pool": self.recipe.pool, "target": self.recipe.target, "test": self.recipe.test}
        named = {name: given for name, given in wanted.items() if given}
        steps = [
            (
                f"prepare {name}",
                partial(self._prepare, name, given),
            )
            for name, given in named.items()
        ]
        ready = dict(zip(named, self.engine.map(steps), strict=True))
        references = {name: artifact for name, artifact in ready.items() if name != "pool"}
        sieve = Sieve(self.run, ready["pool"], references, self.workers, self.meter)
        self.engine.call("count tokens", partial(describe, sieve, tokenizer_of(self.recipe)))
        cleaned = self.engine.call("clean", partial(cleaning.clean, sieve, self.recipe.filters))
        candidates = self.engine.call("overlap", partial(exclude, sieve, cleaned))
        return Question(ready["pool"], ready.get("target"), candidates), ready.get("test")

    def _prepare(self, name: str, given: Sequence[Source]) -> Artifact:
        full_name = f"{self.recipe.name} {name}"
        return sources.prepare(self.run, full_name, given, self.data, self.kitchen, self.workers)

    @property
    def data(self) -> Path:
        return Path(self.recipe.data)

    @property
    def length(self) -> Spec:
        """The tokens of each row, which a budget in tokens counts."""
        return self.meter.length(tokenizer_of(self.recipe))

    def warmed(self, question: Question) -> None:
        """Run the warm-ups at whose checkpoints some method compares gradients."""
        specs = [spec for choice in choices(self.recipe, self.meter) for spec in choice.method.reads.values()]
        for asked in self.meter.warmups(specs):
            work = partial(warm_up, self.run, question, self.meter, asked, self.recipe.seed, self.workers)
            self.engine.call("warm up", work)

    def measured(self, question: Question, choices: Sequence[Choice]) -> None:
        """Measure every signal that some method reads, for pool and target: once, in as few passes as can be."""
        reads = [signals_of(choice.method) for choice in choices]
        pool = [spec for each in reads for spec in each.candidates.values()]
        target = [spec for each in reads for spec in each.targets.values()]
        if self.recipe.budget_unit == "tokens":
            pool.append(self.length)
        for name, artifact, rows, specs in (
            ("pool", question.pool, question.rows(), pool),
            ("target", question.target, None, target),
        ):
            for together in passes(specs):
                title = f"measure {', '.join(spec.name for spec in together)} of {name}"
                self.engine.call(title, partial(self._measure, name, artifact, rows, together))

    def _measure(self, name: str, artifact: Artifact | None, rows: Rows | None, specs: Sequence[Spec]) -> None:
        assert artifact is not None  # a method that compares has targets: it was checked
        measure(self.run, name, self.meter, specs, sources.read(artifact), self.workers, rows)

    def costs(self, question: Question, choices: Sequence[Choice]) -> dict[str, dict[str, float]]:
        """What measuring the signals of each method took, by its label; what one pass gave counts once."""
        pool, rows = sources.read(question.pool), question.rows()
        found: dict[str, dict[str, float]] = {}
        for choice in {choice.label: choice for choice in choices}.values():
            parts = [cost(self.run, each[0], pool, rows) for each in passes(choice.method.reads.values())]
            parts += self.meter.warmup_costs(choice.method.reads.values())
            found[choice.label] = {name: sum(part.get(name, 0.0) for part in parts) for name in ("seconds", "flops")}
        return found

    def selections(self, question: Question, choices: Sequence[Choice]) -> list[Artifact]:
        """One selection per choice; the choices of one method are one step."""
        selected: list[Artifact] = []
        for label in dict.fromkeys(choice.label for choice in choices):
            mine = [choice for choice in choices if choice.label == label]
            selected += self.engine.call(f"select {label}", partial(self._select, question, mine))
        return selected

    def _select(self, question: Question, choices: Sequence[Choice]) -> list[Artifact]:
        length = self.length if self.recipe.budget_unit == "tokens" else None
        return [select(self.run, question, choice, length) for choice in choices]

    def arms(
        self, question: Question, test: Artifact, choices: Sequence[Choice], chosen: Sequence[Artifact]
    ) -> list[Arm]:
        """Every arm tuned and assessed, and the untouched base model as the arm that trains on nothing."""
        check_clean(chosen, question.pool, test)
        steps: list[tuple[str, Callable[[], Arm]]] = [("base model", partial(self._base, test))]
        for choice, selection in zip(choices, chosen, strict=True):
            steps.append((choice.title, partial(self._arm, choice.title, choice, selection, test)))
        return self.engine.map(steps)

    def _arm(self, name: str, choice: Choice, selection: Artifact, test: Artifact) -> Arm:
        assert self.recipe.train is not None  # arms are asked for where the recipe trains
        tuned = train(self.run, f"train {name}", self.recipe.train, selection, choice.seed, self.workers)
        assessed = assess(self.run, f"assess {name}", self.recipe, tuned, test, self.workers)
        return Arm(choice.label, choice.budget, choice.seed, selection, tuned, tuple(assessed))

    def _base(self, test: Artifact) -> Arm:
        assessed = assess(self.run, "assess base model", self.recipe, None, test, self.workers)
        return Arm("base model", 0, 0, None, None, tuple(assessed))


def race(
    recipe: Recipe,
    home: Path,
    command: str,
    *,
    engine: Engine,
    workers: Workers,
    listener: Listener,
    ui: str | None = None,
) -> RaceOutcome:
    """Run `recipe` in `home`. An interrupted run keeps its finished stages; the same recipe goes on from there."""
    with begun(recipe, home, command, listener, NAME) as run:
        outcome = _stages(Race.of(recipe, run, engine, workers), ui)
    engine.call("report", partial(write_report, run.store.home, run.log.run))  # it says when the run ended
    return outcome


def _stages(race: Race, ui: str | None) -> RaceOutcome:
    question, test = race.question()
    race.warmed(question)
    asked = choices(race.recipe, race.meter)
    if race.recipe.budget_unit == "rows":
        check_budget(question, race.recipe.budgets)
    race.measured(question, asked)
    chosen = race.selections(question, asked)
    results: list[dict[str, object]] = []
    if race.recipe.train is not None and test is not None:
        arms = race.arms(question, test, asked, chosen)
        costs = race.costs(question, asked)
        compared = race.engine.call("compare", partial(compare, race.run, arms, CONTROL, costs, race.recipe.seed))
        results = rows_of(compared)
    return RaceOutcome(
        run=race.run.log.run,
        home=str(race.run.store.home),
        report=str(race.run.log.folder / NAME),
        ui=ui,
        stages=race.run.log.stages(),
        selections=[
            {"method": choice.label, "budget": choice.budget, "seed": choice.seed, "key": artifact.key,
             "rows": artifact.manifest["facts"]["rows_out"]}
            for choice, artifact in zip(asked, chosen, strict=True)
        ],
        results=results,
    )  # fmt: skip

"""The race: one pool, one target, many arms (method × budget × seed), one table of what each gained."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flows import assess, sources
from flows import clean as cleaning
from flows import course as courses
from flows.assess import Examiner
from flows.choose import Choice, Question, check_budget, check_clean, check_limits, exclude, select
from flows.compare import Arm, compare, rows_of
from flows.contaminated import Leaks, contamination, contamination_of
from flows.course import Course
from flows.describe import describe
from flows.engine import Engine
from flows.exams import Exams, check_sets, may_lack_replies, sets_of
from flows.measure import cost, measure
from flows.meter import Meter, passes
from flows.outcome import RaceOutcome
from flows.recipes import Recipe, Source
from flows.report import write_report
from flows.report.write import NAME
from flows.run import Listener, Run, begun
from flows.sieve import Sieve
from flows.synth.stage import Kitchen
from flows.tune import Start, start_of, trainer
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
BASE = "base model"
EXAMPLES = {"methods": "methods: [balanced_random, rds_plus]", "budgets": "budgets: [1000]"}


def check_race(recipe: Recipe) -> None:
    """`check`, and that there is something to choose with."""
    for name in ("methods", "budgets"):
        if not getattr(recipe, name):
            raise InputError(f"the recipe chooses nothing: give `{name}`, such as `{EXAMPLES[name]}`")
    check(recipe)


def check(recipe: Recipe) -> None:
    """Raise `InputError` for all that can be known to be wrong before work starts: names, parameters, models, files."""
    if not recipe.pool:
        raise InputError("the recipe has no candidates: give `pool`")
    asked = choices(recipe, meter_of(recipe))
    _check_labels(asked, recipe)
    for choice in asked:
        if choice.method.compares and not recipe.target:
            raise InputError(f"method {choice.name!r} compares rows with a target set: give `target`")
    later = courses.rows_of(recipe.train).values() if recipe.train else ()
    for given in (recipe.pool, recipe.target, *later):
        sources.check_all(given, recipe)
    check_sets(recipe)
    cleaning.check(recipe.filters, [*(["target"] if recipe.target else []), *sets_of(recipe)])
    counter(fetch(tokenizer_of(recipe)))
    if recipe.train is not None:
        trainer(recipe.train)
        fetch(recipe.train.base, trust_remote_code=recipe.train.trust_remote_code)
    courses.check(recipe)
    assess.check(recipe)


def _check_labels(asked: Sequence[Choice], recipe: Recipe) -> None:
    """Raise `InputError` for two methods that results would call the same, and for the names of other arms."""
    first = [choice for choice in asked if (choice.limits, choice.seed) == (asked[0].limits, asked[0].seed)]
    labels = Counter(choice.label for choice in first)
    if twice := [label for label, n in labels.items() if n > 1]:
        raise InputError(f"several methods are called {', '.join(twice)}: give them different `label`s")
    taken = {BASE} | {merged_name(label, recipe) for label in labels if merged_name(label, recipe) != label}
    if found := sorted(taken & set(labels)):
        raise InputError(f"a method cannot be called {', '.join(found)}: another arm is")


def meter_of(recipe: Recipe, start: str | None = None) -> Meter:
    """What measures the signals of the recipe's methods. Raises `InputError` for a model that is not there.

    `start` is the pruned base, once it is there; before, the base stands for it.
    """
    train = recipe.train
    if train is None:
        meter = Meter(recipe.representation)
    else:
        models = [train.base] if start is None else [train.base, start]
        allowed = frozenset(models) if train.trust_remote_code else frozenset[str]()
        meter = Meter(recipe.representation, models[-1], allowed, original=train.base if train.prune else None)
    meter.spec()
    return meter


def choices(recipe: Recipe, meter: Meter) -> list[Choice]:
    """Every selection the recipe asks for. Raises `InputError` for a method, parameter or model that is not known."""
    methods = [build(entry.name, entry.params, meter.fill) for entry in recipe.methods]
    return [
        Choice(entry.name, entry.params, method, each, seed, entry.label)
        for entry, method in zip(recipe.methods, methods, strict=True)
        for each in limits_of(recipe)
        for seed in recipe.seeds
    ]


def limits_of(recipe: Recipe) -> list[Limits]:
    """What the selections of the recipe keep to, one for each budget."""
    return [Limits(budget, recipe.budget_unit, recipe.caps, recipe.floors) for budget in recipe.budgets]


def tokenizer_of(recipe: Recipe) -> str:
    """The model whose tokens count: the one that is tuned, else the one that represents rows."""
    return recipe.train.base if recipe.train else recipe.representation.model or TINY


def merged_name(label: str, recipe: Recipe) -> str:
    """What results call the arm of merged checkpoints of a method."""
    merge = recipe.train.merge if recipe.train else None
    return f"{label}, {merge.name} of {len(recipe.seeds)} seeds" if merge else label


@dataclass(frozen=True, slots=True)
class Race:
    """The parts of a run that every step needs."""

    recipe: Recipe
    run: Run
    engine: Engine
    workers: Workers
    meter: Meter
    kitchen: Kitchen
    start: Start | None = None
    """The weights that training starts from, once `begun`."""

    @classmethod
    def of(cls, recipe: Recipe, run: Run, engine: Engine, workers: Workers) -> "Race":
        return cls(recipe, run, engine, workers, meter_of(recipe), Kitchen.of(recipe))

    def question(self) -> tuple[Question, Exams]:
        """The ingested pool and target, what may not be chosen, and what is examined with."""
        sets = sets_of(self.recipe)
        wanted = {"pool": self.recipe.pool, "target": self.recipe.target, **sets}
        ready = self.prepared({name: given for name, given in wanted.items() if given})
        exams = Exams({name: ready[name] for name in sets})
        if self.recipe.train is not None:
            self.examiner(exams).check(assess.voice_of_checkpoint(None, self.recipe.train))
        references = {"target": ready["target"]} if "target" in ready else {}
        sieve = Sieve(self.run, ready["pool"], references | exams.held_out, self.workers, self.meter)
        self.engine.call("count tokens", partial(describe, sieve, tokenizer_of(self.recipe)))
        cleaned = self.engine.call("clean", partial(cleaning.clean, sieve, self.recipe.filters))
        candidates = self.engine.call("overlap", partial(exclude, sieve, cleaned))
        return Question(ready["pool"], ready.get("target"), candidates), exams

    def prepared(self, named: Mapping[str, Sequence[Source]]) -> dict[str, Artifact]:
        """The ingested rows of each of the sets, by name."""
        steps = [(f"prepare {name}", partial(self._prepare, name, given)) for name, given in named.items()]
        return dict(zip(named, self.engine.map(steps), strict=True))

    def _prepare(self, name: str, given: Sequence[Source]) -> Artifact:
        full_name = f"{self.recipe.name} {name}"
        kept = may_lack_replies(name)
        return sources.prepare(self.run, full_name, given, self.data, self.kitchen, self.workers, unanswered=kept)

    def begun(self) -> "Race":
        """This race with the weights that its training starts from: a pruned base is the base of all that follows."""
        train = self.recipe.train
        if train is None or self.start is not None:
            return self
        if train.prune is None:
            return replace(self, start=Start.of(train))
        start = self.engine.call("prune", partial(start_of, self.run, train, self.workers))
        recipe = self.recipe.model_copy(update={"train": train.model_copy(update={"base": start.model, "prune": None})})
        return replace(self, recipe=recipe, meter=meter_of(self.recipe, start.model), start=start)

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
            total = {name: sum(part.get(name, 0.0) for part in parts) for name in ("seconds", "flops")}
            found |= {choice.label: total, merged_name(choice.label, self.recipe): total}
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

    def leaks(self, question: Question, exams: Exams, course: Course) -> Leaks | None:
        """What candidates and rows of later stages give away of the test rows; None where tasks bring all their own."""
        if not (tests := exams.held_out):
            return None
        found = self.engine.call("contamination", partial(contamination, self.run, question, tests, self.workers))
        for name, rows in course.conversations.items():
            work = partial(contamination_of, name, self.run, rows, tests, self.workers)
            mine = self.engine.call(f"contamination by {name}", work)
            if mine.n:
                self.run.listener.say(
                    f"note: the rows of {name} give away {mine.n:,} test items, which the view `contaminated_items` "
                    "lists; results have every value without them too"
                )
            found = found.joined(mine)
        return found

    def examiner(self, exams: Exams) -> Examiner:
        """What assesses the models of this run."""
        return Examiner(self.run, self.recipe, exams, self.kitchen, self.workers)

    def course(self, exams: Exams) -> Course:
        """How the arms of this run are trained; the rows of later stages are prepared."""
        train, start = self.recipe.train, self.start
        assert train is not None
        assert start is not None  # arms are asked for where the recipe trains, once it has begun
        rows = self.prepared(courses.rows_of(train))
        steps = [
            (f"prepare {name}", partial(courses.pairs, self.run, f"prepare {name}", stage, self.data, exams.held_out))
            for name, stage in courses.stages(train).items()
            if name not in rows
        ]
        pairs = dict(zip([title.removeprefix("prepare ") for title, _ in steps], self.engine.map(steps), strict=True))
        sets = tuple((rows | pairs)[name] for name in courses.stages(train))
        return Course(self.run, train, start, sets, exams.held_out, self.workers)

    def arms(
        self,
        question: Question,
        exams: Exams,
        choices: Sequence[Choice],
        chosen: Sequence[Artifact],
        course: Course,
    ) -> list[Arm]:
        """Every arm tuned and assessed, and the untouched base model as the arm that trains on nothing."""
        check_clean(chosen, question.pool, exams.held_out)
        examiner = self.examiner(exams)
        if self.recipe.budget_unit == "rows" and (said := course.advice(self.recipe.budgets)):
            self.run.listener.say(said)
        steps: list[tuple[str, Callable[[], Arm]]] = [("base model", partial(self._base, examiner))]
        for choice, selection in zip(choices, chosen, strict=True):
            steps.append((choice.title, partial(self._arm, choice, selection, examiner, course)))
        arms = self.engine.map(steps)
        return arms + self.merged(arms, examiner, course)

    def _arm(self, choice: Choice, selection: Artifact, examiner: Examiner, course: Course) -> Arm:
        *before, tuned = course(choice.title, selection, choice.seed)
        assessed = tuple(examiner(f"assess {choice.title}", tuned))
        return Arm(choice.label, choice.budget, choice.seed, selection, tuned, assessed, tuple(before))

    def merged(self, arms: Sequence[Arm], examiner: Examiner, course: Course) -> list[Arm]:
        """One more arm per method and budget, where the recipe merges: the checkpoints of all seeds as one."""
        if course.chosen.merge is None:
            return []
        groups: dict[tuple[str, int], list[Arm]] = {}
        for arm in arms:
            if arm.checkpoint is not None:
                groups.setdefault((arm.method, arm.budget), []).append(arm)
        steps = [(f"merge {name} {budget}", partial(self._merged, group, examiner, course))
                 for (name, budget), group in groups.items()]  # fmt: skip
        return [arm for merged in self.engine.map(steps) for arm in merged]

    def _merged(self, group: Sequence[Arm], examiner: Examiner, course: Course) -> list[Arm]:
        """The arm of a merged model: it stands for every seed, so that seeds are paired, and is paid for once."""
        name, budget = merged_name(group[0].method, self.recipe), group[0].budget
        tuned = [arm.checkpoint for arm in group if arm.checkpoint is not None]
        merged = course.merged(f"{name} {budget}", tuned, self.recipe.seed)
        before = (*(each for arm in group for each in arm.before), *tuned)
        assessed = tuple(examiner(f"assess {name} {budget}", merged))
        first, *others = (Arm(name, budget, arm.seed, arm.selection, None, assessed) for arm in group)
        return [replace(first, checkpoint=merged, before=before), *others]

    def _base(self, examiner: Examiner) -> Arm:
        return Arm(BASE, 0, 0, None, None, tuple(examiner("assess base model", None)))


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
    question, exams = race.question()
    race = race.begun()
    if race.recipe.budget_unit == "rows":
        check_budget(question, race.recipe.budgets)
    check_limits(question, limits_of(race.recipe))
    race.warmed(question)
    asked = choices(race.recipe, race.meter)
    race.measured(question, asked)
    chosen = race.selections(question, asked)
    results: list[dict[str, object]] = []
    if race.recipe.train is not None:
        course = race.course(exams)
        arms = race.arms(question, exams, asked, chosen, course)
        costs = race.costs(question, asked)
        leaks = race.leaks(question, exams, course)
        work = partial(compare, race.run, arms, CONTROL, costs, race.recipe.seed, leaks)
        results = rows_of(race.engine.call("compare", work))
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

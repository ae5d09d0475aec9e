"""Tasks of lm-eval (EleutherAI's harness) as tasks of a recipe, and a recipe's own test rows put through it.

lm-eval words the prompts, asks the model and scores each item; the items come back as rows like those of every other
task, so intervals, comparisons and views are ours. This module loads neither lm-eval nor torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from eval.choice import Choice
from eval.presets import runnable, setting_of
from eval.protocol import Item
from eval.suite_names import check_names, tasks_folder
from eval.tasks import ExactMatch
from warehouse.errors import InputError
from warehouse.records import EvalReport, Example, Spec

if TYPE_CHECKING:
    from eval.assess import Assessment
    from models.local import LocalModel

Ask = Literal["reply", "choice"]
PACKAGE = "lm-eval"


@dataclass(frozen=True, slots=True)
class Suite:
    """One task of lm-eval, or with `ask` the test rows themselves, on a model of this machine.

    task        its name in lm-eval; a group such as `mmlu` is one evaluation of all its tasks, every item alike
    ask         "reply": exact match of a greedy reply to each test row; "choice": the likeliest of `meta.choices`
    preset      the paper whose setting of the task is used (docs/suites.md)
    shots       worked examples before each question; None leaves it to the preset, then to the task
    limit       only the first so many items, of each task where `task` is a group
    max_tokens  the longest reply; None leaves it to the preset, then to the task
    filter      which of the task's ways of reading a reply counts, where it has several
    batch_size  sequences in memory at once
    seed        of replies that are drawn; lm-eval draws nothing else
    """

    examples: tuple[Example, ...] = ()
    task: str | None = None
    ask: Ask | None = None
    preset: str | None = None
    shots: int | None = None
    limit: int | None = None
    max_tokens: int | None = None
    filter: str | None = None
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.task is None) == (self.ask is None):
            raise InputError("suite: give either `task`, a task of lm-eval, or `ask`: what is done with the test rows")
        if self.ask is not None and self.ask not in get_args(Ask):
            raise InputError(f"suite: unknown ask {self.ask!r}; known: {', '.join(get_args(Ask))}")
        if self.ask is not None and (given := [n for n in ("preset", "shots", "filter") if getattr(self, n)]):
            raise InputError(f"suite: {', '.join(given)} needs a task of lm-eval; `ask` puts test rows as they are")
        for name in ("limit", "max_tokens", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"suite: {name} is {value}; expected 1 or more")
        if self.preset is not None and self.task is not None:
            setting_of(self.preset, self.task)

    @property
    def spec(self) -> Spec:
        """Every parameter and lm-eval's version, because its tasks change with it."""
        params = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "examples"}
        return Spec("suite", params | {"lm_eval": installed()})

    def items(self) -> Sequence[Item]:
        """The test rows as `ask` says; none where lm-eval's own are asked. Raises `InputError` as the tasks here do."""
        if self.ask is None:
            return []
        task = Choice if self.ask == "choice" else ExactMatch
        return task(examples=self.examples, limit=self.limit).items()

    def run(self, model: "LocalModel", checkpoint_key: str, rng: np.random.Generator) -> "Assessment":
        """Every item put to `model` by lm-eval; `rng` draws the bootstrap alone.

        Raises `InputError` where lm-eval is not installed or does not know the task, where the task's data must come
        from a hub that cannot be reached, and where prompts do not fit the model.
        """
        installed()
        from eval.assess import Assessment, estimates
        from eval.harness import examine
        from eval.items import item_table

        rows = examine(self, model)
        return Assessment(EvalReport(self.spec, checkpoint_key, estimates(item_table(rows), rng)), tuple(rows))


def installed() -> str:
    """The version of lm-eval that is installed. Raises `InputError` where none is."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError as error:
        raise InputError(f"suite: {PACKAGE} is not installed; install it with `pip install {PACKAGE}`") from error


def check_suites(suites: Sequence[Suite]) -> None:
    """Raise `InputError` where lm-eval is not installed, or has no task of a name that some of `suites` gives."""
    if suites:
        installed()
        check_names([suite.task for suite in suites if suite.task is not None], tasks_folder())


def parts(params: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """A recipe's parameters of `suite` as those of one evaluation per task.

    `tasks` lists tasks of lm-eval; a `preset` without it stands for all tasks that the preset runs.
    """
    rest = {name: value for name, value in params.items() if name != "tasks"}
    if "tasks" in params:
        names = params["tasks"]
        if "task" in params or not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise InputError(f"suite: tasks is {names!r}; give a list of names of lm-eval's tasks, and no `task`")
    elif params.get("preset") and not params.get("task"):
        names = list(runnable(params["preset"]))
    else:
        return (rest,)
    return tuple(rest | {"task": name} for name in names)

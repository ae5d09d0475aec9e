"""What a training run is known by: the rows that it reads, not who chose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pool_files import write_pool

from flows import tune as tuning
from flows.choose import CANDIDATES_FILE, Choice, Question, select
from flows.recipes import Train
from flows.run import Counts, Run, Silent
from flows.tune import Order, Start, data_of, trainer, tune
from flows.workers import HereWorkers
from selection.limits import Limits
from selection.problem import Problem
from warehouse.records import Example, Message, Selection, Spec
from warehouse.store import Artifact, Draft, Work


@dataclass(frozen=True, slots=True)
class Given:
    """The rows that are given, with their weights."""

    rows: tuple[int, ...]
    weights: tuple[float, ...]
    compares: ClassVar[bool] = False

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        why = ["given"] * len(self.rows)
        rows = np.array(self.rows)[: problem.budget]
        weights = np.array(self.weights)[: problem.budget]
        return Selection(rows, weights, np.zeros(len(rows)), why[: len(rows)], {"direction": "none"})


class Made:
    """A home with a pool of five rows; what was trained is counted and not done."""

    def __init__(self, home: Path) -> None:
        self.run = Run.begin(home, Silent(), recipe="r", command="run", recipe_text="")
        self.trained: list[str] = []
        with self.run.store.write(work := Work("ingest", 1)) as draft:
            rows = [Example((Message("user", f"Ask {n}."), Message("assistant", "Yes.")), "s") for n in range(5)]
            write_pool(rows, draft.folder, pool_key=work.key, name="pool")
        self.pool = self.found(work)

    def found(self, work: Work) -> Artifact:
        artifact = self.run.store.find(work)
        assert artifact is not None
        return artifact

    def selection(self, rows: Sequence[int], weights: Sequence[float], test: str) -> Artifact:
        """Chosen from all rows, as they are candidates once a set `test` is known."""
        work = Work("overlap", 1, inputs={"test": test})
        if self.run.store.find(work) is None:
            with self.run.store.write(work) as draft:
                np.save(draft.folder / CANDIDATES_FILE, np.arange(5))
        method = Given(tuple(rows), tuple(weights))
        params: dict[str, Any] = {"rows": list(rows), "weights": list(weights)}
        choice = Choice("given", params, method, Limits(len(rows)), 0)
        return select(self.run, Question(self.pool, None, self.found(work)), choice)

    def tuned(self, rows: Artifact, seed: int = 0) -> Artifact:
        chosen = Train(base="m", trainer="sft_tiny")
        return tune(self.run, "train", trainer(chosen), Start("m", "m", "f"), rows, seed, chosen, HereWorkers())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made(tmp_path / "home")

    def told(order: Order, draft: Draft) -> Counts:
        made.trained.append(order.rows)
        draft.facts["rows_from"] = order.rows
        return Counts(1, 1)

    monkeypatch.setattr(tuning, "_train", told)
    return made


def test_the_same_rows_of_another_selection_find_the_checkpoint(made: Made) -> None:
    first, second = (made.selection([3, 1], [1, 1], test) for test in "ab")
    assert first.key != second.key
    assert data_of(first).key == data_of(second).key
    assert made.tuned(first).key == made.tuned(second).key
    assert made.trained == [first.key]
    made.tuned(second, seed=1)
    assert made.trained == [first.key, second.key]


@pytest.mark.parametrize(
    ("rows", "weights"),
    [([3, 1], [1, 2]), ([1, 3], [1, 1]), ([3], [1]), ([3, 1, 0], [1, 1, 1]), ([3, 2], [1, 1])],
    ids=["weights", "order", "fewer", "more", "others"],
)
def test_other_rows_another_order_or_other_weights_train_anew(
    made: Made, rows: Sequence[int], weights: Sequence[float]
) -> None:
    before, after = made.selection([3, 1], [1, 1], "a"), made.selection(rows, weights, "a")
    assert made.tuned(before).key != made.tuned(after).key
    assert made.trained == [before.key, after.key]


def test_weights_that_are_all_alike_are_none(made: Made) -> None:
    plain, doubled, weighed = (made.selection([3, 1], each, "a") for each in ([1, 1], [2, 2], [2, 1]))
    assert data_of(plain).key == data_of(doubled).key
    assert data_of(doubled).weights is None
    found = data_of(weighed).weights
    assert found is not None
    assert found.tolist() == [2, 1]

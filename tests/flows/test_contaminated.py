"""The contamination stage: which test items the candidates give away, counted once, and what chosen rows give away."""

from pathlib import Path

import numpy as np
import pytest
from pool_files import write_pool

from flows.choose import CANDIDATES_FILE, Question
from flows.contaminated import Leaks, contamination, contamination_of
from flows.run import Run, Silent
from flows.workers import HereWorkers
from warehouse.catalogue import query
from warehouse.records import Example, Message
from warehouse.store import Artifact, Work
from warehouse.tables import SELECTED, SELECTED_FILE, write_rows

ITEMS = [
    "How many apples does Anna have when she buys three bags of seven apples and eats two of them on the way home",
    "Which of the four rivers that flow through the old town of the northern province reaches the sea first of all",
    "2 + 3 ?",
    "Name the planet that is closest to the sun and say how long its year is when counted in days of the earth",
]
ROWS = [
    "Tell me a story about a lantern in the meadow",
    ITEMS[0] + " today",
    "2 + 3 ?",
    ITEMS[1],  # not a candidate
    "Name the planet that is closest to the sun and then tell me something about the moon and its many craters",
]


def examples(texts: list[str]) -> list[Example]:
    return [Example((Message("user", text), Message("assistant", "Here is an answer.")), "made") for text in texts]


class Made:
    """A home with a pool in two files, its candidates and a test set."""

    def __init__(self, home: Path) -> None:
        self.run = Run.begin(home, Silent(), recipe="r", command="run", recipe_text="")
        self.test = self.pool("test", ITEMS)
        pool = self.pool("pool", ROWS)
        with self.run.store.write(work := Work("overlap", 1)) as draft:
            np.save(draft.folder / CANDIDATES_FILE, np.array([0, 1, 2, 4]))
        self.question = Question(pool, None, self.found(work))

    def pool(self, name: str, texts: list[str]) -> Artifact:
        with self.run.store.write(work := Work("ingest", 1, {"name": name})) as draft:
            write_pool(examples(texts), draft.folder, pool_key=work.key, name=name, size=3)
        return self.found(work)

    def found(self, work: Work) -> Artifact:
        artifact = self.run.store.find(work)
        assert artifact is not None
        return artifact

    def selection(self, rows: list[int]) -> Artifact:
        chosen = [
            {
                "row": row,
                "messages": [{"role": m.role, "content": m.content} for m in examples([ROWS[row]])[0].messages],
            }
            for row in rows
        ]
        with self.run.store.write(work := Work("select", 1, {"rows": rows})) as draft:
            write_rows(draft.folder / SELECTED_FILE, SELECTED, chosen)
        return self.found(work)

    def leaks(self) -> Leaks:
        return contamination(self.run, self.question, {"test": self.test}, HereWorkers())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("contaminated") / "home")


@pytest.fixture(scope="module")
def leaks(made: Made) -> Leaks:
    return made.leaks()


def test_the_table_names_the_row_that_gives_most_away(made: Made, leaks: Leaks) -> None:
    rows = query(made.run.store.home, 'SELECT * FROM contaminated_items ORDER BY "item"').to_pylist()
    assert [(r["item"], r["row"], r["ngram_row"], r["contaminated"]) for r in rows] == [
        (0, 1, 1, True),
        (2, 2, None, True),  # too short for an n-gram: the same question
        (3, 4, None, False),
    ]
    assert {(r["pool"], r["test"], r["set"], r["contamination"]) for r in rows} == {
        (made.question.pool.key, made.test.key, "test", leaks.key)
    }
    assert rows[2]["coverage"] == pytest.approx(10 / 23)
    assert [r["words"] for r in rows] == [23, 2, 23]


def test_items_are_known_by_their_hash(made: Made, leaks: Leaks) -> None:
    ids = [example.sample_id for example in examples(ITEMS)]
    assert leaks.items == {made.test.key: {ids[0], ids[2]}}


def test_it_is_looked_for_once(made: Made, leaks: Leaks) -> None:
    assert made.leaks() == leaks
    stages = query(made.run.store.home, "SELECT name, computed, rows_in FROM stages ORDER BY started").to_pylist()
    assert [(s["name"], s["computed"], s["rows_in"]) for s in stages] == [
        ("contamination of test", True, 4),
        ("contamination of test", False, 4),
    ]


def test_rows_of_a_later_stage_are_looked_at_but_for_those_it_leaves_out(tmp_path: Path) -> None:
    """What asks what a test row asks is not trained on, so it gives nothing away."""
    made = Made(tmp_path)
    first, tests = made.leaks(), {"test": made.test}
    later = made.pool("later", [*ITEMS[2:], ROWS[0], ITEMS[1] + " one day", ROWS[4]])
    found = contamination_of("stage 2", made.run, later, tests, HereWorkers())
    ids = [example.sample_id for example in examples(ITEMS)]
    assert found.items == {made.test.key: {ids[1]}}
    rows = query(tmp_path, f"SELECT * FROM contaminated_items WHERE contamination = '{found.key}'").to_pylist()
    assert [(r["item"], r["row"], r["contaminated"]) for r in rows] == [(1, 3, True), (3, 4, False)]
    assert {r["pool"] for r in rows} == {later.key}
    both = first.joined(found)
    assert (both.key, both.later, both.n) == (first.key, (found.key,), 3)
    assert both.items == {made.test.key: {ids[0], ids[1], ids[2]}}
    assert contamination_of("stage 2", made.run, later, tests, HereWorkers()) == found


@pytest.mark.parametrize(("rows", "given_away"), [([0, 4], 0), ([0, 1], 1), ([1, 2, 4], 2)])
def test_chosen_rows_are_looked_at_alone(made: Made, leaks: Leaks, rows: list[int], given_away: int) -> None:
    assert len(leaks.chosen(made.selection(rows), made.test.key)) == given_away


def test_the_example_of_the_table_shows_both_texts(made: Made, leaks: Leaks) -> None:
    from warehouse.views import VIEWS

    rows = query(made.run.store.home, VIEWS["contaminated_items"].example).to_pylist()
    assert [(r["asked"], r["in_the_pool"]) for r in rows] == [(ITEMS[0], ROWS[1]), (ITEMS[2], ROWS[2])]

"""Methods of every kind in one run: their signals are measured in as few passes as can be, once, and for good."""

from pathlib import Path

import pytest
import yaml

from flows import recipes
from flows.engine import PlainEngine
from flows.meter import Meter, passes
from flows.outcome import RaceOutcome
from flows.race import check, choices, meter_of, race
from flows.recipes import Representation
from flows.run import Silent
from flows.workers import HereWorkers
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.records import Example, Message

ROWS = [Example((Message("user", "Add 2 and 3."), Message("assistant", "The sum is 5.")), "sums")]
METHODS = [
    "random", "tsds", "got_d", "dsir", "grape", "ifd", "replay",
    {"name": "less", "dimensions": 32, "checkpoints": 1, "warmup": 0.2},
    {"name": "paser", "damaged": "winnow-tiny", "clusters": 2},
    {"name": "deita", "complexity": "winnow-tiny", "quality": "winnow-tiny"},
    {"name": "rds_plus", "reverse": True},
]  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = {
        "name": "many",
        "pool": [{"synthesize": "world", "params": {"rows": 80, "split": "pool"}}],
        "target": [{"synthesize": "world", "params": {"rows": 6, "split": "target"}}],
        "representation": {"model": "winnow-tiny", "max_length": 128},
        "methods": METHODS,
        "budgets": [12],
    }
    path = tmp_path_factory.mktemp("many") / "many.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def run(path: Path, home: Path, *overrides: str) -> RaceOutcome:
    recipe = recipes.load(path, overrides)
    check(recipe)
    return race(recipe, home, "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many-home") / "home"


@pytest.fixture(scope="module")
def first(recipe: Path, home: Path) -> RaceOutcome:
    return run(recipe, home)


def test_every_method_chooses_its_budget(first: RaceOutcome) -> None:
    assert len(first.selections) == len(METHODS)
    assert {selection["rows"] for selection in first.selections} == {12}


def test_one_pass_gives_all_that_one_model_says_of_a_row(recipe: Path) -> None:
    chosen = choices(recipes.load(recipe), meter_of(recipes.load(recipe)))
    together = [{spec.name for spec in each} for each in passes(s for c in chosen for s in c.method.reads.values())]
    assert {"representation", "response", "instructions"} in together
    assert sorted(name for names in together for name in names) == sorted(
        ["representation", "response", "instructions", "response_alone", "repetition", "ngrams", "scores",
         "degradation", "length", "concepts", "gradient"]
    )  # fmt: skip


def test_a_second_run_measures_and_warms_up_nothing(first: RaceOutcome, recipe: Path, home: Path) -> None:
    second = run(recipe, home)
    assert [stage["name"] for stage in second.stages if stage["computed"]] == []
    assert second.selections == first.selections


def test_likelihoods_alone_are_those_of_the_shared_pass(
    first: RaceOutcome, recipe: Path, home: Path, tmp_path: Path
) -> None:
    run(recipe, tmp_path / "alone", "methods=[perplexity]")
    chosen = "SELECT sample_id, score FROM selected WHERE method = 'perplexity' ORDER BY rank"
    run(recipe, home, "methods=[perplexity]")
    here, alone = query(home, chosen).to_pylist(), query(tmp_path / "alone", chosen).to_pylist()
    assert [row["sample_id"] for row in here] == [row["sample_id"] for row in alone]
    assert [row["score"] for row in here] == pytest.approx([row["score"] for row in alone], abs=1e-4)


def test_a_budget_in_tokens_is_spent_by_the_tokens_of_the_rows(first: RaceOutcome, recipe: Path, home: Path) -> None:
    run(recipe, home, "methods=[rds_plus, length]", "budget_unit=tokens", "budgets=[900]")
    spent = query(
        home,
        """SELECT s.method, s.unit, sum(t.tokens) AS tokens FROM selections s JOIN selected c USING (selection)
           JOIN token_counts t ON t.pool = c.pool AND t.row = c.row WHERE s.unit = 'tokens' GROUP BY ALL""",
    ).to_pylist()
    assert {row["method"] for row in spent} == {"rds_plus", "length"}
    assert all(700 < row["tokens"] <= 900 for row in spent)


def test_limits_that_cannot_be_met_are_said_before_anything_is_measured(
    first: RaceOutcome, recipe: Path, home: Path
) -> None:
    for limit, message in (("caps={nosuch: 3}", "no source nosuch"), ("floors={'*': 900}", "floor of .* is 900 rows")):
        with pytest.raises(InputError, match=message):
            run(recipe, home, "methods=[length]", limit, "budgets=[16]", "representation.max_length=77")


def test_caps_hold_for_any_method(first: RaceOutcome, recipe: Path, home: Path) -> None:
    run(recipe, home, "methods=[length]", 'caps={"*": 0.25}', "budgets=[16]")
    most = query(
        home,
        """SELECT max(n) AS n FROM (SELECT source, count(*) AS n FROM selected JOIN selections USING (selection)
           WHERE diagnostics LIKE '%caps%' GROUP BY source)""",
    ).to_pylist()
    assert most == [{"n": 4}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: deita, quality: winnow-tiny}", "'deita' needs a model as `complexity`"),
        ("paser", "'paser' needs a model as `damaged`"),
        ("{name: less, warmup: 0}", "warmup is 0"),
        ("{name: less, checkpoints: 99}", "checkpoints is 99; give 1 to 64"),
        ("{name: less, dimensions: 0}", "dimensions is 0"),
        ("{name: perplexity, model: ./gone}", "gone"),
        ("{name: perplexity, template: mine}", "template must be one of tulu, grape"),
    ],
)
def test_what_cannot_be_measured_is_said_before_work_starts(recipe: Path, entry: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(recipes.load(recipe, [f"methods=[{entry}]"]))


def test_an_encoder_makes_vectors_of_rows_and_of_prompts_apart() -> None:
    meter = Meter(Representation(encoder="all-MiniLM-L6-v2"))
    specs = [meter.fill("representation", {}), meter.fill("instructions", {})]
    assert [spec.params["text"] for spec in specs] == ["prompt and reply", "prompt"]
    assert len(passes(specs)) == 2


def test_rows_that_are_all_cut_are_chosen_and_say_so(recipe: Path, tmp_path: Path) -> None:
    run(
        recipe,
        tmp_path,
        "methods=[perplexity, ifd, grape, {name: dsir, min_words: 1000}]",
        "representation.max_length=8",
    )
    found = query(tmp_path, "SELECT method, rows, cutoff FROM selections").to_pylist()
    assert len(found) == 4
    assert all(row["rows"] == 12 for row in found)
    assert {row["reason"] for row in query(tmp_path, REASONS).to_pylist()} >= {"cut", "short"}


REASONS = "SELECT DISTINCT regexp_extract(reason, 'filled=(\\w+)', 1) AS reason FROM selected"


def test_tokens_are_counted_where_an_encoder_makes_the_vectors(recipe: Path, tmp_path: Path) -> None:
    run(
        recipe, tmp_path, "methods=[random, length]", "budget_unit=tokens", "budgets=[500]",
        "representation={encoder: all-MiniLM-L6-v2}",
    )  # fmt: skip
    assert query(tmp_path, "SELECT count(*) AS n FROM selections WHERE unit = 'tokens'").to_pylist() == [{"n": 2}]


def test_both_models_of_a_divergence_have_the_precision_of_the_run() -> None:
    meter = Meter(Representation(model="winnow-tiny", dtype="bfloat16"))
    spec = meter.fill("degradation", {"damaged": "winnow-tiny", "whole": None})
    values, flops = meter.compute([spec])(ROWS)
    assert flops > 0
    assert abs(float(values["degradation"][0])) < 1e-7

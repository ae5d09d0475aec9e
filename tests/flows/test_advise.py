"""Advice from end to end on a tiny model: pilots, one that fails, a killed run that goes on, and what is said."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_world import Winnow, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import read

from flows import recipes
from flows.advice.advise import advise, check
from flows.advice.advising import rehearsed, with_runs
from flows.advice.outcome import AdviceOutcome
from flows.advice.pilots import THOUSAND, Blend, Stock, draw, mixtures
from flows.engine import PlainEngine
from flows.run import Silent
from flows.workers import HereWorkers, RayWorkers, Workers
from selection.advice import Evidence
from selection.advisors import ADVISORS, NEEDS, build, least_mixtures, parameters
from selection.mixing import largest_remainder
from selection.projektor import Projektor
from selection.scaling import Form, Scaling
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.pools import examples_of
from warehouse.store import Work

P = ParamSpec("P")
T = TypeVar("T")
DOCS = Path(__file__).parents[2] / "docs" / "advice.md"
RECIPE = """\
name: advised
pool:
  - synthesize: world
    params: {rows: 120, split: pool, skills: [reverse, lookup]}
  - path: endless.jsonl
target:
  - synthesize: world
    params: {rows: 6, split: target, skills: [reverse]}
test:
  - synthesize: world
    params: {rows: 8, split: test, skills: [reverse]}
methods: [random]
budgets: [10]
train:
  base: winnow-tiny
  trainer: sft_tiny
  params: {epochs: 1}
tasks: [held_out_loss]
advise:
  advisor: projektor
  params: {surface: line, resamples: 20, restarts: 1}
  budget: 40
  sources: [clean, verbose, endless]
  pilots: {sizes: [6, 24], mixtures: 5}
"""
SIZES, MIXTURES, FAILED = 2, 5, 2


class Mortal(HereWorkers):
    """Workers that are interrupted when they are asked to train one pilot too many."""

    def __init__(self, pilots: int) -> None:
        self.left = pilots

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if any(isinstance(each, Work) and each.stage == "train" for each in args):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return function(*args, **kwargs)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a recipe, one of whose sources has questions so long that no model is ever shown their answers."""
    folder = tmp_path_factory.mktemp("advised")
    endless = [{"instruction": f"Say {i} " + "yes, or no, or more. " * 200, "output": f"{i}"} for i in range(12)]
    write_rows(folder / "endless.jsonl", [row | {"source": "endless"} for row in endless])
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("advice") / "home"


def asked(path: Path, home: Path, *overrides: str, workers: Workers | None = None) -> AdviceOutcome:
    recipe = recipes.load(path, overrides)
    check(recipe)
    return advise(recipe, home, "advise", engine=PlainEngine(), workers=workers or HereWorkers(), listener=Silent())


def computed(outcome: AdviceOutcome, stage: str = "") -> list[str]:
    return [each["name"] for each in outcome.stages if each["computed"] and each["stage"].startswith(stage)]


@pytest.fixture(scope="module")
def first(recipe: Path, home: Path) -> AdviceOutcome:
    """The answer of a run after another one was interrupted: of four pilots that it trained one had failed."""
    with pytest.raises(KeyboardInterrupt):
        asked(recipe, home, workers=Mortal(4))
    return asked(recipe, home)


def test_an_interrupted_run_goes_on_from_its_finished_pilots(first: AdviceOutcome, home: Path) -> None:
    assert len(computed(first, "train")) == SIZES * MIXTURES - FAILED - 3
    assert computed(first, "mixture") == ["mix 40 rows of 1 clean seed 0"]
    statuses = query(home, "SELECT status FROM runs ORDER BY run LIMIT 2").to_pylist()
    assert [each["status"] for each in statuses] == ["cancelled", "done"]


def test_a_second_run_computes_nothing_and_says_the_same(first: AdviceOutcome, recipe: Path, home: Path) -> None:
    second = asked(recipe, home)
    assert computed(second) == []
    assert (second.key, second.advice, second.files) == (first.key, first.advice, first.files)


def test_the_right_source_is_advised_with_intervals(first: AdviceOutcome) -> None:
    shares = first.advice["shares"]
    assert set(shares) == {"clean", "verbose", "endless"}
    assert sum(share["value"] for share in shares.values()) == pytest.approx(1)
    assert all(share["low"] <= share["value"] <= share["high"] for share in shares.values())
    assert shares["clean"]["value"] > 0.9
    assert set(first.advice["forecasts"]) == {"advised", "even", "gain over even"}


def test_a_failed_pilot_is_counted_reported_and_left_out(first: AdviceOutcome, home: Path) -> None:
    pilots = first.advice["pilots"]
    failed = [pilot for pilot in pilots if pilot["value"] is None]
    assert len(pilots) == SIZES * MIXTURES
    assert [(pilot["rows"], pilot["shares"]["endless"]) for pilot in failed] == [(6, 1.0), (24, 1.0)]
    assert all("InputError" in pilot["detail"] for pilot in failed)
    said = f"{FAILED} of {SIZES * MIXTURES} runs have no value"
    assert {"reason": "runs_failed", "detail": said} in first.advice["warnings"]
    assert f"failed pilot ({failed[0]['name']})" in first.as_text()
    dropped = query(home, "SELECT dropped FROM stages WHERE stage = 'advice'").to_pylist()
    assert {each["dropped"] for each in dropped} == {json.dumps({"failed": FAILED})}


def test_the_training_file_of_the_advised_mixture_is_there(first: AdviceOutcome) -> None:
    (file,) = first.files
    rows = pq.read_table(file["path"]).to_pylist()
    assert len(rows) == first.budget == sum(file["rows"].values()) == 40
    assert [row["rank"] for row in rows] == list(range(1, 41))
    counts = {name: sum(row["source"] == name for row in rows) for name in file["rows"]}
    assert counts == file["rows"]
    again = sum(row["reason"] == "repeat" for row in rows)
    assert again == sum(file["repeats"].values()) == 40 - len({row["row"] for row in rows})


def test_the_answer_for_people_and_for_programs(first: AdviceOutcome) -> None:
    text = first.as_text()
    for part in ("For 40 rows", "clean", "gain over even", "warning (runs_failed)", first.key, first.files[0]["path"]):
        assert part in text
    answer = json.loads(first.as_json())
    assert "\n" not in first.as_json()
    assert set(answer) == {"run", "home", "report", "ui", "key", "advisor", "budget", "advice", "stages", "files"}
    assert set(answer["stages"][0]) == {"name", "key", "computed", "seconds", "rows_in", "rows_out"}


def test_the_report_says_what_was_advised(first: AdviceOutcome) -> None:
    text = read(Path(first.report))
    assert f"projektor: {first.advice['says']}" in text
    assert "Pilot runs 10 runs, 2 failed" in text
    assert first.report in first.as_text()
    assert all(each["detail"] in text for each in first.advice["warnings"])


def test_the_views_hold_mixtures_and_advice(first: AdviceOutcome, home: Path) -> None:
    pilots = query(
        home,
        "SELECT mixture, sum(rows) AS n, sum(share) AS share, any_value(seed) AS seed FROM mixtures "
        "WHERE purpose = 'pilot' GROUP BY mixture",
    ).to_pylist()
    assert sorted(each["n"] for each in pilots) == [6] * MIXTURES + [24] * MIXTURES
    assert [each["share"] for each in pilots] == pytest.approx([1] * len(pilots))
    assert {each["seed"] for each in pilots} == {0}
    repeated = query(home, "SELECT repeats FROM mixtures WHERE share = 1 AND source = 'endless' ORDER BY rows")
    assert repeated.to_pylist() == [{"repeats": 0}, {"repeats": 12}]
    told = query(home, f"SELECT kind, count(*) AS n FROM advice WHERE advice = '{first.key}' GROUP BY kind").to_pylist()
    counts = {each["kind"]: each["n"] for each in told}
    assert counts == {"share": 3, "forecast": 3, "warning": len(first.advice["warnings"]), "pilot": SIZES * MIXTURES}
    agree = query(
        home,
        "SELECT count(*) AS n FROM advice a JOIN (SELECT DISTINCT mixture, data, seed FROM mixtures) USING (mixture) "
        "JOIN checkpoints c USING (data, seed) JOIN evaluations e "
        f"ON e.checkpoint = c.checkpoint AND e.metric = 'nll' AND e.value = a.value WHERE a.advice = '{first.key}'",
    )
    assert agree.to_pylist() == [{"n": SIZES * MIXTURES - FAILED}]
    made_from = query(home, f"SELECT DISTINCT ancestor_stage FROM lineage WHERE key = '{first.key}'").to_pylist()
    assert {"mixture", "train", "evaluate", "ingest", "signal"} <= {each["ancestor_stage"] for each in made_from}


def test_a_budget_too_far_is_refused_as_a_value_and_nothing_is_trained(
    first: AdviceOutcome, recipe: Path, home: Path
) -> None:
    refused = asked(recipe, home, "advise.budget=100000", "advise.pilots.sizes=[5, 25]")
    assert [each["reason"] for each in refused.advice["refusals"]] == ["extrapolation"]
    assert "refused (extrapolation): 100000 rows are 4e+03 times" in refused.as_text()
    assert "Refused (extrapolation): 100000 rows are 4e+03 times" in read(Path(refused.report))
    assert refused.advice["shares"] == {}
    assert refused.files == []
    assert computed(refused) == ["advise projektor"]


def test_ot_mixture_trains_nothing(first: AdviceOutcome, recipe: Path, home: Path) -> None:
    said = asked(
        recipe, home, "advise={advisor: ot_mixture, params: {resamples: 20}, sources: [clean, endless], budget: 8}",
        "train=null", "tasks=[]",
    )  # fmt: skip
    assert said.advice["shares"]["clean"]["value"] > 0.9
    assert {stage["stage"] for stage in said.stages if stage["computed"]} <= {"advice", "mixture"}
    assert said.files[0]["rows"] == {"clean": 8}
    assert "Nearest to the target" in said.as_text()


def test_dmt_writes_two_files_to_be_trained_on_one_after_the_other(
    first: AdviceOutcome, recipe: Path, home: Path
) -> None:
    said = asked(recipe, home, "advise={advisor: dmt, params: {specialised: [clean], fraction: 0.25}}")
    specialised, general = said.files
    assert (specialised["purpose"], general["purpose"]) == ("specialised", "general")
    stages = [pq.read_table(file["path"]).to_pylist() for file in said.files]
    assert {row["source"] for row in stages[0]} == {"clean"}
    assert general["rows"]["clean"] == round(len(stages[0]) / 4)
    assert {row["row"] for row in stages[1] if row["source"] == "clean"} < {row["row"] for row in stages[0]}
    for rows, file in zip(stages, said.files, strict=True):
        assert [row["sample_id"] for row in rows] == sorted(row["sample_id"] for row in rows)
        assert [each.sample_id for each in examples_of(Path(file["path"]))] == [row["sample_id"] for row in rows]
    assert len({row["row"] for rows in stages for row in rows}) == sum(said.advice["available"].values())
    assert [each["rows"] for each in said.advice["manifests"]] == [len(rows) for rows in stages]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("advise=null", "does not say what to advise on"),
        ("advise.advisor=oracle", "unknown advisor 'oracle'; known advisors: projektor, scaling, ot_mixture, dmt"),
        ("advise.params.epsilon=1", r"no parameter 'epsilon'; known, with defaults: surface \(pq_ot\)"),
        ("advise.params.surface=flat", "surface must be one of pq_ot, line, found 'flat'"),
        ("advise.params.farthest=0", "farthest is 0"),
        ("advise.pilots=null", "learns from pilot runs: give `advise.pilots`"),
        ("advise.budget=null", "give `advise.budget`"),
        ("advise.pilots.sizes=[6]", r"needs pilots of 2 sizes or more, found \[6\]"),
        ("target=[]", "projektor' measures distances to a target set: give `target`"),
        ("advise={advisor: dmt}", "needs specialised: give a list of texts"),
        ("advise={advisor: dmt, params: {specialised: clean}}", "must be a list of texts, found 'clean'"),
        ("advise={advisor: scaling, budget: 9, pilots: {sizes: [6, 9, 12, 80]}}", None),
        ("advise.sources=[clean]", "must name at least two"),
        ("advise.pilots.size=[6]", "did you mean 'sizes'"),
        ("advise.pilots.seeds=[1, 1]", "`seeds` names a value twice"),
        (
            "advise.pilots.mixtures=1",
            "needs runs on 3 mixtures of 3 sources, found 1: give `advise.pilots.mixtures: 3`",
        ),
        ("advise.params.surface=pq_ot", "needs runs on 13 mixtures of 3 sources, found 5"),
        ("advise.sources=[clean, dirty]", r"no candidates of source dirty; the pool has clean \(\d+ rows\), dup"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    recipe: Path, home: Path, override: str, expected: str | None
) -> None:
    if expected is None:  # with one pass it is right, with three it is not
        check(recipes.load(recipe, [override]))
        override, expected = f"{override}", "counts how often a row is seen, but the trainer makes 3 passes"
        with pytest.raises(InputError, match=expected):
            check(recipes.load(recipe, [override, "train.params={}"]))
        return
    with pytest.raises(InputError, match=expected):
        asked(recipe, home, override)


def test_training_is_asked_for_where_an_advisor_learns_from_it(recipe: Path) -> None:
    with pytest.raises(InputError, match="give `train`, `test` and `tasks`"):
        check(recipes.load(recipe, ["train=null", "tasks=[]"]))
    with pytest.raises(InputError, match=r"leave out `train.then` and `train.merge`"):
        check(recipes.load(recipe, ["train.merge={name: mean}", "seeds=[0, 1]"]))


def test_runs_that_no_values_could_make_enough_are_refused(recipe: Path, home: Path) -> None:
    scaling = "advise={advisor: scaling, budget: 20, sources: [clean, verbose], pilots: {sizes: [4, 8, 12, 16, 20]}}"
    with pytest.raises(InputError, match=r"nothing was trained: pool 'clean' of \d+ rows is repeated by 0 runs"):
        asked(recipe, home, scaling)


def test_a_pool_of_one_source_cannot_be_weighed(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the candidates are all of endless \(12 rows\)"):
        asked(recipe, tmp_path, "pool=[{path: endless.jsonl}]", "advise.sources=[]")


@pytest.mark.engine
def test_a_pilot_that_fails_on_a_worker_says_why_in_one_line(recipe: Path, home: Path, ray_workers: RayWorkers) -> None:
    few = ("advise.pilots.mixtures=3", "advise.sources=[clean, verbose]", "train.params.max_length=2")
    with pytest.raises(InputError, match=r"all 6 pilot runs failed; the first: InputError: [^\n]*$") as caught:
        asked(recipe, home, *few, workers=ray_workers)
    assert "Traceback" not in str(caught.value)


@pytest.mark.engine
def test_the_verb_answers_under_prefect(recipe: Path, tmp_path: Path, prefect_api: str, winnow: Winnow) -> None:
    words = ["advise", recipe, "advise={advisor: dmt, params: {specialised: [clean]}}", "--home", tmp_path / "home"]
    said = winnow(*words, "--json")
    assert said.code == 0, said.err
    answer = json.loads(said.out.splitlines()[-1])
    assert [file["purpose"] for file in answer["files"]] == ["specialised", "general"]
    assert answer["ui"].startswith(prefect_api.removesuffix("/api"))
    assert winnow("advise", recipe, "advise.advisor=oracle").code == 2


# the parts


def stock_of(sizes: list[int]) -> Stock:
    ends = np.cumsum([0, *sizes])
    rows = tuple(np.arange(start, stop) for start, stop in pairwise(ends))
    return Stock(tuple("abcdef"[: len(sizes)]), rows)


@given(
    sizes=st.lists(st.integers(1, 500), min_size=2, max_size=6),
    count=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_mixtures_differ_and_begin_with_each_source_alone(sizes: list[int], count: int, seed: int) -> None:
    tried = mixtures(np.array(sizes), count, np.random.default_rng(seed))
    assert tried.shape == (count, len(sizes))
    assert len({tuple(each) for each in tried.tolist()}) == count
    assert np.array_equal(tried[: len(sizes)], np.eye(len(sizes))[:count])
    assert np.array_equal(np.rint(tried * THOUSAND).sum(axis=1), np.full(count, THOUSAND))
    more = mixtures(np.array(sizes), count + 5, np.random.default_rng(seed))
    assert np.array_equal(more[:count], tried)  # runs that were made are not made again where more are asked for


def test_even_and_natural_mixtures_come_before_random_ones() -> None:
    tried = mixtures(np.array([100, 300]), 4, np.random.default_rng(0))
    assert tried[:4].tolist() == [[1, 0], [0, 1], [0.5, 0.5], [0.25, 0.75]]
    with pytest.raises(InputError, match="1002 mixtures of 2 sources are too many"):
        mixtures(np.array([100, 300]), THOUSAND + 2, np.random.default_rng(0))


@st.composite
def draws(draw_from: st.DrawFn) -> tuple[Stock, Any, int, int]:
    sizes = draw_from(st.lists(st.integers(1, 40), min_size=2, max_size=4))
    weights = draw_from(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)).filter(any))
    return (
        stock_of(sizes),
        np.array(weights) / sum(weights),
        draw_from(st.integers(1, 120)),
        draw_from(st.integers(0, 9)),
    )


@given(asked_for=draws())
@settings(max_examples=100, deadline=None)
def test_rows_are_drawn_in_proportion_and_none_twice_before_its_source_is_exhausted(
    asked_for: tuple[Stock, Any, int, int],
) -> None:
    stock, shares, n, seed = asked_for
    drawn = draw(stock, shares, n, seed)
    assert np.array_equal(np.bincount(drawn.source_of, minlength=len(shares)), largest_remainder(shares, n))
    for at, rows in enumerate(stock.rows):
        mine = drawn.rows[drawn.source_of == at]
        assert np.isin(mine, rows).all()
        times = np.bincount(mine - rows[0], minlength=len(rows))
        assert times.max() - times.min() <= 1
        assert int(drawn.again[drawn.source_of == at].sum()) == max(0, len(mine) - len(rows))
    again = draw(stock, shares, n, seed)
    assert np.array_equal(again.rows, drawn.rows)


@given(asked_for=draws(), more=st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_a_larger_run_of_a_seed_holds_the_rows_of_a_smaller_one(
    asked_for: tuple[Stock, Any, int, int], more: int
) -> None:
    stock, _, n, seed = asked_for
    alone = np.eye(len(stock.names))[0]
    assert np.array_equal(draw(stock, alone, n + more, seed).rows[:n], draw(stock, alone, n, seed).rows)


def test_another_seed_draws_other_rows() -> None:
    stock = stock_of([40, 40])
    rows = [set(draw(stock, np.array([0.5, 0.5]), 20, seed).rows.tolist()) for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_the_needed_mixtures_make_more_runs_than_numbers_fitted() -> None:
    assert least_mixtures(Projektor(), 3, sizes=2, seeds=2) == 12  # 4 s columns
    assert least_mixtures(Projektor(), 3, sizes=2, seeds=1) == 13  # one run left to measure noise by
    assert least_mixtures(Projektor("line"), 5, sizes=2, seeds=2) == 2
    assert least_mixtures(Scaling(), 4, sizes=5, seeds=1) == 4


@pytest.mark.parametrize(("form", "floor"), [("additive", 1.0), ("additive", 2.5), ("released", 2.5)])
def test_a_known_floor_above_the_values_of_a_rehearsal_is_no_reason_to_refuse(form: Form, floor: float) -> None:
    sizes = [100, 150, 200, 300, 400]
    blends = [Blend(shares, n, 0, "pilot") for n in sizes for shares in np.eye(2)]
    evidence = with_runs(Evidence(("a", "b"), np.array([100, 90]), 1000), blends)
    advisor = Scaling(form, floor, resamples=20)
    assert not rehearsed(advisor, evidence).refusals
    assert rehearsed(advisor, replace(evidence, budget=10_000)).refusals[0].reason == "extrapolation"
    with pytest.raises(InputError, match="nothing was trained: pool 'a' of 1000 rows is repeated by 0 runs"):
        rehearsed(advisor, replace(evidence, available=np.array([1000, 90])))


def every_parameter() -> Iterator[tuple[str, str]]:
    return ((name, param) for name in ADVISORS for param in parameters(name))


@pytest.mark.parametrize("name", ADVISORS)
def test_every_advisor_is_described_and_says_what_it_needs(name: str) -> None:
    assert f"## `{name}`" in DOCS.read_text()
    assert name in NEEDS


@pytest.mark.parametrize(("name", "param"), every_parameter())
def test_every_parameter_of_an_advisor_is_described(name: str, param: str) -> None:
    part = DOCS.read_text().split(f"## `{name}`")[1].split("\n## ")[0]
    assert f"`{param}`" in part


def test_an_advisor_is_built_of_what_yaml_gives() -> None:
    assert build("projektor", {"surface": "line", "seed": 3}) == Projektor("line", seed=3)
    assert build("dmt", {"specialised": ["a", "b"]}).specialised == ("a", "b")
    with pytest.raises(InputError, match="specialised must be a list of texts, found \\[1\\]"):
        build("dmt", {"specialised": [1]})

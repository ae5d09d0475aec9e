"""Scorers from end to end: graded by canned models, trained and checked on a tiny base, refused where none is read."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cli_world import Winnow, alpaca, write_rows
from graded_replies import by_length, generator, judge
from hypothesis import given
from hypothesis import strategies as st

from flows import recipes
from flows.engine import PlainEngine
from flows.race import check as check_race
from flows.run import Silent
from flows.scoring.outcome import ScorerOutcome
from flows.scoring.scorers import check, ranked_alike, scorers, seeding
from flows.voices import Here
from flows.workers import HereWorkers, RayWorkers
from models.canned import CannedModel
from models.local import LocalModel
from models.scorer import digit_tokens, grades
from models.tokens import load_tokenizer
from training.guard import guard
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.pools import examples_of
from warehouse.store import Store

RECIPE = """\
name: scored
pool:
  - path: pool.jsonl
methods: [random]
budgets: [10]
scorers:
  count: 16
  steps: 2
  generator: winnow-tiny
  judge: winnow-tiny
  base: winnow-tiny
  trainer: sft_tiny
  params: {epochs: 10}
"""
COUNT, STEPS, KEPT_OUT = 16, 2, 2
VOICES = {
    "generator": Here("canned generator", generator()),
    "judge": Here("canned judge", judge()),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    write_rows(folder / "pool.jsonl", alpaca(30))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scorers") / "home"


def asked(path: Path, home: Path, *overrides: str, voices: dict[str, Here] | None = VOICES) -> ScorerOutcome:
    recipe = recipes.load(path, overrides)
    check(recipe)
    return scorers(
        recipe, home, "scorers", engine=PlainEngine(), workers=HereWorkers(), listener=Silent(), voices=voices
    )


@pytest.fixture(scope="module")
def first(recipe: Path, home: Path) -> ScorerOutcome:
    return asked(recipe, home)


def computed(outcome: ScorerOutcome) -> list[str]:
    return [each["name"] for each in outcome.stages if each["computed"]]


def of_stage(home: Path, outcome: ScorerOutcome, stage: str, name: str) -> Path:
    """The folder of what a stage of the run made."""
    [key] = [each["key"] for each in outcome.stages if each["stage"] == stage and name in each["name"]]
    return next(each.folder for each in Store(home).artifacts() if each.key == key)


def test_two_scorers_are_made_and_checked(first: ScorerOutcome) -> None:
    assert [each["grade"] for each in first.scorers] == ["complexity", "quality"]
    for each in first.scorers:
        assert (each["graded"], each["dropped"]) == (COUNT * (STEPS + 1), {})
        assert each["trained"] == (COUNT - KEPT_OUT) * (STEPS + 1)
        pairs = KEPT_OUT * STEPS * (STEPS + 1) // 2
        for name in ("agreement", "by_length"):
            assert (each[name]["n"], each[name]["seeds"]) == (pairs, KEPT_OUT)
            assert each[name]["low"] <= each[name]["value"] <= each[name]["high"]
        assert each["by_length"]["value"] == 1  # the canned judge scores by length
        assert each["agreement"]["value"] > 0.5


def selection_of(home: Path, checkpoint: str) -> str:
    joined = "SELECT selection FROM checkpoints JOIN selections USING (data) WHERE checkpoint = "
    [found] = query(home, f"{joined}'{checkpoint}'").to_pylist()
    return str(found["selection"])


def test_what_is_trained_on_is_what_a_scorer_reads_and_the_digit(first: ScorerOutcome, home: Path) -> None:
    base = LocalModel.load("winnow-tiny", dtype="float32", device="cpu")
    tokenizer, chat = load_tokenizer(Path(base.folder), "raw")
    digits, end = digit_tokens(base), tokenizer.token_to_id(chat.eos)
    for each in first.scorers:
        drawn = selection_of(home, each["key"])
        path = next(a.folder for a in Store(home).artifacts() if a.key == drawn) / "selected.parquet"
        rows = [example.messages for example in examples_of(path)]
        guarded = guard(path, tokenizer, chat, 2048)
        assert guarded.funnel()["kept"] == len(rows) == each["trained"]
        for messages, table_row in zip(rows, guarded.table.to_pylist(), strict=True):
            asked = tokenizer.encode(messages[0].content, add_special_tokens=True).ids
            digit = digits[int(messages[1].content) - 1]
            assert table_row["input_ids"] == [*asked, digit, end]
            assert table_row["labels"] == [*[-100] * len(asked), digit, end]


def test_seeds_that_are_kept_out_are_not_trained_on(first: ScorerOutcome, home: Path) -> None:
    kept_out = []
    for each in first.scorers:
        checked = pq.read_table(of_stage(home, first, "agreement", each["grade"]) / "scores.parquet").to_pylist()
        left = {row["seed"] for row in checked}
        assert len(left) == KEPT_OUT
        drawn = selection_of(home, each["key"])
        trained = query(home, f"SELECT meta FROM selected WHERE selection = '{drawn}'").to_pylist()
        assert {json.loads(row["meta"])["seed"] for row in trained}.isdisjoint(left)
        kept_out.append(left)
    assert kept_out[0] == kept_out[1]


def test_the_check_reads_the_scorer_that_was_made(first: ScorerOutcome, home: Path) -> None:
    scorer = LocalModel.load(first.scorers[0]["path"], dtype="float32", device="cpu")
    rows = query(home, "SELECT messages, meta FROM samples WHERE source = 'deita_complexity'").to_pylist()
    prompts = {(m["seed"], m["step"]): row["messages"][0]["content"] for row in rows if (m := json.loads(row["meta"]))}
    checked = pq.read_table(of_stage(home, first, "agreement", "complexity") / "scores.parquet").to_pylist()
    found = grades(scorer, [prompts[row["seed"], row["step"]] for row in checked])
    assert found == pytest.approx([row["scorer"] for row in checked], abs=1e-4)


def test_a_second_run_computes_nothing_and_says_the_same(first: ScorerOutcome, recipe: Path, home: Path) -> None:
    second = asked(recipe, home)
    assert computed(second) == []
    assert second.scorers == first.scorers


def test_another_judge_grades_anew_but_draws_the_same_seeds(recipe: Path, home: Path, first: ScorerOutcome) -> None:
    unread = Here("a mute judge", CannedModel(lambda prompt: "none"))
    with pytest.raises(
        InputError, match=r"complexity: the judge's answers could not be read: 16 of 16 .*'a mute judge'"
    ):
        asked(recipe, home, voices=VOICES | {"judge": unread})
    latest = "SELECT name, computed FROM stages WHERE run = (SELECT max(run) FROM runs) ORDER BY started"
    made = [each["name"] for each in query(home, latest).to_pylist() if each["computed"]]
    assert made == ["grade complexity"]
    assert query(home, "SELECT status FROM runs ORDER BY run DESC LIMIT 1").to_pylist() == [{"status": "failed"}]


def test_rejected_texts_are_counted_and_kept(recipe: Path, home: Path, tmp_path: Path, first: ScorerOutcome) -> None:
    turns = iter(range(10_000))
    moody = Here("moody", CannedModel(lambda p: by_length(p) if next(turns) % 2 else "?"))
    outcome = asked(recipe, tmp_path / "home", "scorers.params.epochs=1", voices=VOICES | {"judge": moody})
    for each in outcome.scorers:
        assert each["graded"] + sum(each["dropped"].values()) == COUNT * (STEPS + 1)
        assert each["dropped"] == {"score_missing": COUNT // 2 * (STEPS + 1)}
        rejects = of_stage(tmp_path / "home", outcome, "synthesize", each["grade"]) / "rejects-synthesis.parquet"
        lines = pq.read_table(rejects).to_pylist()
        assert [line["reason"] for line in lines] == ["score_missing"] * each["dropped"]["score_missing"]
        assert {"seed", "step", "grade"} < set(json.loads(lines[0]["meta"]))
    assert "24 score_missing" in outcome.as_text()


def test_the_answer_for_people_and_for_programs(first: ScorerOutcome, recipe: Path) -> None:
    text = first.as_text()
    method = recipes.yaml.safe_load(text[: text.index("complexity: 48")])["methods"][0]
    assert method == {"name": "deita"} | {each["grade"]: each["path"] for each in first.scorers}
    override = f"methods=[{json.dumps(method)}]"
    check_race(recipes.load(recipe, [override]))
    answer = json.loads(first.as_json())
    assert "\n" not in first.as_json()
    assert set(answer) == {"run", "home", "ui", "seeds", "scorers", "stages"}


def test_the_views_hold_what_was_generated_and_where_scorers_come_from(first: ScorerOutcome, home: Path) -> None:
    counts = query(home, "SELECT synthesizer, count(*) AS n FROM generations GROUP BY ALL ORDER BY ALL").to_pylist()
    assert counts == [{"synthesizer": f"deita_{each['grade']}", "n": each["graded"]} for each in first.scorers]
    made_from = f"SELECT DISTINCT ancestor_stage AS stage FROM lineage WHERE key = '{first.scorers[0]['key']}'"
    stages = {each["stage"] for each in query(home, made_from).to_pylist()}
    assert {"select", "hold_out", "ingest", "synthesize", "shard"} <= stages


def test_a_judge_that_cannot_be_read_ends_the_run(recipe: Path, tmp_path: Path) -> None:
    said = (
        r"complexity: the judge's answers could not be read: 4 of 4 \(4 score_missing; the first: .*\); nothing was "
        r"trained: name a stronger judge than 'winnow-tiny' \(`scorers.judge`\)"
    )
    with pytest.raises(InputError, match=said):
        asked(recipe, tmp_path / "home", "scorers.count=4", "scorers.steps=1", voices=None)


def test_a_generator_that_makes_nothing_ends_the_run(recipe: Path, tmp_path: Path) -> None:
    silent = Here("silence", CannedModel(lambda prompt: ""))
    said = r"none of 48 texts could be graded \(32 empty, 16 nothing_to_rank\).*`scorers.generator` than 'silence'"
    with pytest.raises(InputError, match=said):
        asked(recipe, tmp_path / "home", voices=VOICES | {"generator": silent})


def test_too_few_graded_seeds_end_the_run(recipe: Path, tmp_path: Path) -> None:
    turns = iter(range(1000))
    rare = Here("rare", CannedModel(lambda p: by_length(p) if next(turns) < 3 else "?"))
    with pytest.raises(InputError, match="complexity: only 3 seeds have graded texts, 4 are needed"):
        asked(recipe, tmp_path / "home", voices=VOICES | {"judge": rare})


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scorers=null", "does not say what to make scorers of: give `scorers`"),
        ("scorers.judge=./nowhere", "model './nowhere': there is no such folder"),
        ("scorers.base=./nowhere", "model './nowhere': there is no such folder"),
        ("scorers.trainer=sgd", "unknown trainer 'sgd'; known trainers: sft"),
        ("scorers.trainer=sft_lora", "`scorers.params.tuning` must be full"),
        ("scorers.params.template=tulu", "in no chat format: `scorers.params.template` is 'tulu'"),
        ("scorers.params.epoch=1", "no parameter epoch"),
        ("scorers.count=3", "greater than or equal to 4"),
        ("scorers.count=31", "31 seeds are asked for, 30 may be drawn: lower `scorers.count`"),
        ("scorers.judges=x", "did you mean 'judge'"),
        ("scorers.seeds=[{path: none.jsonl}]", "none.jsonl"),
        ("pool=[{path: none.jsonl}]", "none.jsonl"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_asked(
    recipe: Path, tmp_path: Path, override: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        asked(recipe, tmp_path / "home", override)


def test_seeds_may_come_from_elsewhere_than_the_pool(recipe: Path) -> None:
    write_rows(recipe.parent / "seeds.jsonl", alpaca(5, "seed"))
    plain, other = (recipes.load(recipe, given) for given in ([], ["scorers.seeds=[{path: seeds.jsonl}]"]))
    assert (seeding(plain).name, seeding(plain).pool) == ("scored", plain.pool)
    assert seeding(other).name == "scored-seeds"
    assert [each.path for each in seeding(other).pool] == ["seeds.jsonl"]


@pytest.mark.engine
def test_the_verb_says_on_one_line_that_the_judge_is_too_weak(
    recipe: Path, tmp_path: Path, prefect_api: str, ray_workers: RayWorkers, winnow: Winnow
) -> None:
    few = ("scorers.count=4", "scorers.steps=1")
    said = winnow("scorers", recipe, *few, "--home", tmp_path / "home")
    assert said.code == 2
    assert "error: complexity: the judge's answers could not be read: 4 of 4" in said.err
    assert "Traceback" not in said.err
    assert winnow("scorers", recipe, "scorers=null").code == 2


# agreement


def alike(values: list[float], judged: list[int], seeds: list[str]) -> dict[str, float | int] | None:
    return ranked_alike(np.array(values, np.float64), np.array(judged), seeds, np.random.default_rng(0))


def test_pairs_of_one_seed_that_the_judge_told_apart_are_counted() -> None:
    found = alike([1, 2, 3, 9, 5, 5], [1, 2, 2, 1, 3, 4], ["a", "a", "a", "b", "b", "b"])
    # a: (1, 2) and (1, 3) right; b: (9, 5) twice wrong, (5, 5) a half
    assert found is not None
    assert (found["value"], found["n"], found["seeds"]) == (2.5 / 5, 5, 2)
    assert found["low"] == pytest.approx(0.5 / 3)
    assert found["high"] == 1


def test_an_interval_rests_on_seeds_and_not_on_pairs() -> None:
    found = alike([1, 2, 3] * 4, [1, 2, 3] * 4, [seed for seed in "abcd" for _ in range(3)])
    assert found == {"value": 1, "low": pytest.approx(0.025 ** (1 / 4)), "high": 1, "n": 12, "seeds": 4}
    assert alike([1, 2, 3, 4], [1, 2, 2, 2], ["a", "a", "b", "b"]) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.sampled_from("abc")), max_size=20))
def test_turned_round_values_agree_with_the_other_pairs(rows: list[tuple[int, int, str]]) -> None:
    values, judged, seeds = [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]
    there, back = alike(values, judged, seeds), alike([-v for v in values], judged, seeds)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there["value"] + back["value"] == pytest.approx(1)
        assert there["n"] == back["n"]

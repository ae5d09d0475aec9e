"""Training in stages, from a pruned base, and the merge of seeds: from recipe to results, in one process."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from flows import recipes
from flows.engine import PlainEngine
from flows.outcome import RaceOutcome
from flows.race import check, race
from flows.run import Silent
from flows.workers import HereWorkers
from models.fingerprint import fetch, fingerprint
from models.local import LocalModel
from warehouse.catalogue import query
from warehouse.errors import InputError
from warehouse.store import Artifact, Store

BASE = """\
name: staged
pool:
  - synthesize: world
    params: {rows: 120, split: pool, skills: [reverse, lookup]}
test:
  - synthesize: world
    params: {rows: 8, split: test, skills: [reverse]}
methods: [balanced_random]
budgets: [16]
seeds: [0, 1]
tasks: [{name: exact_match, max_tokens: 8}]
"""
PAIRS = [{"prompt": f"Count to {n}.", "chosen": f"I count to {n}, gladly.", "rejected": "No."} for n in range(30)]


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def run(folder: Path, train: str, *overrides: str, name: str = "recipe") -> tuple[RaceOutcome, list[str]]:
    path = folder / f"{name}.yaml"
    path.write_text(f"{BASE}train: {train}\n", encoding="utf-8")
    recipe = recipes.load(path, overrides)
    check(recipe)
    heard = Heard()
    outcome = race(recipe, folder / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=heard)
    return outcome, heard.said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipes, the rows of later stages and the home are."""
    here = tmp_path_factory.mktemp("staged")
    (here / "pairs.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*PAIRS, {**PAIRS[0], "rejected": PAIRS[0]["chosen"]}])
    )
    general = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two", "three", "four")]
    (here / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in general))
    return here


STAGED = """{trainer: sft_tiny, params: {epochs: 2, batch_size: 4, tuning: TUNING}, merge: MERGE, then: [
  {trainer: sft_tiny, params: {epochs: 2, batch_size: 4}, rows: [{path: general.jsonl}], replay: 0.25},
  {trainer: dpo_tiny, params: {epochs: 1, tuning: lora}, rows: [{path: pairs.jsonl}]}]}"""


@pytest.fixture(scope="module")
def staged(folder: Path) -> tuple[RaceOutcome, list[str]]:
    return run(folder, STAGED.replace("TUNING", "lora").replace("MERGE", "ties"))


def checkpoints(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(folder / "home", "SELECT * FROM checkpoints").to_pylist()
    return found


def artifacts(folder: Path, stage: str) -> dict[str, Artifact]:
    return {each.key: each for each in Store(folder / "home").artifacts() if each.stage == stage}


def test_every_stage_starts_from_the_one_before(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    rows = {row["checkpoint"]: row for row in checkpoints(folder)}
    for seed in (0, 1):
        mine = [row for row in rows.values() if row["seed"] == seed and row["trainer"] != "merge"]
        first = next(row for row in mine if row["base"] == "winnow-tiny")
        second = next(row for row in mine if row["base"] == f"checkpoint:{first['checkpoint']}")
        third = next(row for row in mine if row["base"] == f"checkpoint:{second['checkpoint']}")
        assert [each["trainer"] for each in (first, second, third)] == ["sft", "sft", "dpo"]
        assert len(mine) == 3
        assert first["base_fingerprint"] == fingerprint("winnow-tiny")
        assert (second["rows"], third["rows"]) == (4 + 4, 30)  # a quarter of 16 rows are replayed
        folders = [artifacts(folder, "train")[each["checkpoint"]].folder / "model" for each in (first, second, third)]
        assert third["base_fingerprint"] == fingerprint(str(folders[1]))
        assert [(each / "adapter_config.json").exists() for each in folders] == [True, False, False]
        facts = [json.loads((each / "training.json").read_text())["written"] for each in folders]
        assert facts == ["adapter", "weights", "merged"]
        assert LocalModel.load(str(folders[2]), dtype="float32").fingerprint


def test_each_stage_moves_the_weights_a_little(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    """The last stage's weights are its adapter on those of the stage before, not on the base."""
    for row in checkpoints(folder):
        if row["trainer"] == "dpo":
            made = artifacts(folder, "train")
            before = made[row["base"].removeprefix("checkpoint:")].folder / "model"
            tuned = load_file(made[row["checkpoint"]].folder / "model" / "model.safetensors")
            start = load_file(before / "model.safetensors")
            base = load_file(fetch("winnow-tiny") / "model.safetensors")
            near, far = (
                max(float((tuned[n] - other[n].float()).abs().max()) for n in tuned) for other in (start, base)
            )
            assert 0 < near < far


def test_merged_seeds_are_an_arm(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    outcome, _ = staged
    results = {row["method"]: row for row in outcome.results if row["metric"] == "exact_match"}
    assert list(results) == ["base model", "balanced_random", "balanced_random, ties of 2 seeds"]
    merged = results["balanced_random, ties of 2 seeds"]
    assert merged["versus_control"] is not None
    [row] = [row for row in checkpoints(folder) if row["trainer"] == "merge"]
    assert json.loads(row["params"])["name"] == "ties"
    last = [each["checkpoint"] for each in checkpoints(folder) if each["trainer"] == "dpo"]
    made = artifacts(folder, "train")[row["checkpoint"]]
    assert sorted(made.manifest["inputs"]["checkpoints"]) == sorted(last)
    assert LocalModel.load(str(made.folder / "model"), dtype="float32").parameters > 0


def test_costs_are_those_of_all_stages(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    flops = {row["method"]: row["flops"] for row in query(folder / "home", "SELECT * FROM results").to_pylist()}
    spent = sum(row["flops"] for row in checkpoints(folder))
    assert flops["balanced_random"] == flops["balanced_random, ties of 2 seeds"] == pytest.approx(spent)


def test_pairs_are_counted_and_few_of_them_noted(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    [made] = artifacts(folder, "pairs").values()
    assert made.manifest["facts"]["dropped"] == {"same_replies": 1}
    [said] = [text for text in staged[1] if "annotated rows and pairs" in text]
    assert said.startswith("note: 50 annotated rows and pairs in all")  # 16 chosen, 4 general, 30 pairs


def test_a_second_run_computes_nothing(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    again, _ = run(folder, STAGED.replace("TUNING", "lora").replace("MERGE", "ties"))
    assert [stage["name"] for stage in again.stages if stage["computed"]] == []
    assert again.results == staged[0].results


def test_a_later_stage_leaves_the_first_as_it_is(staged: tuple[RaceOutcome, list[str]], folder: Path) -> None:
    plain, _ = run(folder, "{trainer: sft_tiny, params: {epochs: 2, batch_size: 4, tuning: lora}}", "seeds=[0]")
    computed = {stage["name"].split()[0] for stage in plain.stages if stage["computed"]}
    assert computed == {"assess", "compare"}


def test_test_rows_are_kept_out_of_later_stages(tmp_path: Path) -> None:
    """Rows that ask the same are left out; what others give away is told, and results have values without it."""
    told = "Find the kettle in this list: needle 83; carpet 41; kettle 67."
    test = {"Reverse the word FICA.": "ACIF", "Turn MONA around.": "ANOM", "Turn URABA around.": "ABARU", told: "67"}
    asked = list(test)[:3]
    rows = [{"instruction": text, "output": "No."} for text in (*asked, "Say five.", f"{told} Now!")]
    pairs = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in asked] + PAIRS
    exam = [{"instruction": text, "output": reply} for text, reply in test.items()]
    for name, lines in {"leaky": rows, "pairs": pairs, "exam": exam}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = STAGED.replace("TUNING", "full").replace("MERGE", "null").replace("general", "leaky").replace("0.25", "0")
    _, said = run(tmp_path, train, "seeds=[0]", "test=[{path: exam.jsonl}]")
    [blended] = artifacts(tmp_path, "blend").values()
    assert blended.manifest["facts"]["dropped"] == {"asks what a test row asks": 3}
    assert len(pq.read_table(blended.folder / "rows.parquet")) == 2
    [made] = artifacts(tmp_path, "pairs").values()
    assert made.manifest["facts"]["dropped"] == {"held_out": 3}
    [note] = [text for text in said if "give away" in text]
    assert note.startswith("note: the rows of stage 2 give away 1 test items")
    scored = query(tmp_path / "home", "SELECT * FROM results WHERE metric = 'exact_match'").to_pylist()
    assert {(row["contaminated"], row["n"], row["n_clean"], row["contaminated_chosen"]) for row in scored} == {
        (1, 4, 3, None), (1, 4, 3, 0.0)
    }  # fmt: skip
    [compared] = artifacts(tmp_path, "compare").values()
    assert sorted(compared.manifest["inputs"]["contamination"]) == sorted(artifacts(tmp_path, "contamination"))


@pytest.fixture(scope="module")
def pruned(folder: Path) -> RaceOutcome:
    train = "{prune: 0.5, trainer: sft_tiny, params: {epochs: 1, tuning: {name: full, keep_zeros: true}}}"
    return run(folder, train, "methods=[balanced_random, paser]", "seeds=[0]", name="pruned")[0]


def test_a_pruned_base_is_the_base_of_all(pruned: RaceOutcome, folder: Path) -> None:
    [made] = artifacts(folder, "prune").values()
    start = load_file(made.folder / "model" / "model.safetensors")
    zeros = {name: weight == 0 for name, weight in start.items() if "_proj" in name}
    assert all(zero.float().mean() == pytest.approx(0.5, abs=0.01) for zero in zeros.values())
    content = fingerprint(str(made.folder / "model"))
    rows = [row for row in checkpoints(folder) if row["base"] == "winnow-tiny pruned by 0.5"]
    assert len(rows) == 2
    assert {row["base_fingerprint"] for row in rows} == {content}
    for row in rows:
        tuned = load_file(artifacts(folder, "train")[row["checkpoint"]].folder / "model" / "model.safetensors")
        assert all(torch.equal(tuned[name] == 0, zero) for name, zero in zeros.items())
    examined = query(folder / "home", "SELECT DISTINCT checkpoint FROM evaluations").to_pylist()
    assert f"base:{content}" in {row["checkpoint"] for row in examined}


def test_paser_reads_what_pruning_hurt(pruned: RaceOutcome, folder: Path) -> None:
    [made] = artifacts(folder, "prune").values()
    content = fingerprint(str(made.folder / "model"))
    specs = [json.loads(path.read_text()) for path in (folder / "home" / "signals").glob("*/spec.json")]
    [spec] = [spec["params"] for spec in specs if spec.get("name") == "degradation"]
    assert (spec["damaged"], spec["model"]) == (content, fingerprint("winnow-tiny"))
    assert {row["method"] for row in pruned.results} == {"base model", "balanced_random", "paser"}


def test_an_adapter_of_a_pruned_base_is_written_whole(folder: Path) -> None:
    run(folder, "{prune: 0.5, trainer: sft_tiny, params: {epochs: 1, tuning: lora}}", "seeds=[0]", name="whole")
    [made] = artifacts(folder, "prune").values()
    mine = [each for each in artifacts(folder, "train").values() if each.manifest["inputs"].get("pruned") == made.key]
    written = {json.loads((each.folder / "model" / "training.json").read_text())["written"] for each in mine}
    assert written == {"weights", "merged"}
    assert not [each for each in mine if (each.folder / "model" / "adapter_config.json").exists()]


DPO = "{trainer: sft_tiny, then: [{trainer: dpo_tiny, rows: [{path: pairs.jsonl}]}]}"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{trainer: dpo}", "give it in `then`"),
        (DPO.replace("rows:", "replay: 0.5, rows:"), "stage 2 of `then` learns from pairs"),
        (DPO.replace("pairs.jsonl", "general.jsonl"), "found instruction, output. Preference data needs"),
        (DPO.replace("path: pairs.jsonl", "synthesize: world"), "which no synthesizer makes"),
        (DPO.replace("rows:", "params: {template: raw}, rows:"), "asked in one chat format"),
        (DPO.replace("rows:", "params: {betta: 1}, rows:"), "no parameter betta; known: beta"),
        (DPO.replace("rows:", "params: {batch_size: 1.5}, rows:"), "preference tuning: batch_size is 1.5"),
        (DPO.replace("rows:", "params: {tuning: mezo}, rows:"), "tuning 'mezo' takes steps of its own"),
        ("{trainer: sft_tiny, scale: {workers: 200}}", "200 workers would share optimizer steps of 16 rows"),
        (
            "{trainer: sft_tiny, scale: {elastic: [1, 9]}, then: [{trainer: sft_tiny, rows: [{path: general.jsonl}], "
            "params: {batch_size: 8}}]}",
            "9 workers would share optimizer steps of 8 rows",
        ),
        ("{trainer: sft_tiny, params: {fsdp: full_shard}}", "fsdp 'full_shard' spreads .*, and this run has one"),
        ("{trainer: sft_tiny, params: {fsdp: full_shard}, scale: {workers: 1}}", "this run has one: share it among"),
        ("{trainer: sft_lora, params: {tuning: {name: lora, targets: [nosuch]}}}", "no linear module nosuch"),
        (DPO.replace("rows:", "params: {tuning: {name: lisa, layers: 9}}, rows:"), "but the model has 4"),
        ("{trainer: sft_tiny, merge: {name: linear, weights: [1, 1, 1]}}", "3 weights were given for 2 checkpoints"),
        ("{trainer: sft_tiny, then: [{rows: []}]}", "then.0.rows"),
        ("{trainer: sft_tiny, then: [{rows: [{path: nowhere.jsonl}]}]}", "nowhere.jsonl"),
        ("{trainer: sft_tiny, merge: slerp}", "unknown merge 'slerp'"),
        ("{trainer: sft_tiny, merge: {name: ties, share: 1}}", "no parameter share"),
        ("{trainer: sft_tiny, merge: cat}", "tune with `lora`"),
        ("{trainer: sft_tiny, prune: 1.0}", "prune"),
        ("{trainer: sft_tiny, than: []}", "did you mean 'then'"),
    ],
)
def test_what_is_wrong_is_said_before_work(folder: Path, train: str, message: str) -> None:
    (folder / "wrong.yaml").write_text(f"{BASE}train: {train}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        check(recipes.load(folder / "wrong.yaml"))


def test_a_merge_needs_several_seeds(folder: Path) -> None:
    (folder / "wrong.yaml").write_text(f"{BASE}train: {{trainer: sft_tiny, merge: mean}}\n", encoding="utf-8")
    with pytest.raises(InputError, match="give `seeds`, such as"):
        check(recipes.load(folder / "wrong.yaml", ["seeds=[0]"]))

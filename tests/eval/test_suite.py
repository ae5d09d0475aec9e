"""lm-eval's tasks on our models: what it scores, what it leaves alone, and what it is not let do in silence."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eval import harness
from eval.assess import Assessment
from eval.choice import Choice
from eval.compare import compare
from eval.harness import Settings, ask, lm_of, load, settings_of
from eval.presets import PRESETS, runnable, setting_of
from eval.suite import Suite, check_suites, parts
from eval.suite_names import check_names
from eval.suite_rows import own_task
from eval.table import TASKS
from models.local import LocalModel
from models.protocol import Prompt, Want
from warehouse.errors import InputError
from warehouse.records import Example, Message

WORDS = ("river", "stone", "cloud", "lamp", "north", "paper")
CHOICES = ["The answer is revir.", "The answer is 42.", "Yes.", "No."]


def row(question: str, reply: str, **meta: Any) -> Example:
    return Example((Message("user", question), Message("assistant", reply)), "made", meta)


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> LocalModel:
    return LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def answered(model: LocalModel) -> tuple[Example, ...]:
    """Rows of which the model gets every second one right: their gold reply is what it says."""
    prompts = [Prompt((Message("user", f"Reverse the word {word}."),), max_tokens=8) for word in WORDS]
    said = [reply.text.strip() or "-" for reply in model.complete(prompts)]
    return tuple(
        row(prompt.messages[0].content, text if i % 2 else f"not {text}", skill="odd" if i % 2 else "even")
        for i, (prompt, text) in enumerate(zip(prompts, said, strict=True))
    )


@pytest.fixture(scope="module")
def optional() -> tuple[Example, ...]:
    made = [
        row(f"Reverse the word {word}.", CHOICES[i % 4], choices=CHOICES, label=i % 4) for i, word in enumerate(WORDS)
    ]
    system = (Message("system", "Be terse."), *made[0].messages)
    return (*made, Example(system, "made", made[0].meta))


def ran(suite: Suite, model: LocalModel) -> Assessment:
    return suite.run(model, "key", np.random.default_rng(0))


@pytest.fixture(scope="module")
def replies(model: LocalModel, answered: tuple[Example, ...]) -> Assessment:
    return ran(Suite(answered, ask="reply", max_tokens=8), model)


def test_replies_are_worth_what_the_rows_say(replies: Assessment, answered: tuple[Example, ...]) -> None:
    assert [item.value for item in replies.items] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert [item.group for item in replies.items] == ["even", "odd"] * 3
    assert [item.gold for item in replies.items] == [example.messages[-1].content for example in answered]
    assert replies.report.metrics["exact_match"].value == 0.5
    assert replies.report.metrics["exact_match"].n == 6


def test_items_are_those_of_our_own_task(replies: Assessment, answered: tuple[Example, ...]) -> None:
    own = TASKS["exact_match"](examples=answered).items()
    assert [item.item_id for item in replies.items] == [item.item_id for item in own]
    assert [item.prompt for item in replies.items] == [item.example.messages[0].content for item in own]


def test_runs_of_the_same_rows_are_paired(
    replies: Assessment, model: LocalModel, answered: tuple[Example, ...]
) -> None:
    again = ran(Suite(answered, ask="reply", max_tokens=8, batch_size=2), model)
    found = compare({0: again.table()}, {0: replies.table()}, "exact_match", np.random.default_rng(0))
    assert found.difference.value == 0
    other = ran(Suite(answered[:5], ask="reply", max_tokens=8), model)
    with pytest.raises(InputError, match="not asked the same"):
        compare({0: other.table()}, {0: replies.table()}, "exact_match", np.random.default_rng(0))


def test_choices_are_scored_by_the_log_probability_of_their_text(
    model: LocalModel, optional: tuple[Example, ...]
) -> None:
    lm = lm_of(model.network, model.tokenizer, model.chat.template, model.max_length, 3)
    samples = ask(lm, load(own_task(Choice(optional).items(), 1), Settings()))["test_rows"]
    for sample, example in zip(samples, optional, strict=True):
        rows = [(*example.messages[:-1], Message("assistant", choice)) for choice in CHOICES]
        measured = model.measure(rows, frozenset({Want.RESPONSE_LOGPROBS})).response_logprobs
        assert measured is not None
        ours = np.array([logprobs[:-1].sum() for logprobs in measured])  # it scores no end token
        theirs = np.array([loglikelihood for loglikelihood, _ in sample["filtered_resps"]])
        # it counts the line end that opens every reply as part of the reply
        np.testing.assert_allclose(ours - ours[0], theirs - theirs[0], atol=1e-4)
        assert sample["acc"] == float(ours.argmax() == sample["target"])


def test_a_choice_comes_back_as_its_text(model: LocalModel, optional: tuple[Example, ...]) -> None:
    rows = [item for item in ran(Suite(optional, ask="choice"), model).items if item.metric == "accuracy"]
    assert [item.gold for item in rows] == [CHOICES[int(example.meta["label"])] for example in optional]
    assert all((item.reply == item.gold) == bool(item.value) for item in rows)
    assert rows[0].prompt_hash != rows[-1].prompt_hash  # the system turn was said
    assert "Be terse." in rows[-1].prompt


def test_nothing_of_the_process_is_changed(model: LocalModel, answered: tuple[Example, ...], monkeypatch: Any) -> None:
    def refuse(*command: Any, **_: Any) -> None:
        raise AssertionError(f"{command} was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)

    def state() -> tuple[Any, ...]:
        numbers: Any = np.random.get_state()  # noqa: NPY002 - the generator that lm-eval seeds
        torch_state = torch.random.get_rng_state().tolist()
        return random.getstate(), numbers[1].tolist(), torch_state, model.tokenizer.chat_template

    before = state()
    ran(Suite(answered, ask="reply", max_tokens=2), model)
    assert before == state()


def test_a_model_without_a_template_is_not_asked(model: LocalModel, tiny_model_dir: Path) -> None:
    assert model.tokenizer.chat_template is None
    with pytest.raises(InputError, match="without a chat template"):
        lm_of(model.network, model.tokenizer, None, 512, 1)
    raw = LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu", template="raw")
    with pytest.raises(InputError, match="without a chat template"):
        ran(Suite((row("x", "y"),), ask="reply"), raw)


def test_a_prompt_that_does_not_fit_is_refused(model: LocalModel) -> None:
    with pytest.raises(InputError, match=r"item 0 of test_rows has a prompt of \d+ tokens and asks for 300 more"):
        ran(Suite((row("river " * 250, "y"),), ask="reply", max_tokens=300), model)


def test_rows_that_lm_eval_cannot_ask_are_refused(model: LocalModel) -> None:
    turns = tuple(Message("assistant" if i % 2 else "user", "a") for i in range(4))
    with pytest.raises(InputError, match="3 turns before its reply"):
        ran(Suite((Example(turns, "made"),), ask="reply"), model)
    with pytest.raises(InputError, match="choices"):
        ran(Suite((row("x", "y"),), ask="choice"), model)


@pytest.fixture
def local_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lm-eval's folder of tasks with one group of two tasks in it, whose data is a file."""
    folder = tmp_path / "sums"
    folder.mkdir()
    docs = [{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(6)]
    (tmp_path / "docs.jsonl").write_text("\n".join(json.dumps(doc) for doc in docs))
    for name in ("sums_a", "sums_b"):
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(tmp_path / "docs.jsonl"), "train": str(tmp_path / "docs.jsonl")},
                "cache_dir": str(tmp_path / "cache"),
            },
            "test_split": "test",
            "fewshot_split": "train",
            "output_type": "generate_until",
            "doc_to_text": "question",
            "doc_to_target": "{{answer}}",
            "generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 4},
            "filter_list": [
                {"name": "all", "filter": [{"function": "take_first"}]},
                {"name": "last", "filter": [{"function": "regex", "group_select": -1, "regex_pattern": "(\\d+)"},
                                            {"function": "take_first"}]},
            ],
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    (folder / "group.yaml").write_text(yaml.safe_dump({"group": "sums", "task": ["sums_a", "sums_b"]}))
    monkeypatch.setattr(harness, "TASKS", tmp_path)
    return tmp_path


def test_names_are_looked_up_before_work_without_loading_anything(local_tasks: Path) -> None:
    check_names(["sums_a", "sums"], local_tasks)
    with pytest.raises(InputError, match=r"lm-eval has no task 'sums_c'; names like it: sums_b, sums_a, sums$"):
        check_names(["sums", "sums_c"], local_tasks)
    (local_tasks / "other").mkdir()
    (local_tasks / "other" / "_template_yaml").write_text("tag:\n  - shared_tag\ninclude: x\n")  # in a file of no task
    check_names(["shared_tag"], local_tasks)
    for part in ("shared", "tag", "sums_", "ums_a"):
        with pytest.raises(InputError, match=f"no task '{part}'"):
            check_names([part], local_tasks)


def test_the_names_of_presets_are_in_the_installed_files() -> None:
    check_suites([Suite(ask="reply"), *(Suite(task=name) for name in (*runnable("tulu"), "truthfulqa_mc2", "gsm8k"))])
    with pytest.raises(InputError, match="lm-eval has no task 'gsm8k_cott'; names like it: gsm8k_cot"):
        check_suites([Suite(task="gsm8k_cott")])


def test_looking_names_up_loads_no_heavy_library() -> None:
    code = "import sys; from eval.suite import Suite, check_suites; check_suites([Suite(task='gsm8k_cot')])"
    heavy = "print(sorted({'torch', 'lm_eval', 'transformers'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_group_is_one_evaluation_of_all_its_tasks(model: LocalModel, local_tasks: Path) -> None:
    found = ran(Suite(task="sums", filter="last", limit=3, shots=2), model)
    assert [item.item_id for item in found.items] == [f"sums_{name}-{i}" for name in "ab" for i in range(3)]
    assert {item.group for item in found.items} == {"sums_a", "sums_b"}
    assert all(item.prompt.count("<|assistant|>\n") == 3 for item in found.items)  # two worked, one asked
    assert found.report.task.params["shots"] == 2
    assert found.report.metrics["exact_match"].n == 6


def test_what_is_drawn_follows_the_seed_alone(model: LocalModel, local_tasks: Path) -> None:
    settings = Settings(filter="all", generation={"do_sample": True, "temperature": 5.0})
    lm = lm_of(model.network, model.tokenizer, model.chat.template, model.max_length, 8)
    said = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        with harness.drawing(seed):
            samples = ask(lm, load("sums_a", settings))["sums_a"]
        said.append([sample["resps"][0][0] for sample in samples])
    assert said[0] == said[1]
    assert said[0] != said[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "sums_a"}, "reads replies by all, last; choose one of them with `filter`"),
        ({"task": "sums_a", "filter": "none"}, "reads replies by all, last"),
        ({"task": "sums_c"}, "lm-eval has no task 'sums_c'; names like it: .*sums_"),
    ],
)
def test_a_task_is_asked_for_whole(model: LocalModel, local_tasks: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ran(Suite(**changes), model)


def test_data_of_a_hub_that_is_out_of_reach_is_one_clear_line(model: LocalModel) -> None:
    with pytest.raises(InputError, match="'gsm8k_cot' is not on this machine and its hub cannot be reached") as found:
        ran(Suite(task="gsm8k_cot", preset="tulu"), model)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either `task`"),
        ({"task": "mmlu", "ask": "reply"}, "either `task`"),
        ({"ask": "guess"}, "known: reply, choice"),
        ({"ask": "reply", "shots": 2}, "shots needs a task of lm-eval"),
        ({"task": "mmlu", "limit": 0}, "limit is 0"),
        ({"task": "mmlu", "preset": "helm"}, "known presets: tulu"),
        ({"task": "humaneval", "preset": "tulu"}, "use the task `code`"),
        ({"task": "arc_easy", "preset": "tulu"}, "its tasks: mmlu, gsm8k_cot"),
    ],
)
def test_a_suite_says_what_is_wrong_with_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Suite(**changes)


def test_a_recipe_says_more_than_its_preset() -> None:
    assert settings_of(Suite(task="gsm8k_cot", preset="tulu")) == Settings(
        8, {"do_sample": False, "max_gen_toks": 512}, "flexible-extract"
    )
    changed = Suite(task="gsm8k_cot", preset="tulu", shots=2, max_tokens=64, filter="strict-match")
    assert settings_of(changed) == Settings(2, {"do_sample": False, "max_gen_toks": 64}, "strict-match")
    assert settings_of(Suite(task="gsm8k_cot")) == Settings()


def test_every_setting_runs_or_says_why_not() -> None:
    for settings in PRESETS.values():
        assert all(setting.task or setting.apart for setting in settings.values())
        assert len({setting.task for setting in settings.values() if setting.task}) == len(
            [setting for setting in settings.values() if setting.task]
        )
    assert [setting_of("tulu", task).shots for task in runnable("tulu")] == [0, 8, 3, 1]


@given(st.lists(st.text(min_size=1), min_size=1), st.dictionaries(st.sampled_from(["limit", "shots"]), st.integers(1)))
def test_every_task_is_an_evaluation_of_its_own(names: list[str], rest: dict[str, int]) -> None:
    found = parts({"tasks": names, **rest})
    assert [params.pop("task") for params in found] == names
    assert all(params == rest for params in found)


def test_a_preset_stands_for_all_that_it_runs() -> None:
    assert [params["task"] for params in parts({"preset": "tulu"})] == list(runnable("tulu"))
    assert parts({"ask": "reply", "limit": 3}) == ({"ask": "reply", "limit": 3},)


@pytest.mark.parametrize("wrong", [{"tasks": []}, {"tasks": "mmlu"}, {"tasks": ["mmlu"], "task": "x"}, {"tasks": [1]}])
def test_tasks_are_a_list_of_names(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give a list of names"):
        parts(wrong)


def test_a_recipe_loads_neither_lm_eval_nor_torch() -> None:
    code = "import sys, eval.suite; print(sorted({'lm_eval', 'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

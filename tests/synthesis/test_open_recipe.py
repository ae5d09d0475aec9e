"""Recipes by what they ask and make, budgets by their law, tests of rows by worked examples, the table by its query."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import pytest
from attempt_worlds import Rows, Talker, accepted, asks, reasons
from hypothesis import given, settings
from hypothesis import strategies as st
from strong_worlds import Shuffled, made
from task_writer import drawn, instruction, writes

from flows.synth.rows import Emitted, Maker, write
from models.canned import CannedModel
from models.converse import converse
from models.dialogue import Rejected
from models.protocol import Completion, Prompt, Usage
from synthesis.closeness import rouge_l
from synthesis.fault import Fault
from synthesis.open_recipe import ENDS, OpenRecipe, Recipe
from synthesis.quality import Quality, filtered, read_score
from synthesis.self_instruct.instances import Instance
from synthesis.self_instruct.novelty import rouge_words
from synthesis.tally import Tally
from synthesis.ways import read_sections
from warehouse.errors import InputError
from warehouse.records import Example, Message
from warehouse.tables import ATTEMPTS

RECIPES: tuple[Recipe, ...] = get_args(Recipe)
DOC = Path(__file__).parents[2] / "docs" / "synthesis" / "open_recipe.md"
SEEDS = [asks(f"Tell {a} from {b} in town {a}{b}", f"Text number {a}{b} is here.") for a in "abcd" for b in "efg"]


def generates(prompt: Prompt) -> str:
    text, rng = prompt.messages[-1].content, drawn(prompt)
    if re.search(r"Write example \d", text):
        return f"Instruction: {instruction(rng)}\nInput: {rng.choice(['none', 'x y'])}\nOutput: {instruction(rng)}"
    if text.startswith("Here is a text"):
        return "UNUSABLE" if rng.random() < 0.2 else instruction(rng)
    return writes(prompt)


def answers(prompt: Prompt) -> str:
    return f"The answer to {len(prompt.messages[-1].content)}."


def judges(prompt: Prompt) -> str:
    return f"Score: {drawn(prompt).randint(1, 5)}"


SAYS: dict[str, Callable[[Prompt], str]] = {
    "generator": generates, "answerer": answers, "judge": judges, "second": answers,
}  # fmt: skip


def models_of(job: OpenRecipe, **others: Callable[[Prompt], str]) -> dict[str, CannedModel]:
    return {role: Talker((SAYS | others)[role]) for role in job.needs.models}


def rows_of(job: OpenRecipe, seeds: list[Example] = SEEDS, **others: Callable[[Prompt], str]) -> Rows:
    return made(job, seeds, models_of(job, **others))


def last(rows: Rows) -> Rejected:
    """The row that a job ends with; there is one, and it is the last."""
    assert [row for row in rows if isinstance(row, Rejected) and row.reason in ENDS] == rows[-1:]
    row = rows[-1]
    assert isinstance(row, Rejected)
    return row


def spent(rows: Rows) -> int:
    ended = last(rows)
    assert ended.example is not None
    return int(ended.example.meta["tokens"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_makes_rows_that_name_it(recipe: Recipe) -> None:
    job = OpenRecipe(recipe, tokens=3000)
    rows = rows_of(job)
    assert len(accepted(rows)) >= 3
    for row in rows:
        assert row.example is not None
        assert (row.example.source, row.example.meta["recipe"]) == ("open_recipe", recipe)
        assert row.example.meta["template"] == job.templates
    for example in accepted(rows):
        assert [turn.role for turn in example.messages] == ["user", "assistant"]
        assert example.messages[0].content.startswith(example.meta["instruction"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_recipe_keeps_two_instructions_that_are_alike(recipe: Recipe) -> None:
    seeds = [*SEEDS, *(asks(f"Say a word about {k} now", f"Document {k}.") for k in range(30))]
    rows = rows_of(OpenRecipe(recipe, tokens=5000), seeds)
    told = list(dict.fromkeys(row.meta["instruction"] for row in accepted(rows)))
    assert reasons(rows)["similar"] > 0
    known = [] if recipe == "reverse" else [seed.messages[0].content for seed in seeds]
    for a, b in [*combinations(told, 2), *product(told, known)]:
        assert rouge_l(rouge_words(a), rouge_words(b)) < 0.7


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_sums_are_those_of_the_replies(recipe: Recipe) -> None:
    class Counting(Talker):
        def complete(self, prompts: Any) -> list[Completion]:
            replies = super().complete(prompts)
            counted.extend(replies)
            return replies

    counted = list[Completion]()
    job = OpenRecipe(recipe, tokens=2000, self_judge=1, ensemble_agree=0.01)
    rows = made(job, SEEDS, {role: Counting(SAYS[role]) for role in job.needs.models})
    assert spent(rows) == sum(r.usage.prompt_tokens + r.usage.completion_tokens for r in counted)
    ended = last(rows).example
    assert ended is not None
    assert ended.meta["replies"] == len(counted)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "reverse"])
def test_a_budget_is_never_exceeded_by_more_than_the_round_that_reaches_it(recipe: Recipe) -> None:
    def run(tokens: int) -> int:
        return spent(rows_of(OpenRecipe(recipe, tokens, batch=2, self_judge=1)))

    rounds = [run(1)]  # what is spent after each round
    while len(rounds) < 4:
        rounds.append(run(rounds[-1] + 1))
    assert rounds == sorted(set(rounds))
    for before, after in pairwise(rounds):
        assert run(before) == before
        assert run((before + after) // 2) == run(after) == after


def test_self_instruct_and_the_two_orders_ask_for_different_things() -> None:
    for recipe, kinds, first in (
        ("self_instruct", True, {0, 1}),
        ("input_first", False, {0}),
        ("output_first", False, {1}),
    ):
        job = OpenRecipe(recipe, tokens=3000)  # type: ignore[arg-type]
        models = models_of(job)
        rows = made(job, SEEDS, models)
        asked = [prompt.messages[0].content for prompt in models["generator"].prompts]
        assert any(text.endswith("Classification:") for text in asked) is kinds
        assert any("classification tasks" in text for text in asked if "Go on" in text) is not kinds
        assert {int(row.meta["output_first"]) for row in accepted(rows)} == first


def test_classification_tasks_are_shown_where_seeds_say_so() -> None:
    marked = [asks(f"Is word {k} long or short", "long", is_classification=True) for k in "xyz"]
    job = OpenRecipe("output_first", tokens=1)
    models = models_of(job)
    rows = made(job, [*SEEDS, *marked], models)
    shown = "\n".join(
        prompt.messages[0].content for prompt in models["generator"].prompts if "Go on" in prompt.messages[0].content
    )
    assert all(seed.messages[0].content in shown for seed in marked)
    assert not any(seed.messages[0].content in shown for seed in SEEDS)
    assert reasons(rows)["not_used"] == len(SEEDS)


def test_instructions_are_answered_by_the_answerer_as_they_are() -> None:
    job = OpenRecipe("instruction_then_answer", tokens=2000)
    models = models_of(job)
    rows = accepted(made(job, SEEDS, models))
    assert [p.messages[0].content for p in models["answerer"].prompts] == [row.meta["instruction"] for row in rows]
    assert all("complete in itself" in prompt.messages[0].content for prompt in models["generator"].prompts)


def test_each_document_is_a_reply_once() -> None:
    rows = rows_of(OpenRecipe("reverse"))
    assert last(rows).reason == "used_up"
    texts = [row.messages[-1].content for row in accepted(rows)]
    assert len(texts) == len(set(texts))
    assert set(texts) <= {seed.messages[-1].content for seed in SEEDS}
    assert len(rows) == len(SEEDS) + 1
    assert reasons(rows)["unusable_document"] > 0


def test_documents_without_a_question_will_do() -> None:
    bare = Example((Message("user", "A text about towns."),), "s")
    empty = Example((Message("assistant", " "),), "s")
    rows = rows_of(OpenRecipe("reverse"), [bare, empty], generator=lambda _: "Write about towns now")
    assert reasons(rows) == {"": 1, "no_document": 1, "used_up": 1}
    [row] = accepted(rows)
    assert [turn.content for turn in row.messages] == ["Write about towns now", "A text about towns."]


def test_a_job_that_gets_nothing_new_ends() -> None:
    for recipe in ("one_completion", "self_instruct"):
        job = OpenRecipe(recipe, patience=2, batch=3)  # type: ignore[arg-type]
        rows = rows_of(job, generator=lambda _: "<unreachable>")
        assert last(rows).reason == "stalled"
        assert reasons(rows)["unreachable"] == 6
        assert spent(rows) == 0
        ended = last(rows).example
        assert ended is not None
        assert (ended.meta["replies"], ended.meta["failed_replies"]) == (6, 6)


def test_a_job_whose_replies_count_no_token_ends_too() -> None:
    class Free(Talker):
        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            return [replace(reply, usage=Usage(0, 0)) for reply in super().complete(prompts)]

    rows = made(OpenRecipe("one_completion", patience=2, batch=3), SEEDS, {"generator": Free(generates)})
    assert last(rows).reason == "stalled"
    assert len(accepted(rows)) > 0


def test_an_instruction_of_a_seed_is_not_new() -> None:
    again = f"Instruction: {SEEDS[3].messages[0].content}\nInput: none\nOutput: It is."
    rows = rows_of(OpenRecipe("one_completion", patience=1), generator=lambda _: again)
    assert reasons(rows)["similar"] == 5
    assert not accepted(rows)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_seed_is_used_or_rejected(recipe: Recipe) -> None:
    silent = Example((Message("user", " "),), "s")
    rows = rows_of(OpenRecipe(recipe, tokens=1, batch=1), [*SEEDS, silent])
    named = {parent for row in rows if row.example for parent in row.example.meta["parents"]}
    assert named == {seed.sample_id for seed in (*SEEDS, silent)}


@given(st.sampled_from(RECIPES), st.permutations(SEEDS), st.integers(0, 1000))
@settings(max_examples=12, deadline=None)
def test_neither_the_order_of_seeds_nor_of_replies_changes_a_row(
    recipe: Recipe, seeds: list[Example], order: int
) -> None:
    job = OpenRecipe(recipe, tokens=1500, self_judge=3)
    models = {role: Shuffled(model, order) for role, model in models_of(job).items()}
    assert sorted(map(repr, made(job, seeds, models))) == sorted(map(repr, rows_of(job)))


# Sections


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Instruction: sort it\nInput: b a\nOutput: a b", ("sort it", "b a", "a b")),
        (
            "**Instruction:** Sort\nit:\n**Input:** None.\n**Output:** a\nb\n\nExample 5\nInstruction: x",
            ("Sort it", "", "a\nb"),
        ),
        ("Sure!\nInstruction: Sort\nInput: N/A\nOutput:", ("Sort", "", "")),
        ("Instruction: Sort\nInput: ?!\nOutput: none", ("Sort", "", "none")),
        ("Instruction: Sort\nInput: none of them\nOutput: x", ("Sort", "none of them", "x")),
        ("Instruction: Sort\nOutput: x", None),
        ("Instruction:\nInput: a\nOutput: x", None),
        ("Input: a\nInstruction: Sort\nOutput: x", None),
    ],
)
def test_sections_are_read_strictly(reply: str, found: tuple[str, str, str] | None) -> None:
    expected = Fault("missing_section", reply[:80]) if found is None else (found[0], Instance(found[1], found[2]))
    assert read_sections(reply) == expected


# Tests of rows


@pytest.mark.parametrize(
    ("reply", "score"),
    [("Score: 4", 4), ("4", 4), ("**Score:** 5", 5), ("score: 3/5", 3), ("Score: 2.", 2), ("Score: 6", None),
     ("Score: 0", None), ("Score: 45", None), ("I give it a 4", None), ("Score: 4 because", None), ("", None)],
)  # fmt: skip
def test_scores_are_read_strictly(reply: str, score: int | None) -> None:
    found = read_score(reply)
    assert (None if isinstance(found, Fault) else found) == score


ROW = (Message("user", "Name three towns"), Message("assistant", "Rome Oslo Bern Paris Lima Bonn Cork Metz Nice Graz"))


def findings(quality: Quality, **says: str) -> tuple[dict[str, Any], str]:
    """What `quality` finds out about `ROW`, and the reason."""
    models = {role: Talker(lambda _, text=text: text) for role, text in says.items()}  # type: ignore[misc]
    [(facts, fault)] = converse([quality.tested(ROW, Tally())], models)
    return facts, fault.reason if fault else ""


@pytest.mark.parametrize(("least", "reason"), [(1, ""), (3, ""), (4, "low_score")])
def test_the_least_score_is_kept(least: int, reason: str) -> None:
    assert findings(Quality(self_judge=least), judge="Score: 3") == ({"judge_score": 3}, reason)


@pytest.mark.parametrize(
    ("second", "agreement", "reason"),
    [
        ("Rome Oslo Bern Paris Lima Bonn Cork x y z", 0.7, ""),
        ("Rome Oslo Bern Paris Lima Bonn w x y z", 0.6, "disagreement"),
    ],
)
def test_the_least_agreement_is_kept(second: str, agreement: float, reason: str) -> None:
    assert findings(Quality(ensemble_agree=0.7), second=second) == ({"agreement": agreement}, reason)


def test_tests_run_in_their_order_and_stop_at_the_first_that_fails() -> None:
    quality = Quality(("refusal",), 3, 0.5)
    assert findings(quality, judge="2") == ({"judge_score": 2}, "low_score")  # nobody asks "second"
    refusing = (ROW[0], Message("assistant", "I am sorry, but I cannot help with that."))
    fault = filtered(refusing, quality.pre_filter)
    assert fault is not None
    assert fault.reason == "refusal"
    assert filtered(ROW, quality.pre_filter) is None
    assert filtered(refusing, ()) is None


@pytest.mark.parametrize(
    ("says", "reason"),
    [("<unreachable>", "judge_unreachable"), ("<length>", "judge_cut_off"), ("fine", "score_missing")],
)
def test_a_judge_that_fails_is_named(says: str, reason: str) -> None:
    assert findings(Quality(self_judge=1), judge=says) == ({}, reason)
    assert reason in OpenRecipe.reasons


def test_a_row_without_reply_of_the_second_model_is_not_kept() -> None:
    assert findings(Quality(ensemble_agree=0.1), second="<filtered>") == ({}, "second_filtered")


# The table


def test_the_query_of_the_docs_gives_one_row_per_job(tmp_path: Path) -> None:
    jobs = [
        OpenRecipe("one_completion", tokens=3000, self_judge=1),
        OpenRecipe("self_instruct", tokens=3000, self_judge=1),
        OpenRecipe("reverse"),
    ]
    expected = {}
    for number, job in enumerate(jobs):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        with (tmp_path / "spool").open("w+b") as spool:
            emitted = Emitted(spool)
            converse([job(SEEDS, np.random.default_rng(0))], models_of(job), emit=emitted)
            write(folder, Maker(folder.name, "open_recipe", {}, 0, {"generator": "m"}, {}), emitted)
        rows = rows_of(job)
        counts = reasons(rows)
        n = counts.total() - 1 - counts["not_used"]
        scores = [row.example.meta["judge_score"] for row in rows if row.example and "judge_score" in row.example.meta]
        expected[job.recipe] = (
            last(rows).reason,
            n,
            counts[""],
            counts["similar"] + counts["duplicate_instance"],
            len(scores),
            spent(rows),
        )
    found = table(tmp_path)
    for recipe, ended, n, count, yield_pct, dup_pct, _, judged, tokens, per_row, usd, usd_per_row in found:
        end, made_n, kept, duplicates, scored, used = expected.pop(recipe)
        assert (ended, n, count, judged, tokens) == (end, made_n, kept, scored, used)
        assert (yield_pct, dup_pct) == (round(100 * kept / n, 1), round(100 * duplicates / n, 1))
        assert per_row == round(used / kept)
        paid = 0.5 if recipe == "one_completion" else None  # only this one has prices
        assert (usd, usd_per_row) == (paid, paid and pytest.approx(paid / kept))
    assert not expected


def table(home: Path) -> list[tuple[Any, ...]]:
    """What the query in the docs says about the jobs below `home`."""
    [query] = re.findall(r"```sql\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW generations AS FROM read_parquet('{home}/*/generations.parquet')")
        connection.execute(
            f"CREATE VIEW rejects AS SELECT split_part(filename, '/', -2) AS pool, * EXCLUDE (filename) "
            f"FROM read_parquet('{home}/*/rejects-synthesis.parquet', filename = true)"
        )
        connection.register("no_attempts", ATTEMPTS.empty_table())
        connection.execute("CREATE TABLE attempts AS FROM no_attempts")
        connection.execute("INSERT INTO attempts (generation, cost_usd) VALUES ('job0', 0.2), ('job0', 0.3)")
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(
    "wrong",
    [
        {"recipe": "best"}, {"recipe": "reverse", "tokens": 0}, {"recipe": "reverse", "self_judge": 6},
        {"recipe": "reverse", "ensemble_agree": 2.0}, {"recipe": "reverse", "pre_filter": ["language"]},
        {"recipe": "reverse", "most_similar": 0}, {"recipe": "reverse", "batch": 0},
        {"recipe": "reverse", "temperature": -0.1},
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        OpenRecipe(**wrong)


def test_roles_and_templates_follow_the_tests() -> None:
    assert OpenRecipe("reverse").needs.models == ("generator",)
    job = OpenRecipe("instruction_then_answer", self_judge=1, ensemble_agree=0.5)
    assert job.needs.models == ("generator", "answerer", "judge", "second")
    assert len({OpenRecipe(recipe, self_judge=k).told for recipe in RECIPES for k in (0, 1)}) == 2 * len(RECIPES)

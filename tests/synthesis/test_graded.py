"""Evolving and grading: what a row says, what is rejected and why, and that the seed of the draw decides everything."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graded_replies import by_length, generator, judge, listed_in, longer, text_in
from hypothesis import given
from hypothesis import strategies as st

from models.canned import CannedModel
from models.converse import Collected, converse
from models.dialogue import Accepted, Rejected
from models.protocol import Completion, Prompt, Usage
from models.scorer import COMPLEXITY, QUALITY
from synthesis.graded import MARKS, REASONS, TELLINGS, Fault, Graded, read_scores
from warehouse.errors import InputError
from warehouse.records import Example, Message


def seeds(n: int) -> list[Example]:
    return [Example((Message("user", f"Sort {i}, {{1}}."), Message("assistant", f"1, {i}")), "s", {}) for i in range(n)]


def made(
    job: Graded, given_seeds: list[Example], seed: int = 0, generator: Any = None, judge: Any = None
) -> list[Accepted | Rejected]:
    taken = Collected()
    models = {"generator": CannedModel(generator or longer), "judge": CannedModel(judge or by_length)}
    rng = np.random.default_rng(seed)
    converse([job(given_seeds, rng)], models, emit=taken)
    return taken.rows()


def reasons(rows: list[Accepted | Rejected]) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Rejected) else "" for row in rows)


@pytest.mark.parametrize("grade", ["complexity", "quality"])
def test_a_seed_gives_a_row_for_each_variant(grade: Any) -> None:
    [seed] = seeds(1)
    rows = [row.example for row in made(Graded(grade), [seed]) if isinstance(row, Accepted)]
    assert [row.meta["step"] for row in rows] == list(range(6))
    assert [row.meta["score"] for row in rows] == [1, 2, 3, 4, 5, 6]  # each step made it longer
    assert [row.messages[1].content for row in rows] == list("123456")
    assert {(row.source, row.meta["seed"], row.meta["grade"]) for row in rows} == {
        (f"deita_{grade}", seed.sample_id, grade)
    }
    assert rows[0].meta["operation"] == ""
    assert {row.meta["operation"] for row in rows[1:]} <= set(TELLINGS[grade].operations)
    more = " more" * 3
    expected = (
        COMPLEXITY.format(instruction=f"Sort 0, {{1}}.{more}")
        if grade == "complexity"
        else QUALITY.format(instruction="Sort 0, {1}.", response=f"1, 0{more}")
    )
    assert rows[3].messages[0] == Message("user", expected)


def test_the_models_are_asked_what_they_should_be() -> None:
    makers, judges = generator(), judge()
    converse(
        [Graded("quality")(seeds(1), np.random.default_rng(0))],
        {"generator": makers, "judge": judges},
        emit=Collected(),
    )
    assert [text_in(prompt) for prompt in makers.prompts] == ["1, 0" + " more" * k for k in range(5)]
    [asked] = judges.prompts
    assert sorted(listed_in(asked)) == ["1, 0" + " more" * k for k in range(6)]
    assert "#Question#:\nSort 0, {1}.\n" in asked.messages[0].content
    assert asked.temperature == 0
    assert all("in one way only" in prompt.messages[0].content for prompt in makers.prompts)
    assert len({prompt.seed for prompt in makers.prompts}) == 5


def test_the_judge_does_not_see_the_order_of_the_steps() -> None:
    judges = judge()
    converse(
        [Graded("complexity")(seeds(20), np.random.default_rng(0))],
        {"generator": generator(), "judge": judges},
        emit=Collected(),
    )
    firsts = Counter(min(range(6), key=lambda i: len(listed_in(p)[i])) for p in judges.prompts)
    assert len(firsts) > 3  # the seed's own text stands in many places


def test_the_same_seed_gives_the_same_rows_and_another_gives_others() -> None:
    first, second, other = (made(Graded("complexity"), seeds(5), seed) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_a_seed_s_rows_do_not_depend_on_those_after_it() -> None:
    assert made(Graded("quality"), seeds(9))[: 2 * 6] == made(Graded("quality"), seeds(2))


class Batches(CannedModel):
    """Keeps how many prompts it was asked at once."""

    def __init__(self, replies: Callable[[Prompt], str]) -> None:
        super().__init__(replies)
        self.sizes: list[int] = []

    def complete(self, prompts: Any) -> list[Completion]:
        self.sizes.append(len(prompts))
        return super().complete(prompts)


def test_dialogues_advance_together() -> None:
    model = Batches(longer)
    converse(
        [Graded("complexity", steps=1)(seeds(4), np.random.default_rng(0))],
        {"generator": model, "judge": judge()},
        emit=Collected(),
    )
    assert model.sizes == [4]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda prompt: " ", "empty"),
        (text_in, "same_as_earlier"),
        (lambda prompt: f"  {text_in(prompt)}\n", "same_as_earlier"),
        (lambda prompt: "word " * 2000, "cut_off"),
        (lambda prompt: f"{MARKS[1]}: {text_in(prompt)} x", "echoes_prompt"),
    ],
)
def test_a_step_that_fails_is_rejected_and_a_seed_alone_is_not_graded(
    reply: Callable[[Prompt], str], reason: str
) -> None:
    assert reasons(made(Graded("complexity"), seeds(3), generator=reply)) == {reason: 15, "nothing_to_rank": 3}


def test_after_a_failed_step_the_last_text_that_stands_is_evolved() -> None:
    calls = iter(range(100))
    rows = made(Graded("complexity"), seeds(1), generator=lambda p: "" if next(calls) in (0, 2) else longer(p))
    kept = [row.example for row in rows if isinstance(row, Accepted)]
    assert [(row.meta["step"], row.meta["score"]) for row in kept] == [(0, 3), (2, 4), (4, 5), (5, 6)]
    assert "Sort 0, {1}. more\n" in kept[1].messages[0].content
    lost = [row for row in rows if isinstance(row, Rejected)]
    assert [(row.reason, row.example and row.example.meta["step"]) for row in lost] == [("empty", 1), ("empty", 3)]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("[1] Score: 2\n[2] Score: 6", [2, 6]),
        ("I think:\n\n  [2] score: 1 \r\n[1]Score:6\nThat is all.", [6, 1]),
        ("[1] Score: 2", "score_missing"),
        ("", "score_missing"),
        ("Score: 1\nScore: 2", "score_missing"),
        ("[1] Score: 2\n[1] Score: 2\n[2] Score: 3", "score_twice"),
        ("[1] Score: 2\n[2] Score: 3\n[3] Score: 1", "score_of_no_variant"),
        ("[0] Score: 2\n[1] Score: 3\n[2] Score: 1", "score_of_no_variant"),
        ("[1] Score: 2\n[2] Score: high", "score_not_a_number"),
        ("[1] Score: 2\n[2] Score:", "score_not_a_number"),
        ("[1] Score: 2\n[2] Score: 3.5", "score_not_a_number"),
        ("[1] Score: 2\n[2] Score: ３", "score_not_a_number"),
        ("[1] Score: 2\n[2] Score: 7", "score_out_of_range"),
        ("[1] Score: 2\n[2] Score: 0", "score_out_of_range"),
        ("[1] Score: -2\n[2] Score: 1", "score_out_of_range"),
        (f"[1] Score: {'9' * 5000}\n[2] Score: 1", "score_not_a_number"),
    ],
)
def test_answers_are_read_strictly(answer: str, found: Any) -> None:
    read = read_scores(answer, 2)
    assert (read.reason if isinstance(read, Fault) else read) == found


@given(st.text())
def test_any_answer_is_read_or_refused_for_a_known_reason(answer: str) -> None:
    read = read_scores(answer, 2)
    assert read.reason in REASONS if isinstance(read, Fault) else len(read) == 2


@given(scores=st.lists(st.integers(1, 6), min_size=1, max_size=9), order=st.randoms())
def test_scores_are_read_in_any_order_of_lines(scores: list[int], order: Any) -> None:
    lines = [f"[{i}] Score: {score}" for i, score in enumerate(scores, 1)]
    order.shuffle(lines)
    assert read_scores("\n".join(lines), len(scores)) == scores


def test_an_answer_that_cannot_be_read_rejects_all_its_variants_with_their_texts() -> None:
    rows = made(Graded("quality"), seeds(2), judge=lambda prompt: "They are all good.")
    assert reasons(rows) == {"score_missing": 12}
    texts = [row.example.messages[0].content for row in rows if isinstance(row, Rejected) and row.example]
    assert texts[:6] == ["1, 0" + " more" * k for k in range(6)]


class Cut(CannedModel):
    """A model that loses the beginning of every prompt."""

    def complete(self, prompts: Any) -> list[Completion]:
        return [Completion("x", "stop", Usage(1, 1), truncated=True) for _ in prompts]


def test_what_a_model_did_not_see_whole_is_not_used() -> None:
    for role, expected in (
        ("generator", {"prompt_too_long": 5, "nothing_to_rank": 1}),
        ("judge", {"judge_prompt_too_long": 6}),
    ):
        taken = Collected()
        models = {"generator": generator(), "judge": judge()} | {role: Cut({})}
        converse([Graded("complexity")(seeds(1), np.random.default_rng(0))], models, emit=taken)
        assert reasons(taken.rows()) == expected


def test_a_seed_without_what_is_graded_is_rejected() -> None:
    silent = Example((Message("user", "Sort."),), "s", {})
    unasked = Example((Message("assistant", "Sorted."),), "s", {})
    assert reasons(made(Graded("quality"), [silent, unasked])) == {"no_response": 6, "no_instruction": 6}
    assert reasons(made(Graded("complexity"), [silent, unasked])) == {"": 6, "no_instruction": 6}


@given(
    faults=st.lists(st.sampled_from(["", "fine"]), min_size=1, max_size=9),
    answers=st.lists(st.sampled_from(["nothing", "fine"]), min_size=1, max_size=4),
    steps=st.integers(1, 6),
    n=st.integers(0, 5),
)
def test_every_seed_gives_as_many_rows_as_it_has_steps_and_itself(
    faults: list[str], answers: list[str], steps: int, n: int
) -> None:
    asked, judged = iter(faults * 99), iter(answers * 99)
    rows = made(
        Graded("complexity", steps),
        seeds(n),
        generator=lambda prompt: next(asked) and longer(prompt),
        judge=lambda prompt: by_length(prompt) if next(judged) == "fine" else "",
    )
    assert len(rows) == n * (steps + 1)
    assert set(reasons(rows)) <= {"", *REASONS}


def test_a_crash_keeps_what_was_emitted() -> None:
    taken = Collected()
    unasked = Example((Message("assistant", "Sorted."),), "s", {})
    job = Graded("complexity", steps=1)([unasked, *seeds(1)], np.random.default_rng(0))
    with pytest.raises(InputError, match="no canned reply"):
        converse([job], {"generator": CannedModel({}), "judge": judge()}, emit=taken)
    assert reasons(taken.rows()) == {"no_instruction": 2}


def test_wrong_parameters_are_named() -> None:
    with pytest.raises(InputError, match="unknown grade 'charm'; known grades: complexity, quality"):
        Graded("charm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps is 0"):
        Graded("quality", steps=0)


def test_what_models_are_told_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Graded("quality").told
    assert before != Graded("complexity").told
    monkeypatch.setitem(TELLINGS, "quality", TELLINGS["complexity"])
    assert Graded("quality").told == Graded("complexity").told


def test_making_rows_loads_no_heavy_library() -> None:
    code = "import sys, synthesis.graded; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

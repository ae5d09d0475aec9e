"""Matched inputs: what is accepted, that the job always ends and says why, and the measures by worked numbers."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from attempt_worlds import Rows, Talker, accepted, asks, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Rejected
from models.protocol import Measures, Prompt, Vectors, Want
from synthesis.discriminator import area_under_curve, best_threshold, logistic, nearest
from synthesis.matched import Matched
from synthesis.mimics import listed, references
from synthesis.mmd import median_distance, squared_mmd
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages

SEEDS = [asks(f"Add {i} and {i * 7 % 10}.", "a sum") for i in range(40)]


class Topics:
    """Sums lie around one point, all else around another, with noise that is a function of the text."""

    fingerprint = "topics"

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = []
        for text in texts:
            noise = np.random.default_rng(sum(text.encode()) * 7919 + len(text)).normal(0, 0.3, 4)
            rows.append([1.0, 0.0, *noise] if text.startswith("Add") else [0.0, 1.0, *noise])
        vectors = np.array(rows, np.float32).reshape(-1, 6)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def mixed(prompt: Prompt) -> str:
    """Three of five inputs are sums."""
    return "Sure!\n" + "\n".join(
        f"{6 + i}. {'Add' if i < 3 else 'Sing of'} {prompt.draw} and {100 + i}." for i in range(5)
    )


def off(prompt: Prompt) -> str:
    return "\n".join(f"{6 + i}. Sing of {prompt.draw} and {i}." for i in range(5))


class YesNo(Talker):
    """Finds "yes" likelier for sums."""

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        found = [np.array([-1.0 if (row[-1].content == "yes") == ("Add" in row[0].content) else -3.0]) for row in rows]
        logprobs = [each.astype(np.float32) for each in found]
        return Measures(np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_), response_logprobs=logprobs)


def job(**more: Any) -> Matched:
    return Matched(**{"rows": 30, "pilot": 30, "patience": 50, "budget": 1000, **more})


def rows_of(
    matched: Matched, says: Callable[[Prompt], str] = mixed, seeds: list[Example] | None = None, **more: Any
) -> Rows:
    models = {
        "generator": Talker(says),
        "teacher": Talker(more.pop("teacher", lambda prompt: f"Answer to {prompt.messages[0].content}")),
        "discriminator": YesNo(
            more.pop("judge", lambda prompt: "Yes." if "Add" in prompt.messages[0].content else "No")
        ),
    }
    return made(matched, SEEDS if seeds is None else seeds, models, encoders={"encoder": Topics()}, **more)


def judged_by_embeddings(discriminator: str) -> bool:
    return discriminator in ("logistic", "knn")


@pytest.mark.parametrize("discriminator", ["logistic", "knn", "likelihood", "reply"])
def test_inputs_like_the_references_are_kept_and_answered(discriminator: Any) -> None:
    rows = rows_of(job(discriminator=discriminator))
    kept = accepted(rows)
    texts = [row.messages[0].content for row in kept]
    assert len(set(texts)) == 30
    assert all(text.startswith("Add") for text in texts)
    assert all(row.messages[1].content == f"Answer to {row.messages[0].content}" for row in kept)
    assert set(texts).isdisjoint(seed.messages[0].content for seed in SEEDS)
    match = kept[0].meta["match"]
    assert all(row.meta["match"] == match for row in kept)
    assert match["discriminator"] == discriminator
    assert 0.5 < match["auc"] < 1
    assert match["mmd2_after"] < match["mmd2_before"]
    assert (match["judged"], match["accepted"]) == (30 + reasons(rows)["unlike"] + reasons(rows)["enough"], 30)
    unlike = [row.example.messages[0].content[:4] for row in rows if isinstance(row, Rejected) and row.example
              and row.reason == "unlike"]  # fmt: skip
    assert unlike.count("Sing") > (0.5 if judged_by_embeddings(discriminator) else 0.99) * len(unlike) > 0


def test_rows_say_where_they_come_from() -> None:
    matched = job()
    rows = rows_of(matched)
    parents = {tuple(row.meta["parents"]) for row in accepted(rows)}
    [shown] = parents
    assert len(shown) == 5
    unused = [row.example.sample_id for row in rows if isinstance(row, Rejected) and row.example
              and row.reason == "reference"]  # fmt: skip
    assert sorted([*shown, *unused]) == sorted(seed.sample_id for seed in SEEDS)  # each seed ends somewhere
    assert all(row.meta["template"] == matched.templates for row in accepted(rows))
    assert reasons(rows)["pilot"] == 30


def test_the_generator_is_shown_the_demonstrations_and_each_call_is_a_draw_of_its_own() -> None:
    model = Talker(mixed)
    models = {"generator": model, "teacher": Talker(lambda _: "x")}
    [shown] = {
        tuple(row.meta["parents"]) for row in accepted(made(job(), SEEDS, models, encoders={"encoder": Topics()}))
    }
    texts = [seed.messages[0].content for name in shown for seed in SEEDS if seed.sample_id == name]
    listing = "\n\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))
    assert all(listing in prompt.messages[0].content for prompt in model.prompts)
    assert "examples 6 to 10" in model.prompts[0].messages[0].content.replace("\n", " ")
    assert [prompt.draw for prompt in model.prompts] == list(range(1, len(model.prompts) + 1))


def test_a_generator_that_is_far_off_ends_with_a_diagnosis() -> None:
    rows = rows_of(job(), off)
    [end] = [row for row in rows if isinstance(row, Rejected) and row.reason == "acceptance_too_low"]
    assert not accepted(rows)
    assert '"auc":1.0' in end.detail
    assert "another generator" in end.detail
    assert reasons(rows)["reference"] == len(SEEDS)


def test_a_budget_is_never_exceeded_and_its_end_is_said() -> None:
    model = Talker(mixed)
    models = {"generator": model, "teacher": Talker(lambda _: "x")}
    rows = made(job(rows=100, budget=100), SEEDS, models, encoders={"encoder": Topics()})
    assert len(model.prompts) == 20  # of five inputs each
    assert reasons(rows)["budget_spent"] == 1
    assert 0 < len(accepted(rows)) < 100


@pytest.mark.parametrize("reply", ["<unreachable>", "No list here.", "<length>", "6. Add 1 and 7.\n7. Add 2 and 4."])
def test_a_generator_that_gives_nothing_new_ends_the_job(reply: str) -> None:
    rows = rows_of(job(), lambda _: reply)
    assert not accepted(rows)
    assert reasons(rows)["too_few_candidates"] == 1
    assert reasons(rows).keys() & {"unreachable", "unreadable", "cut_off", "copy"}


def test_every_input_that_was_read_ends_in_one_row() -> None:
    rows = rows_of(job(), lambda p: mixed(p) + "\n11. Add 1 and 7.\n12. ADD  1 and 101.")
    found = reasons(rows)
    calls = accepted(rows)[0].meta["match"]["calls"]
    of_replies = ("", "pilot", "unlike", "enough", "copy", "duplicate")
    assert sum(found[reason] for reason in of_replies) == 7 * calls
    assert found["copy"] == calls
    assert found["duplicate"] == calls  # what the first call wrote, in other letters


def test_an_answer_that_fails_is_no_row() -> None:
    def teacher(prompt: Prompt) -> str:
        return (
            "<filtered>"
            if "100" in prompt.messages[0].content
            else "<length>"
            if "101" in prompt.messages[0].content
            else "Fine."
        )

    rows = rows_of(job(), teacher=teacher)
    found = reasons(rows)
    assert found["filtered"] + found["cut_off"] + len(accepted(rows)) == 30
    assert min(found["filtered"], found["cut_off"]) > 0


def test_an_answer_of_the_discriminator_that_is_no_yes_and_no_no_rejects() -> None:
    rows = rows_of(
        job(discriminator="reply"), judge=lambda p: "Hard to say" if "100" in p.messages[0].content else "yes"
    )
    assert reasons(rows)["unreadable_verdict"] > 0
    assert not any("100" in row.messages[0].content for row in accepted(rows))


def test_seeds_of_no_use_are_said_and_too_few_are_an_error() -> None:
    odd = [
        Example((Message("system", "x"),), "s"),
        Example((*SEEDS[0].messages, Message("user", "And?")), "s"),
        SEEDS[1],
    ]
    rows = rows_of(job(), seeds=[*SEEDS, *odd])
    assert {reason: reasons(rows)[reason] for reason in ("no_question", "several_turns")} == {
        "no_question": 1, "several_turns": 1,
    }  # fmt: skip
    assert len(references([*SEEDS, SEEDS[1]])[1]) == 1
    with pytest.raises(InputError, match="12 different inputs"):
        rows_of(job(), seeds=SEEDS[:12])


@pytest.mark.parametrize("wave", [1, 3])
def test_the_order_of_the_seeds_changes_nothing(wave: int) -> None:
    def texts(rows: Rows) -> list[str]:
        return sorted(repr(row) for row in rows)

    assert texts(rows_of(job(), seeds=SEEDS[::-1], wave=wave)) == texts(rows_of(job()))
    assert texts(rows_of(job(), seed=1)) != texts(rows_of(job()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"discriminator": "oracle"}, {"rows": 0}, {"demonstrations": 10}, {"shown": 100}, {"held_out": 1.0},
        {"pilot": 3}, {"budget": 10}, {"patience": 0}, {"temperature": 0.0}, {"neighbours": 0},
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        job(**wrong)


def test_roles() -> None:
    assert job().needs.models == ("generator", "teacher")
    assert job(discriminator="reply").needs.models == ("generator", "teacher", "discriminator")
    assert job(discriminator="likelihood").needs.scored == ("discriminator",)
    assert job(discriminator="reply").told != job().told == job(discriminator="knn").told


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("6. One\n7. Two", ["One", "Two"]),
        ("Here:\n\n6) One\nand on\n\n7) Two\n", ["One\nand on", "Two"]),
        ("**6.** One\n**7.** Two", ["One", "Two"]),
        ("6. Sort:\n1. b\n2. a\n7. Two", ["Sort:\n1. b\n2. a", "Two"]),  # a list inside an item
        ("1. One\n2. Two", ["One", "Two"]),
        ("6. \n7. Two", ["Two"]),
        ("6.5 is a number", []),
        ("", []),
    ],
)
def test_numbered_lists_are_read(reply: str, items: list[str]) -> None:
    assert listed(reply) == items


@settings(deadline=None)
@given(st.lists(st.text("ab \n", min_size=1).filter(str.strip), max_size=6))
def test_a_list_that_is_written_is_read(items: list[str]) -> None:
    reply = "\n".join(f"{i}. {item}" for i, item in enumerate(items, 6))
    assert listed(reply) == [item.strip() for item in items]


# --- measures


def test_mmd_by_hand() -> None:
    x, y = np.array([[0.0], [1.0]], np.float32), np.array([[0.0], [2.0]], np.float32)
    k = [math.exp(-d / 2) for d in (0, 1, 4)]
    assert squared_mmd(x, y, 1.0) == pytest.approx(k[1] + k[2] - 2 * (k[0] + k[2] + k[1] + k[1]) / 4)
    assert squared_mmd(x[:1], y, 1.0) is None
    assert median_distance(np.array([[0.0], [1.0], [3.0]], np.float32)) == pytest.approx(2.0)
    assert median_distance(np.zeros((4, 2), np.float32)) == 1.0
    assert median_distance(np.zeros((1, 2), np.float32)) == 1.0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_mmd_is_symmetric_and_told_apart_by_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, z = (rng.normal(shift, 1, (40, 3)).astype(np.float32) for shift in (0, 0, 3))
    near, far = squared_mmd(x, y, 2.0), squared_mmd(x, z, 2.0)
    assert near is not None
    assert far is not None
    assert near == pytest.approx(squared_mmd(y, x, 2.0), abs=1e-12)
    assert near < far


def test_mmd_of_one_distribution_is_0_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(0, 1, (300, 2, 20, 2)).astype(np.float32)
    values = np.array([squared_mmd(x, y, 1.0) for x, y in pairs], np.float64)
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(300)
    assert (values < 0).any()


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_the_area_is_the_chance_to_rank_right_and_the_threshold_the_best(real: list[float], other: list[float]) -> None:
    a, b = np.array(real), np.array(other)
    wins = (a[:, None] > b[None, :]).mean() + (a[:, None] == b[None, :]).mean() / 2
    assert area_under_curve(a, b) == pytest.approx(float(wins))

    def gain(threshold: float) -> float:
        return float((a >= threshold).mean() - (b >= threshold).mean())

    found = best_threshold(a, b)
    best = max(gain(t) for t in [*real, *other])
    assert gain(found) == pytest.approx(max(best, 0.0))


def test_scorers_by_hand() -> None:
    real = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert nearest(real, 1)(np.array([[1, 0], [0, 1]], np.float32)) == pytest.approx([1.0, 0.8])
    assert nearest(real, 9)(np.array([[1, 0]], np.float32)) == pytest.approx([0.8])
    scores = logistic(real, -real)(np.array([[1, 0], [0, 0], [-1, 0]], np.float32))
    assert scores[0] > 0
    assert scores == pytest.approx([scores[0], 0, -scores[0]], abs=1e-3)

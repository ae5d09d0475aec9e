"""R-Tuning: which rows are sure, by worked examples of every kind, and that probes are kept and nothing is lost."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from attempt_worlds import Rows, SameText, Talker, accepted, asks, made, reasons
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Accepted, Rejected
from models.protocol import Prompt
from models.sureness import with_sureness
from synthesis.r_tuning import REFUSALS, RTuning, entropy, shares, within_share
from synthesis.squad import best_f1, f1, normalised
from warehouse.errors import InputError
from warehouse.records import Example, Message

ASKED = "Are you sure you accurately answered the question based on your internal knowledge?"
FRANCE = asks("Capital of France?", "Paris")
PERU = asks("Capital of Peru?", "Lima")
CHAD = asks("Capital of Chad?", "N'Djamena")

SAMPLES = {
    "Capital of France?": ["Paris", "paris.", "the Paris", "Paris"],  # one answer in four spellings
    "Capital of Peru?": ["Quito", "Lima", "Quito", "Lima"],
    "Capital of Nowhere?": ["None"] * 4,
    "Capital of Chad?": ["Sarh", "Abéché", "Moundou", "Doba"],
}


def says(prompt: Prompt) -> str:
    """Greedy: France is known, Peru and Chad are not. Draws 1 to 4 are as in `SAMPLES`."""
    drawn = SAMPLES[prompt.messages[-1].content]
    return drawn[prompt.draw - 1] if prompt.draw else drawn[0]


def learner(reply: Callable[[Prompt], str] = says) -> Talker:
    return Talker(reply)


def rows_of(job: RTuning, seeds: list[Example], model: Talker | None = None, **more: Any) -> Rows:
    return made(job, seeds, {"learner": model or learner()}, **more)


def test_the_gold_reply_is_kept_and_the_model_is_sure_of_what_it_knew() -> None:
    rows = accepted(rows_of(RTuning(samples=4), [FRANCE, PERU]))
    assert [row.messages[-1].content for row in rows] == [f"Paris. {ASKED} I am sure.", f"Lima. {ASKED} I am unsure."]
    assert [row.messages[:-1] for row in rows] == [FRANCE.messages[:-1], PERU.messages[:-1]]


def test_replacement_gives_a_refusal_for_what_is_not_known() -> None:
    refusals = REFUSALS().splitlines()
    assert len(refusals) == len(set(refusals)) == 16
    seeds = [asks(f"Capital of {i}?", "Lima") for i in range(300)]
    rows = accepted(rows_of(RTuning("replacement", samples=0), [FRANCE, *seeds], learner(lambda _: "Paris")))
    assert rows[0].messages[-1].content == "Paris"
    drawn = Counter(row.messages[-1].content for row in rows[1:])
    assert set(drawn) == set(refusals)  # 300 draws of 16


def test_unsupervised_is_sure_where_the_samples_agree_whatever_is_right() -> None:
    france = asks("Capital of France?", "Lyon")  # agreed upon, and wrong
    rows = accepted(rows_of(RTuning("unsupervised", samples=4), [CHAD, france, PERU]))
    assert {row.messages[0].content: row.meta["sure"] for row in rows} == {
        "Capital of France?": True,
        "Capital of Peru?": False,  # the middle one of three
        "Capital of Chad?": False,
    }
    assert [row.meta["known"] for row in rows] == [False, False, False]


def test_probes_are_kept_with_what_they_say() -> None:
    france, peru, chad = (row.meta for row in accepted(rows_of(RTuning(samples=4), [FRANCE, PERU, CHAD])))
    assert (france["pass_rate"], peru["pass_rate"], chad["pass_rate"]) == (1.0, 0.5, 0.0)
    assert (france["entropy"], peru["entropy"], chad["entropy"]) == pytest.approx((0.0, math.log(2), math.log(4)))
    assert (france["margin"], peru["margin"], chad["margin"]) == (1.0, 0.0, 0.0)
    assert france["probe_answers"] == ["Paris", "Paris", "paris.", "the Paris", "Paris"]  # greedy first
    assert france["probe_found"] == ["paris"] * 5
    assert peru["probe_right"] == [False, False, True, False, True]
    assert peru["probe_scores"] == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert france["parents"] == [FRANCE.sample_id]
    assert france["template"] == RTuning().templates
    assert france["probe"] == {"samples": 4, "temperature": 0.7, "max_tokens": 64, "stop": ["\n"]}


def test_draws_are_told_apart_and_the_first_is_greedy() -> None:
    model = learner()
    rows_of(RTuning(samples=4), [FRANCE], model)
    assert [(p.draw, p.temperature) for p in model.prompts] == [(0, 0.0), (1, 0.7), (2, 0.7), (3, 0.7), (4, 0.7)]
    assert len({p.seed for p in model.prompts[1:]}) == 1


def test_without_samples_there_is_no_rate() -> None:
    [row] = accepted(rows_of(RTuning(samples=0), [FRANCE]))
    assert (row.meta["pass_rate"], row.meta["entropy"], row.meta["margin"]) == (None, None, None)


@pytest.mark.parametrize(
    ("reply", "gold", "right"),
    [
        ("RUSsia", "US", False),  # no match inside a word
        ("the U.S.", "US", True),
        ("3.5", "35", False),  # the reference implementation of SQuAD drops the point
        ("It's -5.", "its -5", True),
        ("-5", "5", False),
        ("1,000", "1000", True),
        ("William Henry Gates", "William Gates", True),  # F1 = 0.8
        ("William Henry Gates III", "William Gates", False),  # F1 = 2/3
    ],
)
def test_what_counts_as_known(reply: str, gold: str, right: bool) -> None:
    [row] = accepted(rows_of(RTuning(samples=0), [asks("Who?", gold)], learner(lambda _: reply)))
    assert row.meta["known"] is right


def test_an_alias_is_right_too() -> None:
    [row] = accepted(
        rows_of(
            RTuning(samples=0),
            [asks("Who?", "Mark Twain", aliases=["Samuel Clemens"])],
            learner(lambda _: "samuel clemens"),
        )
    )
    assert row.meta["known"] is True


def test_a_reply_that_is_cut_off_is_wrong_and_kept() -> None:
    [row] = accepted(rows_of(RTuning(samples=0), [asks("Who?", "and so on and")], learner(lambda _: "<length>")))
    assert (row.meta["known"], row.meta["probe_answers"]) == (False, ["and so on and"])


def test_a_named_verifier_decides() -> None:
    judge = SameText()
    job = RTuning(samples=4, verifier="exact")
    rows = accepted(rows_of(job, [FRANCE, PERU], verifiers={"exact": judge}))
    assert [row.meta["known"] for row in rows] == [True, False]
    assert len(judge.asked) == 10
    assert rows[1].meta["probe_found"] == ["something else", "something else", "Lima", "something else", "Lima"]


@pytest.mark.parametrize("kind", ["unsure", "replacement", "unsupervised"])
def test_every_seed_ends_in_one_row(kind: Any) -> None:
    silent = Example((Message("user", "Why?"),), "s")
    unasked = Example((Message("assistant", "Because."),), "s")
    blank = asks("What?", " ")
    gone = asks("Capital of Nowhere?", "None")
    model = learner(lambda p: "<unreachable>" if "Nowhere" in p.messages[0].content and p.draw == 2 else says(p))
    rows = rows_of(RTuning(kind, samples=4), [FRANCE, silent, unasked, blank, gone, PERU], model)
    assert reasons(rows) == {"": 2, "no_reply": 2, "no_question": 1, "unreachable": 1}
    [lost] = [row for row in rows if isinstance(row, Rejected) and row.reason == "unreachable"]
    assert lost.detail == "as told"
    assert lost.example is not None
    assert lost.example.meta == {"parents": [gone.sample_id], "template": []}


def test_no_class_has_more_than_its_share() -> None:
    seeds = [asks(f"Capital of {i}?", "Paris" if i < 30 else "Lima") for i in range(40)]
    rows = rows_of(RTuning(samples=0, max_share=0.6), seeds, learner(lambda _: "Paris"))
    assert Counter(row.meta["sure"] for row in accepted(rows)) == {True: 15, False: 10}
    assert reasons(rows)["over_share"] == 15
    assert all(row.example is not None for row in rows)  # what is too many is kept with its probe


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.sampled_from([0.5, 0.6, 0.75, 0.9]))
def test_shares_are_kept_and_the_rare_class_whole(sure: list[bool], most: float) -> None:
    kept = within_share(sure, [i * 0.61803 % 1 for i in range(len(sure))], most)
    left = Counter(yes for yes, keep in zip(sure, kept, strict=True) if keep)
    if len(set(sure)) == 2:
        rare = min(Counter(sure).values())
        assert min(left.values()) == rare
        assert max(left.values()) <= most * left.total() + 1e-9
        assert max(left.values()) == max(Counter(sure).values()) or max(left.values()) + 1 > most * (left.total() + 1)
    else:
        assert all(kept)


@settings(deadline=None, max_examples=30)
@given(st.permutations([FRANCE, PERU, CHAD, asks("Capital of France?", "Lyon")]), st.integers(1, 4))
def test_the_order_of_the_seeds_and_the_wave_only_order_the_rows(seeds: list[Example], wave: int) -> None:
    def texts(rows: Rows) -> list[str]:
        return sorted(repr(row) for row in rows)

    for job in (RTuning("replacement", samples=4), RTuning("unsupervised", samples=4, max_share=0.5)):
        first = rows_of(job, [FRANCE, PERU, CHAD, asks("Capital of France?", "Lyon")])
        assert texts(rows_of(job, seeds, wave=wave)) == texts(first)


def test_a_seed_more_changes_no_other_row() -> None:
    one, two = learner(), learner()
    assert (
        rows_of(RTuning(samples=4), [FRANCE, PERU], one) == rows_of(RTuning(samples=4), [CHAD, FRANCE, PERU], two)[1:]
    )
    assert set(one.prompts) < set(two.prompts)


def test_rows_that_need_no_other_are_handed_out_at_once() -> None:
    rows = rows_of(RTuning(samples=0), [FRANCE, PERU])
    assert all(isinstance(row, Accepted) for row in rows)
    assert not RTuning().waits
    assert RTuning(max_share=0.5).waits


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "certain"}, {"samples": -1}, {"kind": "unsupervised", "samples": 1}, {"temperature": 0.0},
        {"least_f1": 0.0}, {"max_share": 0.4}, {"verifier": "nobody"},
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RTuning(**wrong)


def test_what_is_told_is_part_of_the_key() -> None:
    assert RTuning("unsure").told == RTuning("unsupervised").told != RTuning("replacement").told
    assert RTuning("unsure", verifier="judge").told != RTuning("unsure").told


def test_entropy_by_hand() -> None:
    assert shares(["a", "b", "a", "a"]) == (0.75, 0.25)
    assert entropy((0.75, 0.25)) == pytest.approx(0.5623351446188083)
    assert entropy(shares(["a"])) == 0.0
    assert shares([]) == ()


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_f1_is_symmetric_and_whole_for_equal_texts(a: str, b: str) -> None:
    assert f1(a, b) == f1(b, a)
    assert f1(a, a) == (1.0 if normalised(a) else 0.0)
    assert 0 <= best_f1(a, (a, b)) <= 1


def test_f1_by_hand() -> None:
    assert f1("the cat sat", "A cat sat down") == pytest.approx(2 * (1 * 2 / 3) / (1 + 2 / 3))
    assert best_f1("x", ()) == 0.0
    assert normalised("The") == "the"


def test_a_reply_that_has_an_end_gets_no_other() -> None:
    assert with_sureness("Yes!", True).startswith("Yes! Are you")
    assert with_sureness("It is 4 ", False).startswith("It is 4. Are you")

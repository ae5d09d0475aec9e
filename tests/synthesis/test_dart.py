"""DART with a sampler whose pass rates are known: trials, targets, budgets, and that nothing depends on order."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.canned import CannedModel
from models.converse import Collected, converse
from models.dialogue import Accepted, Rejected
from models.protocol import Completion, Prompt, Usage
from models.verify.mathematics import Mathematics
from models.verify.table import VERIFIERS
from synthesis.dart import Dart
from warehouse.errors import InputError
from warehouse.records import Example, Message, digest

Rows = list[Accepted | Rejected]
FACTS = ("trials", "correct", "kept", "target", "ended", "pass_rate")
JOB = Dart(verifier="exact", pilot=8, k=8)


def query(name: str, p: float) -> Example:
    turns = (Message("user", json.dumps([name, p])), Message("assistant", "the answer is yes"))
    return Example(turns, "s", {"answer": "yes"})


def chance(prompt: Prompt) -> float:
    """A number in [0, 1) that is a function of the prompt and its draw."""
    return int(digest(f"{prompt.messages} {prompt.draw} {prompt.seed}")[:8], 16) / 2**32


def bernoulli(prompt: Prompt) -> str:
    """Right with the probability that stands in the question; every right reply is worded in its own way."""
    _, p = json.loads(prompt.messages[-1].content)
    right = chance(prompt) < p
    words = random.Random(prompt.draw).sample(range(1000), 12)
    return f"thoughts {words}\nthe answer is {'yes' if right else f'no{chance(prompt)}'}"


class Stored(CannedModel):
    """A sampler behind a response store: `asked` are the prompts that it had not answered before."""

    def __init__(self, replies: Callable[[Prompt], str], store: dict[Prompt, Completion] | None = None) -> None:
        super().__init__(replies)
        self.store = {} if store is None else store
        self.asked: list[Prompt] = []

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        new = [prompt for prompt in prompts if prompt not in self.store]
        self.asked += new
        self.store |= zip(new, super().complete(new), strict=True)
        return [self.store[prompt] for prompt in prompts]


def made(job: Dart, seeds: Sequence[Example], model: Any = None, seed: int = 0) -> Rows:
    taken = Collected()
    generator = model or Stored(bernoulli)
    rng = np.random.default_rng(seed)
    verifiers = {job.verifier: VERIFIERS[job.verifier]()}
    converse([job(seeds, rng)], {"learner": generator}, emit=taken, verifiers=verifiers)
    return taken.rows()


def of(rows: Rows, seed: Example) -> Rows:
    name = seed.sample_id
    return [row for row in rows if row.example and row.example.meta["query_id"] == name]


def kept(rows: Rows) -> list[Example]:
    return [row.example for row in rows if isinstance(row, Accepted)]


def reasons(rows: Rows) -> Counter[str]:
    return Counter(row.reason if isinstance(row, Rejected) else "" for row in rows)


def facts(rows: Rows, seed: Example) -> dict[str, Any]:
    """What the last rows of a query say about it."""
    last = [row.example.meta for row in of(rows, seed) if row.example and "trials" in row.example.meta]
    found = [{name: meta[name] for name in FACTS} for meta in last]
    assert all(one == found[0] for one in found)
    return found[0]


def key(row: Accepted | Rejected) -> str:
    assert row.example
    return json.dumps([getattr(row, "reason", ""), row.example.sample_id, dict(row.example.meta)], sort_keys=True)


SEEDS = [query(f"q{i}", i / 10) for i in range(11)]


def test_uniform_keeps_exactly_k_and_stops_asking_then() -> None:
    model = Stored(bernoulli)
    rows = made(replace(JOB, strategy="uniform", k=5, max_trials=500), SEEDS[1:], model)
    for seed in SEEDS[1:]:
        assert len(kept(of(rows, seed))) == 5
        said = facts(rows, seed)
        assert (said["ended"], said["target"], said["kept"]) == ("target", 5, 5)
        assert said["trials"] == sum(prompt.messages[-1] == seed.messages[0] for prompt in model.asked)
    assert facts(rows, SEEDS[10])["trials"] == 5  # a query that never fails: k trials, none more
    assert "surplus" not in reasons(of(rows, SEEDS[10]))


def test_prop2diff_targets_are_k_times_the_fail_rate_of_the_pilot() -> None:
    rows = made(replace(JOB, k=20, max_trials=2000), SEEDS[1:])
    for seed in SEEDS[1:]:
        pilot = [bool(chance_of(seed, draw) < json.loads(seed.messages[0].content)[1]) for draw in range(8)]
        expected = max(1, -(-20 * (8 - sum(pilot)) // 8))
        said = facts(rows, seed)
        assert (said["target"], said["kept"], len(kept(of(rows, seed)))) == (expected, expected, expected)
    assert facts(rows, SEEDS[10])["kept"] == 1
    assert reasons(of(rows, SEEDS[10])) == {"": 1, "surplus": 7}


def chance_of(seed: Example, draw: int) -> float:
    stream = int(np.random.default_rng(0).integers(2**31))
    job_seed = int(digest(f"{stream} {seed.sample_id}")[:8], 16) % 2**31
    return chance(Prompt((seed.messages[0],), JOB.max_tokens, JOB.temperature, JOB.top_p, seed=job_seed, draw=draw))


def test_vrt_tries_each_query_k_times_and_keeps_all_that_is_right() -> None:
    model = Stored(bernoulli)
    rows = made(replace(JOB, strategy="vrt", k=52), SEEDS, model)
    assert len(model.asked) == 52 * len(SEEDS)
    assert reasons(rows)[""] == sum(facts(rows, seed)["correct"] for seed in SEEDS)
    assert reasons(of(rows, SEEDS[10])) == {"": 52}


@pytest.mark.parametrize("p", [0.1, 0.3, 0.7, 0.95])
def test_trials_are_about_the_target_over_the_pass_rate(p: float) -> None:
    """A target of t takes t / p trials in expectation if they are made one by one; rounds cost a few more."""
    seeds = [query(f"n{i}", p) for i in range(80)]
    rows = made(replace(JOB, strategy="uniform", k=6, max_trials=4000), seeds)
    trials = [facts(rows, seed)["trials"] for seed in seeds]
    error = 4 * np.std(trials) / len(seeds) ** 0.5
    assert 6 / p - error <= np.mean(trials) <= 1.2 * 6 / p + 1 + error


def test_a_hopeless_query_ends_at_the_cap_and_is_reported() -> None:
    model = Stored(bernoulli)
    rows = made(replace(JOB, max_trials=21), [SEEDS[0]], model)
    assert len(model.asked) == 21
    assert sorted(prompt.draw for prompt in model.asked) == list(range(21))
    assert reasons(rows) == {"wrong": 21, "uncovered": 1}
    assert facts(rows, SEEDS[0]) == {
        "trials": 21, "correct": 0, "kept": 0, "target": 8, "ended": "max_trials", "pass_rate": 0.0,
    }  # fmt: skip


def test_a_hopeless_query_can_be_filled_with_its_reference() -> None:
    rows = made(replace(JOB, back_fill=True), [SEEDS[0], SEEDS[9]])
    filled = [row for row in kept(rows) if row.meta["back_filled"]]
    assert [row.messages for row in filled] == [SEEDS[0].messages]
    assert reasons(rows)["uncovered"] == 1
    assert filled[0].meta["parents"] == [SEEDS[0].sample_id]


def test_replies_that_agree_on_another_answer_make_the_label_suspect() -> None:
    rows = made(replace(JOB, back_fill=True), [SEEDS[0]], CannedModel(lambda p: f"{p.draw}: the answer is Paris"))
    assert reasons(rows) == {"wrong": 64, "label_suspect": 1}
    [last] = [row for row in rows if isinstance(row, Rejected) and row.reason == "label_suspect"]
    assert last.example
    assert (last.example.meta["agreed_answer"], last.example.meta["agreement"]) == ("paris", 1.0)
    assert last.detail == "64 of 64 replies agree on 'paris'"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300), st.sampled_from(["vrt", "uniform", "prop2diff"]), st.integers(1, 9), st.integers(9, 40),
    st.lists(st.sampled_from([0, 0.05, 0.3, 0.6, 1]), min_size=1, max_size=8),
)  # fmt: skip
def test_no_budget_cap_or_target_is_ever_exceeded(
    budget: int, strategy: Any, k: int, cap: int, rates: list[float]
) -> None:
    seeds = [query(f"b{i}", p) for i, p in enumerate(rates)]
    model = Stored(bernoulli)
    rows = made(replace(JOB, strategy=strategy, k=k, budget=budget, max_trials=cap), seeds, model)
    assert len(model.asked) <= budget
    assert len(set(model.asked)) == len(model.asked)
    assert set(reasons(rows)) <= {"", *Dart.reasons}
    spent = 0
    for seed in seeds:
        mine = of(rows, seed)
        said = facts(rows, seed)
        spent += said["trials"]
        draws = sorted(row.example.meta["draw"] for row in mine if row.example and "draw" in row.example.meta)
        assert draws == list(range(said["trials"]))  # each trial is one row
        assert said["trials"] <= cap
        assert said["target"] is None or said["kept"] <= said["target"]
        assert len(kept(mine)) == said["kept"] == min(said["correct"], said["target"] or said["correct"])
        assert said["ended"] in ("target", "max_trials", "budget")
    assert spent == len(model.asked)
    if spent < budget:
        assert all(facts(rows, seed)["ended"] != "budget" for seed in seeds)


def test_a_small_budget_is_shared_fairly() -> None:
    """The released code starts every batch at the first query, which then gets all; here each gets its turn."""
    seeds = [query(f"f{i}", 0.0) for i in range(10)]
    rows = made(replace(JOB, budget=50), seeds)
    assert [facts(rows, seed)["trials"] for seed in seeds] == [5] * 10
    rows = made(replace(JOB, budget=7), seeds)
    assert sorted(facts(rows, seed)["trials"] for seed in seeds) == [0] * 3 + [1] * 7
    assert reasons(rows) == {"wrong": 7, "budget_spent": 10}


def test_hard_queries_get_most_of_what_is_left() -> None:
    easy, hard = [query(f"e{i}", 0.9) for i in range(5)], [query(f"h{i}", 0.1) for i in range(5)]
    rows = made(replace(JOB, budget=300, max_trials=200), easy + hard)
    trials = {name: sum(facts(rows, seed)["trials"] for seed in some) for name, some in (("e", easy), ("h", hard))}
    assert trials["h"] > 4 * trials["e"]
    assert sum(trials.values()) == 300


@settings(max_examples=15, deadline=None)
@given(st.permutations(SEEDS), st.sampled_from([None, 90, 300]), st.sampled_from(["uniform", "prop2diff"]))
def test_the_order_of_the_seeds_changes_no_row(order: list[Example], budget: int | None, strategy: Any) -> None:
    job = replace(JOB, budget=budget, strategy=strategy)
    assert sorted(map(key, made(job, order))) == sorted(map(key, made(job, SEEDS)))


def test_a_resumed_job_asks_for_nothing_twice() -> None:
    store: dict[Prompt, Completion] = {}
    first = Stored(bernoulli, store)
    whole = made(JOB, SEEDS, first)
    resumed = Stored(bernoulli, store)
    assert list(map(key, made(JOB, SEEDS, resumed))) == list(map(key, whole))
    assert resumed.asked == []


class Dies(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_a_job_that_died_goes_on_where_it_was(after: int) -> None:
    class Mortal(Stored):
        rounds = 0

        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            self.rounds += 1
            if self.rounds > after:
                raise Dies
            return super().complete(prompts)

    store: dict[Prompt, Completion] = {}
    with pytest.raises(Dies):
        made(JOB, SEEDS, Mortal(bernoulli, store))
    before = len(store)
    assert before > 0
    second = Stored(bernoulli, store)
    rows = made(JOB, SEEDS, second)
    alone = Stored(bernoulli)
    assert list(map(key, rows)) == list(map(key, made(JOB, SEEDS, alone)))
    assert before + len(second.asked) == len(alone.asked)


def test_a_larger_budget_asks_only_for_more() -> None:
    store: dict[Prompt, Completion] = {}
    made(replace(JOB, budget=100), SEEDS, Stored(bernoulli, store))
    first = set(store)
    made(replace(JOB, budget=200), SEEDS, Stored(bernoulli, store))
    assert len(first) == 100
    assert len(store) < 300


def test_another_seed_of_the_job_draws_other_replies() -> None:
    assert list(map(key, made(JOB, SEEDS, seed=1))) != list(map(key, made(JOB, SEEDS, seed=2)))


def test_equal_and_nearly_equal_replies_are_kept_once() -> None:
    long = " ".join(f"w{i}" for i in range(200))
    replies = [f"{long}\nthe answer is yes", f"{long.upper()}  \nthe answer is YES", f"{long} x\nthe answer is yes"]
    model = CannedModel(lambda prompt: replies[prompt.draw] if prompt.draw < 3 else f"{prompt.draw}. the answer is yes")
    rows = made(replace(JOB, strategy="uniform", k=3), [query("d", 1)], model)
    assert [row.detail for row in rows if isinstance(row, Rejected) and row.reason == "duplicate"] == ["exact", "near"]
    assert [row.meta["draw"] for row in kept(rows)] == [0, 3, 4]


def test_a_sampler_with_one_reply_does_not_loop() -> None:
    rows = made(replace(JOB, strategy="uniform", k=2), [query("one", 1)], CannedModel(lambda p: "the answer is yes"))
    assert reasons(rows) == {"": 1, "duplicate": 63}


class Failing(CannedModel):
    """Answers some draws with a failure."""

    def __init__(self, failing: Callable[[Prompt], bool], failure: Any, **fields: Any) -> None:
        super().__init__(bernoulli)
        self.failing, self.failure, self.fields = failing, failure, fields

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        bad = Completion("", "error", Usage(0, 0), failure=self.failure, detail="HTTP 400", **self.fields)
        good = super().complete(prompts)
        return [bad if self.failing(p) else reply for p, reply in zip(prompts, good, strict=True)]


def test_a_query_that_gets_no_answer_is_given_up() -> None:
    rows = made(JOB, [SEEDS[5]], Failing(lambda prompt: True, "bad_request"))
    assert reasons(rows) == {"bad_request": 8, "unanswered": 1}
    assert facts(rows, SEEDS[5])["pass_rate"] is None


def test_trials_without_a_reply_say_nothing_about_difficulty() -> None:
    rows = made(replace(JOB, k=5), [SEEDS[10]], Failing(lambda prompt: prompt.draw % 2 == 0, "unreachable"))
    assert facts(rows, SEEDS[10])["pass_rate"] == 1.0
    assert reasons(rows) == {"unreachable": 4, "": 1, "surplus": 3}


def test_an_empty_or_filtered_reply_is_a_wrong_one() -> None:
    rows = made(replace(JOB, k=4, max_trials=8), [SEEDS[10]], Failing(lambda prompt: prompt.draw % 2 == 0, "filtered"))
    assert facts(rows, SEEDS[10])["pass_rate"] == 0.5
    assert reasons(rows) == {"filtered": 4, "": 2, "surplus": 2}


def test_a_reply_that_was_cut_off_is_wrong_whatever_it_says() -> None:
    model = CannedModel(lambda prompt: "the answer is yes " + "and so on " * 100)
    rows = made(replace(JOB, max_tokens=20, max_trials=8), [SEEDS[10]], model)
    assert reasons(rows) == {"cut_off": 8, "uncovered": 1}


def test_rejected_trials_come_with_the_keys_of_their_replies() -> None:
    class Keyed(CannedModel):
        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            return [
                replace(one, key=f"draw {p.draw}") for p, one in zip(prompts, super().complete(prompts), strict=True)
            ]

    taken = Collected()
    verifiers = {"exact": VERIFIERS["exact"]()}
    models = {"learner": Keyed(bernoulli)}
    converse([JOB([SEEDS[3]], np.random.default_rng(0))], models, emit=taken, verifiers=verifiers)
    trials = [(row, heard) for row, heard in taken.heard() if row.example and "draw" in row.example.meta]
    assert {row.example.meta["reply"] == f"draw {row.example.meta['draw']}" for row, _ in trials if row.example} == {
        True
    }
    wrong = [(row, heard) for row, heard in trials if isinstance(row, Rejected) and row.reason == "wrong"]
    assert wrong
    assert all(row.example and heard == (row.example.meta["reply"],) for row, heard in wrong)


def test_seeds_that_cannot_be_used_are_rejected_and_cost_nothing() -> None:
    mute = Example((Message("assistant", "yes"),), "s", {"answer": "yes"})
    open_ended = Example((Message("user", "Why?"),), "s", {})
    model = Stored(bernoulli)
    rows = made(JOB, [mute, open_ended, SEEDS[9], SEEDS[9]], model)
    assert [row.reason for row in rows[:3] if isinstance(row, Rejected)] == [
        "no_question", "no_reference", "duplicate_seed",
    ]  # fmt: skip
    assert {prompt.messages[0] for prompt in model.asked} == {SEEDS[9].messages[0]}
    assert made(JOB, []) == []


def test_a_row_says_where_it_comes_from() -> None:
    seed = SEEDS[7]
    row = kept(made(replace(JOB, k=4), [seed]))[0]
    assert row.source == "dart"
    assert row.messages[:-1] == seed.messages[:1]
    assert row.messages[-1].role == "assistant"
    assert row.messages[-1].content.endswith("the answer is yes")
    meta = dict(row.meta)
    assert meta.pop("pass_rate") + meta.pop("difficulty") == pytest.approx(1)
    assert meta["parents"] == [seed.sample_id]
    assert (meta["template"], meta["answer"], meta["strategy"], meta["back_filled"]) == ([], "yes", "prop2diff", False)


def test_mathematics_is_checked_as_such() -> None:
    seed = Example((Message("user", "Half?"), Message("assistant", r"It is $\boxed{\frac{1}{2}}$.")), "s")
    replies = [r"\boxed{0.5}", r"The answer is $\frac{2}{4}$.", r"\boxed{10^{10^{10}}}", r"\boxed{2}"]
    verifier = Mathematics(seconds=2, workers=1)
    taken = Collected()
    models = {"learner": CannedModel(lambda prompt: replies[prompt.draw])}
    job = Dart(strategy="vrt", k=4)
    converse([job([seed], np.random.default_rng(0))], models, emit=taken, verifiers={"math": verifier})
    verifier.close()
    assert reasons(taken.rows()) == {"": 2, "timeout": 1, "wrong": 1}


def test_a_judge_can_tell_what_is_right() -> None:
    job = Dart(verifier="judge", k=2)
    taken = Collected()
    judge = CannedModel(lambda prompt: "Yes." if "answer is yes\nEND" in prompt.messages[0].content else "No")
    models = {"learner": CannedModel(bernoulli), "judge": judge}
    converse([job([SEEDS[5]], np.random.default_rng(0))], models, emit=taken)
    assert reasons(taken.rows()).keys() <= {"", "wrong", "surplus"}
    assert [row.meta["template"] for row in kept(taken.rows())] == [[job.told]] * len(kept(taken.rows()))
    assert kept(taken.rows())
    assert job.needs.models == ("learner", "judge")
    assert job.needs.verifiers == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "best"}, "unknown strategy 'best'; known: vrt, uniform, prop2diff"),
        ({"verifier": "magic"}, "unknown verifier 'magic'; known verifiers: exact, numeric"),
        ({"k": 0}, "at least 1: {'k': 0}"),
        ({"budget": 0}, "at least 1: {'budget': 0}"),
        ({"k": 65}, "k is 65, but a query gets at most max_trials = 64"),
        ({"near": 0.0}, "near and suspect"),
        ({"temperature": 0.0}, "temperature is 0"),
    ],
)
def test_wrong_parameters_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(JOB, **fields)


@pytest.mark.parametrize("strategy", ["vrt", "uniform", "prop2diff"])
def test_a_query_that_nobody_answered_is_not_said_to_be_too_hard(strategy: Any) -> None:
    class Down(CannedModel):
        def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
            return [Completion("", "error", Usage(0, 0), failure="over_budget") for _ in prompts]

    job = replace(JOB, strategy=strategy, k=2, pilot=2, max_trials=2, back_fill=True)
    rows = made(job, SEEDS[:2], Down(bernoulli))
    assert reasons(rows) == {"over_budget": 4, "unanswered": 2}

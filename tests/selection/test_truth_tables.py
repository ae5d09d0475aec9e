"""The arithmetic of the tables of known truth, how their pools are made, and that what cannot be asked is listed."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr, ttest_1samp

from benchmarks import needles, signals_here, truth
from benchmarks.journal import Journal
from benchmarks.signals_here import Asked, Corpus, NotHere, Signals, every_method, measurable
from selection.random_rows import Random
from synthesis.world import World
from warehouse.errors import InputError
from warehouse.records import Estimate, Example, Message, Spec


def row(asked, reply="yes", source="a", **meta):
    return Example((Message("user", asked), Message("assistant", reply)), source, meta)


@dataclass(frozen=True, slots=True)
class Reading:
    """A method that reads one signal, and can do nothing else."""

    signal: Spec
    compares: ClassVar[bool] = False

    @property
    def reads(self):
        return {self.signal.name: self.signal}


@dataclass(frozen=True, slots=True)
class Refusing:
    compares: ClassVar[bool] = False

    @property
    def reads(self):
        return {}

    def __call__(self, problem, rng):
        raise InputError("too small")


@dataclass(frozen=True, slots=True)
class First:
    """The rows in their order."""

    compares: ClassVar[bool] = True

    @property
    def reads(self):
        return {"length": Spec("length", {"unit": "characters"})}

    def __call__(self, problem, rng):
        assert (problem.n, len(problem.target_task)) == (3, 2)
        assert problem.candidates["length"].tolist() == [6, 4, 5]
        assert problem.targets["length"].tolist() == [7, 8]
        return SimpleNamespace(rows=np.arange(problem.budget))


# signals


@pytest.mark.parametrize("name", ["scores", "gradient", "degradation", "something new"])
def test_what_cannot_be_measured_says_why(name):
    with pytest.raises(NotHere, match="here"):
        measurable(Reading(Spec(name)), Signals())
    with pytest.raises(NotHere, match="here"):
        Signals().fill(name, {})
    with pytest.raises(NotHere, match="here"):
        Signals().measure(Spec(name), [row("a")])


def test_every_method_of_the_table_is_asked_or_listed_with_a_reason(monkeypatch):
    monkeypatch.setitem(signals_here.METHODS, "strange", lambda: Reading(Spec("something new")))
    found = every_method(Signals())
    assert set(found.methods) | set(found.not_run) == set(signals_here.METHODS)
    assert "something new" in found.not_run["strange"]
    assert "random" in found.methods


def test_variants_are_the_other_choices_of_literal_parameters():
    methods = every_method(Signals(), variants=True).methods
    assert {"length", "length(unit=characters)", "top_k(aggregate=max)"} <= set(methods)
    assert "length(unit=tokens)" not in methods


def test_signals_are_aligned_with_rows_and_kept(tmp_path, monkeypatch):
    rows = [
        row("What is 2 plus 3?", "5"),
        row("Turn AB around.", "BA"),
        row("What is 2 plus 3?", "5"),
        row("a b", "c d e"),
    ]
    signals = Signals(folder=tmp_path)
    specs = [signals.fill(name, {}) for name in ("representation", "instructions", "response", "response_alone")]
    first = [np.asarray(signals.measure(spec, rows)) for spec in specs]
    assert [each.shape for each in first] == [(4, 192), (4, 192), (4, 3), (4, 3)]
    assert all(np.array_equal(each[0], each[2]) and not np.array_equal(each[0], each[1]) for each in first)
    assert np.allclose(np.linalg.norm(first[0], axis=1), 1, atol=1e-5)
    assert (first[2][:, 1] == first[3][:, 1]).all()
    monkeypatch.setattr(signals_here, "loaded", lambda *_: pytest.fail("measured again"))
    order = [3, 0, 1, 2]  # the same rows in another order are the same files
    for spec, values in zip(specs, first, strict=True):
        assert np.array_equal(signals.measure(spec, [rows[place] for place in order]), values[order], equal_nan=True)


def test_blocks_shared_by_cores_are_the_whole(tmp_path, monkeypatch):
    rows = [row(f"What is {i} plus {i * i % 7}?", str(i)) for i in range(11)]
    spec = Signals().fill("representation", {})
    whole = Signals(folder=tmp_path / "whole").measure(spec, rows)
    monkeypatch.setattr(signals_here, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(signals_here, "cores", lambda: 3)
    np.testing.assert_allclose(Signals(folder=tmp_path / "parts").measure(spec, rows), whole, atol=1e-5)


def test_the_untrained_model_is_another_one_with_the_same_shape(tmp_path):
    rows = [row("What is 2 plus 3?", "5"), row("Turn AB around.", "BA")]
    here, control = Signals(folder=tmp_path), Signals(vectors="untrained", folder=tmp_path)
    trained = here.measure(here.fill("representation", {}), rows)
    drawn = control.measure(control.fill("representation", {}), rows)
    assert drawn.shape == trained.shape
    assert abs(float((drawn[0] * trained[0]).sum())) < 0.9


def test_texts_are_measured_as_the_methods_ask():
    rows = [row("ab", "cde"), row("x y z w v x y z w v", "x y z w v x y z w v")]
    signals = Signals()
    assert signals.measure(Spec("length", {"unit": "characters"}), rows).tolist() == [5, 38]
    assert signals.measure(Spec("trigrams", {"dims": 64}), rows).shape == (2, 64)
    assert signals.measure(Spec("ngrams", {"dims": 32, "hashing": "fast"}), rows).shape == (2, 32)
    assert signals.measure(Spec("concepts", {"dims": 32}), rows).shape == (2, 32)
    repeated = signals.measure(Spec("repetition"), rows)
    assert repeated[0] == 0
    assert repeated[1] > 0


def test_a_corpus_hands_out_any_rows_as_candidates_and_targets():
    corpus = Corpus([row("x" * n, "") for n in (4, 6, 5, 8, 7)], Signals())
    picked = corpus.choose(First(), np.array([1, 0, 2]), np.array([4, 3]), 2, seed=0)
    assert picked.tolist() == [1, 0]


# the world


def test_shares_of_right_rows():
    assert (
        truth.share(truth.is_clean)([row("a", noise="clean"), row("b", noise="static"), row("c", noise="clean")])
        == 2 / 3
    )
    assert truth.distinct([row("a", problem="p"), row("b", problem="p"), row("c", problem="q")]) == 2 / 3


def test_evenness_is_the_share_of_skills_that_would_be_there_if_all_were_as_many():
    skills = truth.SKILLS
    assert truth.evenness([row("a", skill=skill) for skill in skills]) == pytest.approx(1)
    assert truth.evenness([row("a", skill=skills[0])] * 7) == pytest.approx(1 / len(skills))
    two = [row("a", skill=skills[0]), row("a", skill=skills[3])]
    assert truth.evenness(two * 3) == pytest.approx(2 / len(skills))


def test_the_skill_target_asks_for_clean_rows_of_one_skill():
    question = truth.skill_target(2)
    skill = truth.SKILLS[2]
    assert {target.meta["skill"] for target in question.targets} == {skill}
    right = [each for each in question.pool if each.meta["skill"] == skill and each.meta["noise"] == "clean"]
    assert len(right) > question.budget / 2
    assert question.worth(right) == 1
    wrong = [each for each in question.pool if each.meta["noise"] == "dynamic" or each.meta["skill"] != skill]
    assert question.worth(wrong) == 0
    assert {each.messages for each in question.pool}.isdisjoint(target.messages for target in question.targets)


@pytest.mark.parametrize(("question", "noise"), [("static noise", "static"), ("dynamic noise", "dynamic")])
def test_half_a_noised_pool_is_noised(question, noise):
    made = truth.QUESTIONS[question](1)
    found = [each.meta["noise"] for each in made.pool]
    assert set(found) == {"clean", noise}
    assert 0.4 < found.count(noise) / len(found) < 0.6
    assert {target.meta["skill"] for target in made.targets} == set(truth.SKILLS)
    assert all(target.meta["noise"] == "clean" for target in made.targets)


def test_the_pool_of_duplicates_holds_exact_and_near_copies():
    made = truth.duplicates(3)
    texts = [each.messages[0].content for each in made.pool]
    assert len(texts) == truth.ORIGINALS + 2 * truth.COPIED * truth.COPIES
    assert len(set(texts)) <= truth.ORIGINALS + truth.COPIED * truth.COPIES
    assert made.worth(made.pool) <= truth.ORIGINALS / len(made.pool)
    original = truth.made(World(1, sources={"clean": 1.0}), 3)[0]
    copies = [truth.near(original, place) for place in range(truth.COPIES)]
    assert len({copy.sample_id for copy in [original, *copies]}) == truth.COPIES + 1
    assert all(original.messages[0].content in copy.messages[0].content for copy in copies)
    assert truth.distinct([original, *copies]) == 1 / (truth.COPIES + 1)


def test_the_sources_of_the_uneven_pool_are_its_skills():
    made = truth.imbalance(0)
    sizes = {skill: sum(each.source == skill for each in made.pool) for skill in truth.SKILLS}
    assert all(each.source == each.meta["skill"] for each in made.pool)
    assert max(sizes.values()) / min(sizes.values()) > 20
    assert min(sizes.values()) >= made.budget / len(truth.SKILLS)  # an even draw is possible
    assert truth.evenness(made.pool) < 0.75


def test_student_is_the_interval_of_the_t_test():
    values = [0.2, 0.5, 0.4, 0.9, 0.3]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = truth.student(values)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.46, expected.low, expected.high, 5))
    assert truth.student([0.25]) == Estimate(0.25, 0.25, 0.25, 1)


def test_findings_are_paired_with_random_and_refusals_are_told(monkeypatch):
    pool = [row(f"question {i}", noise="clean" if i % 4 == 0 else "static") for i in range(40)]
    question = truth.Question(pool, [], 40, truth.share(truth.is_clean))
    monkeypatch.setattr(truth, "QUESTIONS", {"small": lambda seed: question})
    asked = Asked({"random": Random(), "refusing": Refusing()}, {})
    refusal, found = truth.findings(["small"], Signals(), asked, truth.Seeds(3))
    assert refusal == truth.Refusal("small", "refusing", "too small")
    assert found == truth.Finding("small", "random", Estimate(0.25, 0.25, 0.25, 3), Estimate(0, 0, 0, 3))


@dataclass(frozen=True, slots=True)
class Counting:
    """What stands in for trainings: the number of a row's words, and which rows were asked for."""

    asked: list

    @property
    def names(self):
        return frozenset({"scores"})

    def spec(self, wanted):
        return Spec(wanted)

    def measure(self, spec, rows):
        self.asked.append([row[0].content for row in rows])
        return np.array([len(row[0].content.split()) for row in rows])


@dataclass(frozen=True, slots=True)
class MostWords:
    scores: Spec
    compares: ClassVar[bool] = False

    @property
    def reads(self):
        return {"scores": self.scores}

    def __call__(self, problem, rng):
        return SimpleNamespace(rows=np.argsort(-problem.candidates["scores"], kind="stable")[: problem.budget])


def test_what_a_training_gives_is_measured_of_the_rows_alone_that_need_it():
    trained = Counting([])
    signals = Signals(trained=trained)
    assert signals.fill("scores", {}) == Spec("scores")
    method = measurable(MostWords(signals.fill("scores", {})), signals)
    assert truth.trains(method, signals)
    assert not truth.trains(Random(), signals)
    corpus = Corpus([row("a b"), row("a"), row("a b c"), row("target")], signals)
    for _ in range(2):
        assert corpus.choose(method, np.array([0, 1, 2]), np.array([3]), 2, seed=0).tolist() == [2, 0]
    assert trained.asked == [["a b", "a", "a b c"]]


def test_methods_that_need_a_training_are_asked_at_fewer_seeds(monkeypatch):
    def question(seed):
        rows = [row("x " * (i + seed), noise="clean" if i > 5 else "static") for i in range(10)]
        return truth.Question(rows, [], 4, truth.share(truth.is_clean))

    names = ("small", "damaged skills")
    monkeypatch.setattr(truth, "QUESTIONS", dict.fromkeys(names, question))
    signals = Signals(trained=Counting([]))
    asked = Asked({"random": Random(), "most": MostWords(Spec("scores"))}, {})
    found = {(e.question, e.method): e for e in truth.findings(names, signals, asked, truth.Seeds(3, 2))}
    assert {key: each.value.n for key, each in found.items()} == {
        ("small", "random"): 3, ("small", "most"): 2, ("damaged skills", "random"): 2, ("damaged skills", "most"): 2,
    }  # fmt: skip
    assert found["small", "most"].value.value == 1
    draws = [truth.answers("small", signals, {"random": Random()}, seed, Journal())["random"] for seed in range(2)]
    assert found["small", "most"].over_random.value == pytest.approx(1 - np.mean(draws))


def test_a_run_that_was_stopped_asks_only_what_it_does_not_know(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    question = truth.Question([row("a", noise="clean")], [], 1, truth.share(truth.is_clean))
    monkeypatch.setattr(truth, "QUESTIONS", {"small": lambda seed: question})
    first = truth.answers("small", Signals(), {"random": Random(), "refusing": Refusing()}, 0, Journal(path))
    assert first == {"random": 1.0, "refusing": "too small"}
    whole = path.read_text()
    path.write_text(whole + '["winnow-tiny", "small", 0, "oth')  # stopped while it wrote
    monkeypatch.setattr(truth, "QUESTIONS", {"small": lambda seed: pytest.fail("asked again")})
    assert truth.answers("small", Signals(), {"refusing": Refusing(), "random": Random()}, 0, Journal(path)) == first
    assert path.read_text() == whole


def test_shares_stay_between_0_and_1():
    found = truth.share_of([0.0, 0.0, 1.0])
    assert (found.low, found.high) == (0, 1)
    assert truth.student([0.0, 0.0, 1.0]).low < 0


def test_refusals_of_one_method_are_one_line():
    refused = [truth.Refusal("a", "m", "why"), truth.Refusal("a", "other", "so"), truth.Refusal("b", "m", "why too")]
    assert list(truth.told_refusals(refused)) == ["- `m` not run (a, b): why", "- `other` not run (a): so"]


def test_the_table_marks_what_differs_from_random():
    better, worse = Estimate(0.1, 0.05, 0.15, 5), Estimate(-0.1, -0.15, -0.05, 5)
    value = Estimate(0.5, 0.4, 0.6, 5)
    found = [
        truth.Finding("q", "good", value, better),
        truth.Finding("q", "bad", value, worse),
        truth.Finding("r", "good", Estimate(0.5, 0.4, 0.6, 3), Estimate(0.0, -0.1, 0.1, 3)),
    ]
    assert truth.table(found).splitlines()[2:] == [
        "| `good` | 0.50 [0.40, 0.60] + | 0.50 [0.40, 0.60] (n 3) |",
        "| `bad` | 0.50 [0.40, 0.60] - | refused |",
    ]


# needles


def test_kinds_are_capped_and_drawn_by_seed():
    kind = np.array(["a"] * 50 + ["b"] * 20)
    kept = needles.capped(kind, 30, np.random.default_rng(0))
    assert (kind[kept] == "a").sum() == 30
    assert (kind[kept] == "b").sum() == 20
    assert (np.diff(kept) > 0).all()
    assert not np.array_equal(kept, needles.capped(kind, 30, np.random.default_rng(1)))


def test_branches_are_four_deep_and_spell_spaces_one_way():
    assert (
        needles.branch({"taxonomy": "knowledge/technical manual/Ceph/upstream/RGW"})
        == "knowledge/technical_manual/Ceph/upstream"
    )


def test_needles_never_hold_a_target_among_their_candidates(monkeypatch):
    collection = needles.Collection("none", lambda meta: "", 2, mixed=("mixed",))
    monkeypatch.setattr(needles, "COLLECTIONS", {"c": collection})
    kind = np.array(["a"] * 130 + ["mixed"] * 150 + ["few"] * 80)
    prompts = np.arange(len(kind))
    prompts[100:130] = prompts[:30]  # some rows ask the same
    found = list(needles.needles("c", kind, prompts, 0))
    assert [each.kind for each in found] == ["a"]
    only = found[0]
    assert len(only.targets) == needles.TARGETS
    assert not np.isin(prompts[only.candidates], prompts[only.targets]).any()
    assert (kind[only.candidates[only.right]] == "a").all()
    assert only.budget == only.right.sum() <= 130 - needles.TARGETS


def test_precision_is_right_rows_over_chosen(monkeypatch):
    needle = needles.Needle("c", "a", np.array([0]), np.array([3, 5, 7, 9]), np.array([True, False, True, False]))
    monkeypatch.setattr(needles.Needle, "budget", 3)
    corpora = {"c": SimpleNamespace(choose=lambda *_: np.array([7, 9, 3]))}
    found = needles.chosen(needles.Arm("x", None, Signals()), corpora, [needle], 0)
    assert found.precision.tolist() == [2 / 3]
    assert needles.overlap(found, needles.Chosen(np.zeros(1), [np.array([3, 5, 9])])) == 2 / 3


def test_differences_are_paired():
    a, b = np.array([0.9, 0.5, 0.1, 0.4]), np.array([0.8, 0.4, 0.0, 0.3])
    found = needles.over(a, b, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_area_under_the_curve_counts_pairs():
    score, label = np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, True, False])
    assert needles.auc(score, label) == (1 + 1 + 1 + 0.5) / 4
    assert needles.auc(-score, label) == 1 - 3.5 / 4


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 5, 40), rng.random(40)
    assert needles.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_resampling_draws_whole_clusters():
    clusters = np.repeat([0, 1, 2], [2, 1, 3])
    seen = []
    found = needles.resampled(
        lambda at: seen.append(np.sort(at)) or float(len(at)), 6, np.random.default_rng(0), clusters
    )
    assert (found.value, found.n) == (6, 3)
    for at in seen:
        counts = np.bincount(at, minlength=6)
        assert counts[0] == counts[1]
        assert counts[3] == counts[4] == counts[5]


@pytest.mark.parametrize("made", [np.asarray, csr_matrix])
def test_the_nearest_earlier_row_is_that_of_all_products(made, monkeypatch):
    monkeypatch.setattr(needles, "BLOCK", 4)
    rows = np.random.default_rng(2).random((11, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [0, *(max(rows[:i] @ rows[i]) for i in range(1, 11))]
    assert needles.nearest_earlier(made(rows)) == pytest.approx(expected)


def test_dropped_rows_are_judged_by_precision_and_recall():
    label, dropped = np.array([True, True, True, False, False]), np.array([True, True, False, True, False])
    found = {each.measure: each.value for each in needles.decided("q", "by", dropped, label, 0)}
    assert (found["precision"].value, found["precision"].n) == (2 / 3, 3)
    assert (found["recall"].value, found["recall"].n) == (2 / 3, 3)
    assert [each.measure for each in needles.decided("q", "by", np.zeros(5, bool), label, 0)] == ["recall"]


def test_the_filter_drops_the_later_copy():
    text = "the quick brown fox jumps over the lazy dog and runs far away into the dark wood"
    rows = [row(text), row("something else that has nothing to do with it at all"), row(text + " again")]
    assert needles.minhash_drops(rows, 0.6).tolist() == [False, False, True]


def test_rows_without_a_reply_are_left_out(tmp_path):
    path = tmp_path / "small.parquet"
    made = [
        {"instruction": "a", "input": None, "output": out, "meta": json.dumps({"kind": "k"})} for out in ("b", " ", "c")
    ]
    pq.write_table(pa.Table.from_pylist(made), path)
    found = needles.examples(path)
    assert [each.messages[-1].content for each in found] == ["b", "c"]
    assert found[0].meta["kind"] == "k"

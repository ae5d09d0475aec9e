"""Contamination: the three rules against a slow reading of them, worked numbers, boilerplate, copies of the index."""

import pickle
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import words as words_module
from warehouse.errors import InputError
from warehouse.ngrams import RULES, Matches, NgramIndex

Turns = list[tuple[bool, str]]


def run(prefix: str, n: int) -> str:
    return " ".join(f"{prefix}{i}" for i in range(n))


def arrays(rows: list[Turns]) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    turns = [turn for row in rows for turn in row]
    offsets = np.cumsum([0, *map(len, rows)])
    return pa.array([text for _, text in turns], pa.string()), offsets, np.array([user for user, _ in turns], bool)


def found(matches: Matches) -> list[tuple[int, str, int, float]]:
    columns = (matches.rows, matches.rules, matches.items, matches.scores)
    return [(int(row), RULES[rule], int(item), float(score)) for row, rule, item, score in zip(*columns, strict=True)]


def check(rows: list[Turns], items: list[Turns], **given: float) -> list[tuple[int, str, int, float]]:
    return found(NgramIndex.build(*arrays(items), **given).match(*arrays(rows)))


def grams(texts: list[str], n: int) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
    """(n-gram, (turn, place)) of every one inside a turn."""
    split = [text.split() for text in texts]
    return [(tuple(w[i : i + n]), (t, i)) for t, w in enumerate(split) for i in range(len(w) - n + 1)]


def said(row: Turns, user_only: bool) -> list[str]:
    return [text for user, text in row if user or not user_only]


def shares(row: Turns, items: list[Turns], n: int, user_only: bool, boilerplate: int) -> list[float]:
    """Each item's share: of its n-grams in the row, or of its user's words covered by them."""
    owners = defaultdict(set)
    for e, item in enumerate(items):
        for gram, _ in grams(said(item, user_only), n):
            owners[gram].add(e)
    present = {gram for gram, _ in grams(said(row, user_only), n)}
    answer = []
    for item in items:
        own = [(gram, at) for gram, at in grams(said(item, user_only), n) if len(owners[gram]) <= boilerplate]
        hits = [at for gram, at in own if gram in present]
        if user_only:
            covered = {(turn, place + k) for turn, place in hits for k in range(n)}
            answer.append(len(covered) / max(1, sum(len(text.split()) for text in said(item, True))))
        else:
            answer.append(len(hits) / max(1, len(own)))
    return answer


def slow(rows: list[Turns], items: list[Turns], ngram: int, covering: int, share: float, boilerplate: int):
    for r, row in enumerate(rows):
        asked = [" ".join(said(item, True)).split() for item in items]
        mine = " ".join(said(row, True)).split()
        if mine and mine in asked:
            yield r, "exact", asked.index(mine), 1.0
        for rule, n, user_only, floor in (("13-gram", ngram, False, 0.0), ("coverage", covering, True, share)):
            values = shares(row, items, n, user_only, boilerplate)
            if values and max(values) > floor:
                yield r, rule, values.index(max(values)), max(values)


ROWS = st.lists(
    st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("abc"), max_size=14).map(" ".join)), max_size=3),
    max_size=6,
)


@given(ROWS, ROWS, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 0.5, 0.8]), st.sampled_from([1, 2, 100]))
@settings(max_examples=300, deadline=None)
def test_matches_equal_a_slow_reading_of_the_rules(rows, items, ngram, covering, share, boilerplate):
    given = {"ngram": ngram, "covering": covering, "share": share, "boilerplate": boilerplate}
    assert check(rows, items, **given) == list(slow(rows, items, **given))


@given(ROWS, ROWS, st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_judged_alone_and_by_any_copy_of_the_index(rows, items, data):
    index = NgramIndex.build(*arrays(items), ngram=3, covering=2)
    whole = found(index.match(*arrays(rows)))
    again = pickle.loads(pickle.dumps(index))
    cut = data.draw(st.integers(0, len(rows)))
    first, second = found(again.match(*arrays(rows[:cut]))), found(index.match(*arrays(rows[cut:])))
    assert whole == first + [(row + cut, *rest) for row, *rest in second]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module.Text.blocks, "__defaults__", (data.draw(st.integers(1, 30)),))
        assert found(index.match(*arrays(rows))) == whole


QUESTION: Turns = [(True, run("a", 22)), (False, run("z", 20))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([(True, run("A", 22))], [("exact", 1.0), ("13-gram", 10 / 18), ("coverage", 1.0)]),
        ([(True, run("b", 6) + " " + run("a", 11) + " " + run("c", 5))], []),  # covers 11 of 22
        ([(True, run("a", 12))], [("coverage", 12 / 22)]),
        ([(True, run("a", 13))], [("13-gram", 1 / 18), ("coverage", 13 / 22)]),
        ([(False, run("a", 13))], [("13-gram", 1 / 18)]),
        ([(True, "how?"), (False, "So: " + run("z", 20))], [("13-gram", 8 / 18)]),
        ([(True, run("a", 7)), (True, " ".join(f"a{i}" for i in range(7, 14)))], []),  # no run crosses turns
        ([(True, run("q", 40))], []),
        ([(True, " ".join(f"a{i}" for i in range(11))), (True, " ".join(f"a{i}" for i in range(11, 22)))],
         [("exact", 1.0), ("coverage", 1.0)]),
    ],
)  # fmt: skip
def test_worked_questions(row, expected):
    assert [(rule, score) for _, rule, _, score in check([row], [QUESTION])] == [
        (rule, pytest.approx(score)) for rule, score in expected
    ]


def test_short_items_match_only_as_a_whole():
    items: list[Turns] = [[(True, "What is 2+3?"), (False, "5")]]
    rows: list[Turns] = [[(True, "what is 2 + 3 ?")], [(True, "What is 2-3?")], [(True, "Say: What is 2+3?")]]
    assert check(rows, items) == [(0, "exact", 0, 1.0)]


def test_an_item_without_a_question_matches_nothing():
    assert check([[], [(True, "")], [(False, "x")]], [[], [(True, " ")], [(False, "x")]]) == []
    assert check([[(True, "x")]], []) == []


def test_what_many_items_share_says_nothing_about_one_of_them():
    """300 items begin alike; a row with that beginning alone is clean, one with an item's own words is not."""
    boilerplate = run("answer", 20)
    items: list[Turns] = [[(True, f"{boilerplate} {run(f'q{i}x', 15)}")] for i in range(300)]
    index = NgramIndex.build(*arrays(items))
    assert index.dropped == (8, 13)
    rows: list[Turns] = [[(True, boilerplate)], [(True, run("q7x", 15))], [(True, f"{boilerplate} {run('q9x', 15)}")]]
    matches = found(index.match(*arrays(rows)))
    assert [(row, rule, item) for row, rule, item, _ in matches] == [
        (1, "13-gram", 7), (2, "exact", 9), (2, "13-gram", 9), (2, "coverage", 9)
    ]  # fmt: skip
    assert NgramIndex.build(*arrays(items), boilerplate=300).dropped == (0, 0)
    assert check(rows[:1], items, boilerplate=300) == [(0, "13-gram", 0, 8 / 23), (0, "coverage", 0, 20 / 35)]


def test_the_index_is_a_function_of_the_items():
    items = [QUESTION, [(True, run("b", 30))]]
    first, second = NgramIndex.build(*arrays(items)), NgramIndex.build(*arrays(items))
    assert pickle.dumps(first) == pickle.dumps(second)


@pytest.mark.parametrize("given", [{"ngram": 0}, {"covering": 0}, {"boilerplate": 0}, {"share": 1.0}, {"share": -0.1}])
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(InputError, match="at least 1"):
        NgramIndex.build(*arrays([QUESTION]), **given)


def test_flags_of_another_length_are_refused():
    contents, offsets, _ = arrays([QUESTION])
    with pytest.raises(InputError, match=r"expected \(2,\)"):
        NgramIndex.build(contents, offsets, np.ones(3, bool))

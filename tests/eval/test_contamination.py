"""Contamination of test items: worked numbers, brute force over sets of words, and laws of merging."""

import re
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.contamination import Exposure, ItemIndex
from warehouse.errors import InputError

QUESTION = (
    "Natalia sold clips to 48 of her friends in April , and then she sold half as many clips in May . "  # 22 tokens
)
PARAPHRASE = "Natalia sold clips to 48 of her friends in April , then half of that a month later ; what is the sum ?"
OTHER = "A train leaves the station at noon and arrives at the next town three hours later without any stop at all"


def turns(texts: list[list[str]]) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Rows of user turns, each with a reply behind it."""
    contents = [part for row in texts for text in row for part in (text, "fine")]
    offsets = np.cumsum([0, *(2 * len(row) for row in texts)])
    return pa.array(contents, pa.string()), offsets, np.arange(len(contents)) % 2 == 0


def index(items: list[str], **options: int) -> ItemIndex:
    contents, offsets, is_user = turns([[item] for item in items])
    return ItemIndex.build(contents, offsets, is_user, **options)


def expose(found: ItemIndex, documents: list[list[str]], first: int = 0) -> Exposure:
    return found.expose(*turns(documents), np.arange(first, first + len(documents)))


def test_a_worked_item() -> None:
    found = index([QUESTION])
    for document, share, flagged in ((QUESTION, 1.0, True), (PARAPHRASE, 0.5, False), (OTHER, 0.0, False)):
        exposure = expose(found, [[document]])
        assert exposure.share.tolist() == [share]
        assert exposure.contaminated.tolist() == [flagged]
    best = expose(found, [[OTHER], [PARAPHRASE], [QUESTION], [QUESTION]])
    assert best.document.tolist() == [2]
    assert best.any_match.tolist() == [2]
    nothing = expose(found, [[OTHER]])
    assert (nothing.document.tolist(), nothing.any_match.tolist()) == ([-1], [-1])


def test_case_and_punctuation_do_not_hide_an_item() -> None:
    exposure = expose(index([QUESTION]), [[QUESTION.upper().replace(" ,", ";")]])
    assert exposure.share.tolist() == [1.0]


def test_a_short_item_is_given_away_by_the_same_question_alone() -> None:
    found = index(["2 + 3 ?", "2 - 3 ?"])
    assert expose(found, [["2 - 3 ?"]]).share.tolist() == [0.0, 1.0]
    assert expose(found, [["What is 2 + 3 ?"], ["2 + 3 ?"]]).document.tolist() == [1, -1]


def test_replies_do_not_count_for_coverage_but_for_any_match() -> None:
    said = pa.array(["Tell me a story.", QUESTION], pa.string())
    exposure = index([QUESTION]).expose(said, np.array([0, 2]), np.array([True, False]), np.array([7]))
    assert exposure.share.tolist() == [0.0]
    assert exposure.any_match.tolist() == [7]


def test_an_n_gram_is_not_pieced_together_from_two_turns() -> None:
    half = QUESTION.split()
    exposure = expose(index([QUESTION]), [[" ".join(half[:7]), " ".join(half[7:14])]])
    assert exposure.share.tolist() == [0.0]


def test_what_many_items_share_says_nothing_of_them() -> None:
    template = "Answer the following question with one word and nothing else please"
    items = [f"{template} alpha{i} beta gamma delta epsilon zeta eta theta" for i in range(5)]
    document = [[f"{template} omega"]]
    assert (expose(index(items, boilerplate=5), document).share > 0.5).all()
    assert (expose(index(items, boilerplate=4), document).share == 0).all()


WORDS = st.sampled_from(["a", "b", "c"])
TEXTS = st.lists(st.lists(WORDS, max_size=14).map(" ".join), min_size=1, max_size=6)


def by_hand(item: str, document: str, n: int) -> float:
    """Share of the item's words in n-grams that the document holds."""
    words, other = item.split(), document.split()
    grams = {tuple(other[i : i + n]) for i in range(len(other) - n + 1)}
    covered = {p for i in range(len(words) - n + 1) if tuple(words[i : i + n]) in grams for p in range(i, i + n)}
    if words and words == other:
        return 1.0
    return len(covered) / len(words) if words else 0.0


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_shares_are_those_of_sets(items: list[str], documents: list[str], n: int) -> None:
    exposure = expose(index(items, covering=n, ngram=n + 1), [[document] for document in documents])
    for i, item in enumerate(items):
        shares = [by_hand(item, document, n) for document in documents]
        assert exposure.share[i] == pytest.approx(max(shares))
        expected = shares.index(max(shares)) if max(shares) else -1
        assert exposure.document[i] == expected
        spoken = [f" {part} " for document in documents for part in (document,)]
        grams = [" ".join(item.split()[k : k + n + 1]) for k in range(len(item.split()) - n)]
        holds = [d for d, text in enumerate(spoken) if any(re.search(rf" {gram} ", text) for gram in grams)]
        assert exposure.any_match[i] == (holds[0] if holds else -1)


@given(TEXTS, TEXTS, st.integers(0, 6))
def test_documents_may_be_looked_at_in_parts(items: list[str], documents: list[str], cut: int) -> None:
    found, rows = index(items, covering=2, ngram=3), [[document] for document in documents]
    whole = expose(found, rows)
    parts = (
        [expose(found, rows[:cut]), expose(found, rows[cut:], min(cut, len(rows)))] if 0 < cut < len(rows) else [whole]
    )
    merged = Exposure.none(found.m)
    for part in reversed(parts):
        merged = merged.merge(part)
    for name in ("share", "document", "any_match"):
        assert getattr(merged, name).tolist() == getattr(whole, name).tolist()


def test_a_template_that_most_documents_share_costs_little() -> None:
    template = "answer the following question with one word and nothing else at all please"
    items = [f"{template} {i} a b c d e f" for i in range(90)]
    found, documents = index(items), [[f"{template} {i} g h"] for i in range(3000)]
    expose(found, documents[:1])
    started = time.process_time()
    exposure = expose(found, documents)
    assert time.process_time() - started < 2.0
    assert (exposure.share == 14 / 20).sum() == 90
    assert exposure.document.tolist() == list(range(90))  # the number of the item comes behind the template


def test_what_does_not_fit_is_refused() -> None:
    contents, offsets, is_user = turns([["a b c"]])
    with pytest.raises(InputError, match=r"`is_user` has shape \(1,\), expected \(2,\)"):
        ItemIndex.build(contents, offsets, is_user[:1])
    with pytest.raises(InputError, match="give at least 1 of each"):
        ItemIndex.build(contents, offsets, is_user, covering=0)

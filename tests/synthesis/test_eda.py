"""EDA: what may be edited, how much, and that the reply and all protected spans stay as they are."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from asked_models import accepted, made, reasons, seed
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.eda import Drawing, Eda, deleted, inserted, replaced, swapped
from synthesis.free_words import pieces_of
from synthesis.protected import TAG, TO_CARRY_OVER, TO_KEEP, mask, protected, without_protected
from warehouse.errors import InputError
from warehouse.records import Example, Message

TEXT = "Please summarise this long article about the river in three short parts for my younger readers"
SYNONYMS = {"long": ["lengthy"], "article": ["essay", "piece"], "river": ["stream"]}
TEXTS = st.text("ab1 ⟦⟧0\"'`{}<>$.,\n-_@:/()Ä", max_size=60)


def rng(k: int = 0) -> np.random.Generator:
    return np.random.default_rng(k)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("use `x = 1` and ```\ncode 2\n``` here", ["`x = 1`", "```\ncode 2\n```"]),
        ("see https://a.org/b?c=1, or www.b.org", ["https://a.org/b?c=1,", "www.b.org"]),
        ("mail me.you@site.co.uk now", ["me.you@site.co.uk"]),
        ("pay $5 and $10 for 3rd, 1,000.5% or -7", ["$5", "$10", "3rd", "1,000.5%", "-7"]),
        ("solve $x^2 = 4$ for x", ["$x^2 = 4$"]),
        ("fill {name} and {{ slot }} in <tag> or [NAME]", ["{name}", "{{ slot }}", "<tag>", "[NAME]"]),
        ('say "good night" or “hi there”', ['"good night"', "“hi there”"]),
        ("it's the dog's bone", []),
        ("Input: cats\nA) one\n(B) two big\n- three", ["Input:", "A) one", "(B) two big", "- three"]),
        ("pick (A) or (B) now", ["(A)", "(B)"]),
        ("ask Ann, Bob and the king. Then go", ["Ann", "Bob"]),
        ("give twice as many, and more", ["twice", "more"]),
        ("Sum it up.\n\nA long text.\n\nIts end.", ["\n\nA long text.\n\nIts end."]),
        ("write it as JSON in a table", ["JSON", "table"]),
        ("do not use it, and don't never", ["not", "don't", "never"]),
    ],
)
def test_what_is_protected(text: str, spans: list[str]) -> None:
    assert [text[start:stop] for start, stop in protected(text)] == spans


@given(TEXTS)
@settings(deadline=None)
def test_what_is_masked_comes_back(text: str) -> None:
    for kinds in (TO_KEEP, TO_CARRY_OVER):
        masked = mask(text, kinds)
        assert masked.restored(masked.text) == text
        assert len(TAG.findall(masked.text)) == len(masked.spans)
        assert not TAG.search(without_protected(text, kinds))


@given(TEXTS, st.integers(0, 99))
@settings(deadline=None)
def test_a_tag_that_is_lost_or_doubled_is_missed(text: str, k: int) -> None:
    masked = mask(text)
    if masked.spans:
        tag = f"⟦{k % len(masked.spans)}⟧"
        assert masked.restored(masked.text.replace(tag, "", 1)) is None
        assert masked.restored(masked.text + tag) is None
        assert masked.restored(masked.text + "⟦99⟧") is None


def test_spaces_that_a_translator_puts_into_a_tag_do_no_harm() -> None:
    assert mask("pay 5 now").restored("zahle ⟦ 0 ⟧ jetzt") == "zahle 5 jetzt"


@given(TEXTS)
@settings(deadline=None)
def test_pieces_make_up_the_text(text: str) -> None:
    pieces = pieces_of(text)
    assert pieces.with_words(pieces.words) == text
    assert not any(sign.isdigit() for word in pieces.words for sign in word)


@given(TEXTS, st.integers(0, 2**32), st.floats(0, 1))
@settings(deadline=None)
def test_edits_keep_every_protected_span_in_its_order(text: str, draw: int, p: float) -> None:
    pieces = pieces_of(text)
    if len(pieces.words) < 2:
        return
    spans = [text[start:stop] for start, stop in protected(text)]
    for edited in (deleted(pieces, p, rng(draw)), swapped(pieces, 3, rng(draw))):
        at = 0
        for span in spans:
            at = edited.index(span, at) + len(span)


@given(st.integers(0, 2**32), st.integers(1, 5))
@settings(deadline=None)
def test_a_swap_moves_words_and_changes_none(draw: int, n: int) -> None:
    pieces = pieces_of(TEXT)
    assert Counter(swapped(pieces, n, rng(draw)).split()) == Counter(TEXT.split())


def test_a_swap_touches_two_places() -> None:
    for draw in range(50):
        pairs = zip(TEXT.split(), swapped(pieces_of(TEXT), 1, rng(draw)).split(), strict=True)
        assert sum(a != b for a, b in pairs) == 2


@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(deadline=None)
def test_deletion_leaves_words_in_order_and_never_none(draw: int, p: float) -> None:
    left = deleted(pieces_of(TEXT), p, rng(draw)).split()
    rest = iter(TEXT.split())
    assert left
    assert all(word in rest for word in left)


def test_deletion_takes_the_share_it_is_told() -> None:
    counts = [len(deleted(pieces_of(TEXT), 0.1, rng(draw)).split()) for draw in range(2000)]
    assert np.mean(counts) == pytest.approx(0.9 * len(TEXT.split()), abs=0.1)


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [("red green blue", 0, "green blue"), ("red green blue", 1, "red blue"), ("red green blue", 2, "red green"),
     ("red, green. blue", 1, "red,. blue"), ("say `x` now", 0, "`x` now"), ("say\nit now", 1, "say\nnow")],
)  # fmt: skip
def test_a_word_goes_with_one_space(text: str, gone: int, left: str) -> None:
    pieces = pieces_of(text)
    assert pieces.with_words([None if i == gone else word for i, word in enumerate(pieces.words)]) == left


def test_replacement_takes_other_words_of_the_table_and_no_stop_words() -> None:
    pieces = pieces_of("The river sank. River for long")
    found = {replaced(pieces, 9, SYNONYMS | {"the": ["a"]}, rng(draw)) for draw in range(9)}
    assert found == {"The stream sank. Stream for lengthy"}
    assert len({replaced(pieces, 1, SYNONYMS, rng(draw)) for draw in range(20)}) == 2  # one word at a time


def test_insertion_adds_synonyms_of_words_that_are_there() -> None:
    added = Counter[str]()
    for draw in range(200):
        words = Counter(inserted(pieces_of(TEXT), 1, SYNONYMS | {"the": ["a"], "for": ["to"]}, rng(draw)).split())
        assert Counter(TEXT.split()) <= words
        added += words - Counter(TEXT.split())
    assert set(added) == {"lengthy", "essay", "piece", "stream"}


def test_words_of_scripts_with_vowel_signs_stay_whole() -> None:
    assert pieces_of("हिन्दी में लिखो").words == ("हिन्दी", "में", "लिखो")


@pytest.mark.parametrize(("techniques", "each"), [(4, 3), (2, 5), (1, 10)])
def test_every_technique_makes_its_part(techniques: int, each: int) -> None:
    names = ("random_swap", "random_deletion", "synonym_replacement", "random_insertion")[:techniques]
    found = Drawing(names, SYNONYMS, 9, 0.1).candidates(pieces_of(TEXT), rng())
    assert len(found) == 9
    assert max(Counter(name for name, _ in found).values()) <= each
    assert {name for name, _ in found} <= set(names)


def test_a_seed_gives_its_original_and_nine_more() -> None:
    given_seed = seed(TEXT, "  The reply,  untouched.")
    rows = made(Eda(SYNONYMS), [given_seed])
    assert len(rows) == 10
    original, *others = accepted(rows)
    assert original.messages == given_seed.messages
    assert original.meta["technique"] == "original"
    assert {row.messages[-1] for row in others} == {given_seed.messages[-1]}
    assert all(row.meta["aug_parent"] == given_seed.sample_id == row.meta["parents"][0] for row in others)
    assert len({row.messages[0].content for row in others} | {TEXT}) == len(others) + 1
    assert set(reasons(rows)) <= {"", "same_as_earlier", "unchanged"}


def test_without_synonyms_only_words_that_are_there_move_or_go() -> None:
    for row in accepted(made(Eda(augmentations=20), [seed(TEXT, "x")])):
        assert row.meta["technique"] in {"original", "random_swap", "random_deletion"}
        assert Counter(row.messages[0].content.split()) <= Counter(TEXT.split())


def test_what_cannot_be_augmented_has_a_reason() -> None:
    odd = [
        Example((Message("user", TEXT),), "s"),
        Example((Message("assistant", "x"),), "s"),
        seed("Compute 12 + 30.", "42"),
        seed("`f(x)`", "x"),
    ]
    assert reasons(made(Eda(keep_original=False), odd)) == {"no_exchange": 2, "too_few_words": 2}


def test_the_last_instruction_of_a_conversation_is_edited() -> None:
    turns = (("system", "Be kind."), ("user", "Hello there, friend."), ("assistant", "Hi."), ("user", TEXT))
    row = Example((*(Message(role, text) for role, text in turns), Message("assistant", "Done.")), "s")  # type: ignore[arg-type]
    for augmented in accepted(made(Eda(keep_original=False), [row])):
        assert augmented.messages[:3] == row.messages[:3]
        assert augmented.messages[3] != row.messages[3]
        assert augmented.messages[4:] == row.messages[4:]


def test_the_order_of_seeds_changes_no_row() -> None:
    seeds = [seed(f"{TEXT} part {word}", "x") for word in ("alpha", "beta", "gamma")]
    ahead, behind = made(Eda(), seeds, draw=5), made(Eda(), seeds[::-1], draw=5)
    assert sorted(map(repr, ahead)) == sorted(map(repr, behind))
    assert sorted(map(repr, ahead)) != sorted(map(repr, made(Eda(), seeds, draw=6)))


def test_synonyms_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps(SYNONYMS))
    job = Eda(str(path))
    assert job.told == Eda(SYNONYMS).told != Eda().told == ""
    assert made(job, [seed(TEXT, "x")]) == made(Eda(SYNONYMS), [seed(TEXT, "x")])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"techniques": ["random_insertion"]}, "no synonyms"),
        ({"techniques": ["shuffle"]}, "shuffle.*random_swap"),
        ({"synonyms": "/nowhere.json"}, "cannot read"),
        ({"synonyms": {"Long": ["x"]}}, "lower-case"),
        ({"synonyms": {"long": "x"}}, "list of texts"),
        ({"share": 2}, "share"),
        ({"augmentations": 0}, "augmentations"),
    ],
)
def test_what_cannot_be_asked_for(params: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Eda(**params)  # type: ignore[arg-type]

"""Tokens counted piece by piece are the tokens that the library encodes, or are not counted that way at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models import pieces
from models.fingerprint import fetch
from models.pieces import piece_counter
from models.tokens import counter, load_tokenizer

# the pattern of Llama 3: unicode classes, case folding, a look-ahead
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # noqa: E501
CORPUS = [
    "It's a river, and the river's 12345 stones don't move.",
    "naïve café — 雪が降る\n\n  x = y  ",
    "<eos> ok",
] * 20
TEXT = st.text(max_size=200) | st.lists(
    st.sampled_from([*"ab1 2,.\n'é雪", "  ", "river", "don't", "<eos>", "123"])
).map("".join)


def byte_level(pattern: str, **extra: object) -> Tokenizer:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<eos>"],
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


TOKENIZERS = {
    "winnow-tiny": load_tokenizer(fetch("winnow-tiny"))[0],
    "llama": byte_level(LLAMA),
    "word classes": byte_level(r" ?\w+|\s+|[^\s\w]+"),
}


COUNTERS = {name: piece_counter(tokenizer, CORPUS) for name, tokenizer in TOKENIZERS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=150)
@given(text=TEXT)
def test_counts_are_the_librarys(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    counted = COUNTERS[name]
    assert counted is not None
    assert counted(text) == len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_scripts_and_control_characters_are_counted_alike(name: str) -> None:
    tokenizer, texts = TOKENIZERS[name], ["हिन्दी काम", "x² ¼ ٣ \x1c\x1d a\u0301", "a\u200bb\u2028c", "ไทย \ufeff 𝔘𝟘"]
    counted = piece_counter(tokenizer, ["hello world"])
    assert counted is None or [counted(text) for text in texts] == [
        len(tokenizer.encode(text, add_special_tokens=False)) for text in texts
    ]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "KNOWN", 3)
    tokenizer = TOKENIZERS["llama"]
    counted = piece_counter(tokenizer, ["a"])
    assert counted is not None
    for text in ("a b", "c d", "e f g", "a b c d e f g h", "x" * 100):
        assert counted(text) == len(tokenizer.encode(text, add_special_tokens=False))
        assert len(counted._known) <= 3


def test_other_kinds_of_tokenizer_are_left_to_the_library() -> None:
    normalised, stripping, plain = byte_level(LLAMA), byte_level(LLAMA), Tokenizer(models.BPE())
    gaps = byte_level(r"[a-z]+")  # what lies between the matches is a piece too
    normalised.normalizer = normalizers.NFC()
    stripping.add_special_tokens([AddedToken("<pad>", lstrip=True)])
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    assert [piece_counter(made, CORPUS) for made in (normalised, stripping, plain, gaps)] == [None] * 4


def test_a_counter_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces.PieceCounter, "_encoded", lambda self, piece: 2)
    assert piece_counter(TOKENIZERS["llama"], CORPUS) is None


def test_rows_are_counted_alike_both_ways() -> None:
    from warehouse.records import Message

    rows = [(Message("user", text), Message("assistant", text[::-1])) for text in CORPUS]
    fast = counter(fetch("winnow-tiny"))
    slow = type(fast)(fast.tokenizer, fast.chat, _tried=True)
    assert fast(rows).tolist() == slow(rows).tolist()
    assert fast._by_piece is not None

"""Rows that were encoded lately are not encoded again, and are the same ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_rows import ROWS
from tokenizers import Tokenizer

from models import encoded
from models.chat import ChatFormat, Tokens, encode
from models.encoded import Encoded
from warehouse.records import Messages

Toy = tuple[Tokenizer, ChatFormat]
ASKED = st.lists(st.tuples(st.lists(st.sampled_from(ROWS), max_size=6), st.booleans()), max_size=5)


def plain(rows: list[Tokens]) -> list[tuple[list[int], list[bool], bool]]:
    return [(tokens.ids.tolist(), tokens.reply.tolist(), tokens.truncated) for tokens in rows]


@given(asked=ASKED, kept=st.integers(0, 200))
def test_remembered_rows_are_those_encoded_anew(toy: Toy, asked: list[tuple[list[Messages], bool]], kept: int) -> None:
    remembering = Encoded(*toy, kept)
    for rows, ask in asked:
        assert plain(remembering(rows, ask)) == plain(encode(*toy, rows, ask=ask))


def test_a_row_is_encoded_once_while_it_is_remembered(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(tokenizer: Tokenizer, chat: ChatFormat, rows: list[Messages], *, ask: bool) -> list[Tokens]:
        seen.append(len(rows))
        return encode(tokenizer, chat, rows, ask=ask)

    monkeypatch.setattr(encoded, "encode", counting)
    first, second = ROWS[0], ROWS[1]
    remembering = Encoded(*toy, kept=len(encode(*toy, [second])[0].ids))
    remembering([second, second])
    remembering([second])
    remembering([second], ask=True)  # another row, which leaves room for no other
    remembering([first, second])
    assert seen == [1, 0, 1, 2]

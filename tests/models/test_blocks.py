"""A prompt and its replies in one row: what is run, and that replies do not see each other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blocks import LONGEST, Block, read_blocks
from models.chat import Tokens
from models.local import LocalModel
from models.prefix import began

PROMPT = list(range(10, 22))


def replied(reply: list[int]) -> Tokens:
    ids = np.array([*PROMPT, *reply], np.int32)
    return Tokens(ids, np.arange(len(ids)) >= len(PROMPT))


def test_a_block_runs_the_prompt_once_and_no_last_token() -> None:
    block = Block([replied([5, 6, 7]), replied([8]), replied([9, 3])], 4, len(PROMPT))
    assert block.ids.tolist() == [*PROMPT[4:], 5, 6, 9]
    assert block.positions.tolist() == [*range(4, 12), 12, 13, 12]
    assert block.parts.tolist() == [1] * 8 + [2, 2, 4]


@given(
    st.lists(
        st.lists(st.lists(st.integers(3, 60), min_size=1, max_size=6), min_size=2, max_size=4), min_size=1, max_size=3
    ),
    st.integers(0, 11),
)
@settings(max_examples=15, deadline=None)
def test_replies_in_a_block_are_those_of_rows_by_themselves(
    tiny: LocalModel, groups: list[list[list[int]]], start: int
) -> None:
    assert tiny.takes_blocks
    rows = [[replied(reply) for reply in group] for group in groups]
    base = began(tiny, rows[0][0], start) if start else None
    found = read_blocks(tiny, [Block(group, start, len(PROMPT)) for group in rows], base)
    for told, group in zip(found, rows, strict=True):
        for each, expected in zip(told, tiny.read_replies(group), strict=True):
            assert np.abs(each - expected).max() < 1e-5


def test_long_rows_are_left_to_copies_of_the_prompt(tiny: LocalModel) -> None:
    from models.prefix import logprobs

    tokens = [replied([*range(20, 60)] * 4), replied([5, 6])]
    assert sum(len(t.ids) for t in tokens) - len(PROMPT) < LONGEST
    before = tiny.tokens_processed
    logprobs(tiny, tokens, [np.array([0, 1])])
    assert tiny.tokens_processed - before == len(PROMPT) + 159 + 1
    more = [*tokens, replied([*range(20, 60)] * 4)]
    found = logprobs(tiny, more, [np.array([0, 1, 2])])
    assert np.abs(found[0] - found[2]).max() < 1e-5
    assert np.abs(found[0] - tiny.read_replies(tokens)[0]).max() < 1e-4

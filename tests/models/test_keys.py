"""Room behind keys and values: the same numbers as transformers' own cache, whatever comes and whoever leaves."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from models.keys import GROWTH, Roomy, Space, Written, cache_of, fork, keep, keeps_all

Step = tuple[int, list[int]]  # tokens that come, then numbers that decide who stays in which order


def parts(n: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.randn(2, n, 2, tokens, 4, generator=torch.Generator().manual_seed(seed))
    return drawn[0], drawn[1]


def filled(n: int, tokens: int, seed: int = 0) -> Any:
    cache = DynamicCache()
    cache.update(*parts(n, tokens, seed), 0)
    return cache


def same(ours: Any, theirs: Any) -> bool:
    a, b = ours.layers[0], theirs.layers[0]
    return torch.equal(a.keys, b.keys) and torch.equal(a.values, b.values)


@given(
    st.integers(1, 5), st.integers(1, 9), st.lists(st.tuples(st.integers(1, 40), st.permutations(range(5))), max_size=4)
)
@settings(deadline=None)
def test_what_is_written_and_kept_is_what_transformers_keeps(n: int, tokens: int, steps: list[Step]) -> None:
    theirs = filled(n, tokens)
    ours = fork(theirs)
    for seed, (new, order) in enumerate(steps):
        n = len(ours.layers[0].keys)
        for cache in (ours, theirs):
            cache.update(*parts(n, new, seed), 0)
        assert same(ours, theirs)
        rows = [row for row in order if row < n][: max(1, n - seed)]
        keep(ours, rows, torch.device("cpu"))
        theirs.reorder_cache(torch.tensor(rows))
        assert same(ours, theirs)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_step_copies_nothing_while_there_is_room() -> None:
    cache = fork(filled(3, 5))
    place = cache.layers[0].keys.data_ptr()
    for _ in range(GROWTH):
        cache.update(*parts(3, 1, 1), 0)
        assert cache.layers[0].keys.data_ptr() == place
    cache.update(*parts(3, 1, 1), 0)
    assert cache.layers[0].keys.data_ptr() != place


def test_a_fork_is_written_on_and_its_origin_is_not() -> None:
    origin = filled(2, 3)
    forked = fork(origin, torch.tensor([1, 0, 1]), room=2)
    expected = origin.layers[0].keys[[1, 0, 1]]
    forked.update(*parts(3, 2, 1), 0)
    assert torch.equal(forked.layers[0].keys[:, :, :3], expected)
    assert origin.get_seq_length() == 3
    assert torch.equal(fork(filled(1, 3), torch.tensor([0, 0])).layers[0].keys, filled(1, 3).layers[0].keys[[0, 0]])


def test_rows_written_part_by_part_end_together_and_begin_with_zeros() -> None:
    space, long, short = Space(5, 7), parts(2, 5, 0), parts(3, 3, 1)
    caches: list[Any] = [cache_of([Written(space, first, 5)]) for first in (0, 2)]
    assert [cache.update(*part, 0)[0] is part[0] for cache, part in zip(caches, (long, short), strict=True)]
    assert [cache.get_seq_length() for cache in caches] == [5, 3]
    whole = Roomy(space.parts, 5, 5)
    assert torch.equal(whole.keys[:2], long[0])
    assert torch.equal(whole.values[2:, :, 2:], short[1])
    assert not whole.keys[2:, :, :2].any()
    assert torch.equal(caches[1].layers[0].values, short[1])
    place = whole.keys.data_ptr()
    whole.update(*parts(5, 2, 2))
    assert whole.keys.data_ptr() == place


def test_a_window_of_attention_does_not_keep_all() -> None:
    from transformers import MistralConfig

    assert keeps_all(filled(1, 2))
    assert keeps_all(fork(filled(1, 2)))
    assert not keeps_all(DynamicCache(config=MistralConfig(num_hidden_layers=1, sliding_window=8)))

"""Ids in arrays are found as in a dictionary, also where two agree in their first half."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from warehouse.ids import IdIndex, as_ids

IDS = st.lists(
    st.tuples(st.sampled_from(["0" * 16, "f" * 16, "8" * 16]), st.sampled_from(["0" * 16, "1" * 16, "f" * 16])).map(
        "".join
    ),
    max_size=12,
)


@given(held=IDS, asked=IDS)
def test_the_first_place_is_found(held: list[str], asked: list[str]) -> None:
    index = IdIndex(as_ids(held))
    first = {name: place for place, name in reversed(list(enumerate(held)))}
    assert index.find(as_ids(asked)).tolist() == [first.get(name, -1) for name in asked]
    assert index.firsts().tolist() == sorted(first.values())


def test_many_distinct_ids() -> None:
    rng = np.random.default_rng(0)
    names = [f"{a:016x}{b:016x}" for a, b in rng.integers(0, 2**63, (5000, 2)).tolist()]
    order = rng.permutation(5000)
    found = IdIndex(as_ids(names)).find(as_ids([names[i] for i in order]))
    assert np.array_equal(found, order)

"""Slices: every item in one slice of each way, small ones without a verdict."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from eval.items import ItemRow, item_table
from eval.slices import UNSAID, groups, slices

N = 120


def table(right: np.ndarray, **labels: Any) -> pa.Table:
    rows = [
        ItemRow(f"{i:03}", "g", "q", "r", "r", "g", "exact_match", float(v), 3, None, "p", "d", "t")
        for i, v in enumerate(right)
    ]
    return item_table([replace(r, **{k: v[i] for k, v in labels.items()}) for i, r in enumerate(rows)])


ABILITY = ["add" if i < 8 else "copy" if i < 60 else "sort" for i in range(N)]
LENGTHS = [i // 3 for i in range(N)]
MINE = table(np.arange(N) < 60, ability=ABILITY, prompt_tokens=LENGTHS, choices=[2] * N)
OTHER = table(np.zeros(N), ability=ABILITY, prompt_tokens=LENGTHS, choices=[2] * N)


def test_slices_show_where_the_gain_is() -> None:
    found = {(s.by, s.name): s for s in slices({0: MINE}, {0: OTHER}, "exact_match", np.random.default_rng(0))}
    assert {name: found["ability", name].n for name in ("add", "copy", "sort")} == {"add": 8, "copy": 52, "sort": 60}
    assert found["ability", "copy"].verdict == "better"
    assert found["ability", "sort"].verdict.startswith("no difference shown")
    assert found["ability", "sort"].value.value == 0
    assert found["ability", "add"].gain is not None
    assert found["ability", "add"].verdict == ""  # 8 items
    assert found["ability", "add"].chance == 0.5
    assert {by for by, _ in found} == {"ability", "prompt length"}


def test_every_item_is_in_one_quarter() -> None:
    quarters = groups(MINE)["prompt length"]
    assert len(quarters) == N
    assert list(dict.fromkeys(quarters.values())) == [
        "0 to 9 tokens",
        "10 to 19 tokens",
        "20 to 29 tokens",
        "30 to 39 tokens",
    ]


def test_many_equal_lengths_make_fewer_quarters() -> None:
    uneven = table(np.ones(N), prompt_tokens=[5] * 100 + list(range(6, 26)))
    assert list(dict.fromkeys(groups(uneven)["prompt length"].values())) == ["5 to 5 tokens", "6 to 25 tokens"]
    assert "prompt length" not in groups(table(np.ones(N), prompt_tokens=[5] * N))


def test_what_is_not_said_is_a_slice_where_others_say_it() -> None:
    some = table(np.ones(N), language=["de"] * 20 + [""] * 100)
    assert set(groups(some)["language"].values()) == {"de", UNSAID}
    assert groups(table(np.ones(N))) == {}


def test_without_another_arm_there_is_no_gain() -> None:
    assert all(
        s.gain is None and s.verdict == "" for s in slices({0: MINE}, None, "exact_match", np.random.default_rng(0))
    )

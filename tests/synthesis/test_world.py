"""Laws of the world: every row is what its meta says, splits share no problem, partitions change nothing."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.dialogue import Emit
from synthesis.machine import OPS
from synthesis.skill import SPLITS, split_of
from synthesis.skills import SKILLS
from synthesis.table import SYNTHESIZERS
from synthesis.tint import RENDERINGS, Tint
from synthesis.world import DEFAULT_SOURCES, FAMILIES, SOURCES, World
from warehouse.errors import InputError
from warehouse.records import Example, canonical

ROWS = 3000


@pytest.fixture(scope="module")
def pool() -> Sequence[Example]:
    return tuple(World(rows=ROWS).examples(5, 0, ROWS))


def reply(row: Example) -> str:
    return row.messages[-1].content


def test_a_dozen_skills_six_sources():
    assert len(SKILLS) >= 12
    assert "tint" in FAMILIES
    assert set(DEFAULT_SOURCES) == {"clean", "static_noise", "dynamic_noise", "wrong_skill", "duplicated", "verbose"}


@pytest.mark.parametrize("name", SKILLS)
def test_skill_has_several_phrasings_and_statements_that_differ(name):
    skill = SKILLS[name]
    assert len(set(skill.phrasings)) >= 4
    assert len(set(skill.statements)) >= 3
    assert not set(skill.phrasings) & set(skill.statements)


@pytest.mark.parametrize("name", SKILLS)
def test_every_phrasing_names_the_same_problem(name):
    skill = SKILLS[name]
    slots = skill.draw(np.random.default_rng(0))
    texts = {phrasing.format(**slots) for phrasing in skill.phrasings}
    assert len(texts) == len(skill.phrasings)
    assert skill.identity(slots) == skill.identity(dict(reversed(slots.items())))


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 60), max_size=4), st.sampled_from(SPLITS))
@settings(max_examples=12, deadline=None)
def test_any_partition_gives_the_same_rows(seed, cuts, split):
    world = World(rows=60, split=split, skills=("reverse", "lookup", "tint"))
    edges = [0, *sorted(cuts), 60]
    parts = [row for start, stop in pairwise(edges) for row in world.examples(seed, start, stop)]
    assert parts == list(world.examples(seed, 0, 60))


def test_the_seed_decides_every_row():
    world = World(rows=40)
    assert list(world.examples(1, 0, 40)) == list(world.examples(1, 0, 40))
    assert list(world.examples(1, 0, 40)) != list(world.examples(2, 0, 40))


def test_no_problem_is_in_two_splits(pool):
    problems = {"pool": {row.meta["problem"] for row in pool}}
    for split in SPLITS[1:]:
        rows = list(World(rows=800, split=split).examples(6, 0, 800))
        problems[split] = {row.meta["problem"] for row in rows}
        assert len(problems[split]) == len(rows), "a held-out problem comes once"
        assert {row.meta["noise"] for row in rows} == {"clean"}
        assert {row.source for row in rows} == {"clean"}
    for split, found in problems.items():
        assert {split_of(problem) for problem in found} == {split}


def test_the_split_of_a_sum_is_that_of_its_mirror():
    arithmetic = SKILLS["arithmetic"]
    one, other = ({"a": a, "b": b, "op": "plus"} for a, b in (("34", "27"), ("27", "34")))
    assert arithmetic.identity(one) == arithmetic.identity(other)


def test_every_split_of_every_skill_is_big_enough_for_a_test():
    for name in SKILLS:
        assert len(list(World(rows=70, split="test", skills=(name,)).examples(0, 0, 70))) == 70


def test_running_out_of_problems_is_said():
    world = World(rows=100_000, split="test", skills=("sequence",))
    with pytest.raises(InputError, match=r"holds about .* problems"):
        list(world.examples(0, 0, world.rows))


def test_meta_says_what_a_check_needs(pool):
    keys = {"skill", "source", "noise", "problem", "answer", "n_corrupted", "first_bad_step", "final_correct", "log"}
    for row in pool:
        assert set(row.meta) == keys
        assert row.meta["source"] == row.source
        assert json.loads(canonical(row.meta)) == row.meta


def test_shares_of_sources_and_skills_are_respected(pool):
    sources = Counter(row.source for row in pool)
    for source, share in DEFAULT_SOURCES.items():
        assert abs(sources[source] / ROWS - share) < 5 * (share * (1 - share) / ROWS) ** 0.5
    skills = Counter(row.meta["skill"] for row in pool)
    assert set(skills) == set(FAMILIES)
    assert max(skills.values()) < 1.6 * min(skills.values())


def test_contamination_is_the_share_that_noise_touches():
    world = World(rows=1000, sources={"dynamic_noise": 1.0}, skills=("reverse", "arithmetic"), contamination=0.4)
    noises = Counter(row.meta["noise"] for row in world.examples(0, 0, 1000))
    assert abs(noises["dynamic"] / 1000 - 0.4) < 0.08


def test_a_reply_is_right_iff_its_row_says_so(pool):
    for row in pool:
        if row.meta["noise"] == "verbose":
            assert row.meta["answer"] in reply(row)
            assert reply(row) != row.meta["answer"]
        elif row.meta["skill"] != "tint":
            assert (reply(row) == row.meta["answer"]) == row.meta["final_correct"]
        assert row.meta["final_correct"] or row.meta["noise"] in ("dynamic", "wrong_skill")


def test_the_stored_answer_is_the_answer_to_the_question():
    """Re-deriving answers from the text of clean questions, for skills whose operands can be read off it."""
    rows = World(rows=400, skills=("reverse", "arithmetic", "comparison"), sources={"clean": 1.0}).examples(3, 0, 400)
    for row in rows:
        skill, *problem = json.loads(row.meta["problem"])
        if skill == "reverse":
            right = problem[0][::-1]
        elif skill == "arithmetic":
            op, a, b = problem[0], int(problem[1]), int(problem[2])
            right = str(a + b if op == "plus" else abs(a - b))
        else:
            right = str((max if problem[0] == "larger" else min)(int(problem[1]), int(problem[2])))
        assert reply(row) == row.meta["answer"] == right


def test_static_noise_leaves_operands_and_answer(pool):
    static = [row for row in pool if row.meta["noise"] == "static" and row.meta["skill"] == "reverse"]
    assert static
    for row in static:
        assert row.meta["answer"][::-1] in row.messages[0].content
        assert reply(row) == row.meta["answer"]
        assert row.meta["n_corrupted"] >= 1


def test_dynamic_rows_follow_from_their_log(pool):
    dynamic = [row for row in pool if row.meta["noise"] == "dynamic" and row.meta["skill"] != "tint"]
    assert dynamic
    for row in dynamic:
        (entry,) = row.meta["log"]
        assert entry["before"] == row.meta["answer"] != entry["after"] == reply(row)


def test_duplicates_are_duplicates(pool):
    copies = Counter(row.sample_id for row in pool if row.source == "duplicated")
    assert len(copies) <= round(ROWS * DEFAULT_SOURCES["duplicated"] / World().copies)
    assert sum(copies.values()) / len(copies) > 4
    rows = defaultdict(set)
    for row in pool:
        if row.source == "duplicated":
            rows[row.sample_id].add(canonical(row.meta))
    assert all(len(metas) == 1 for metas in rows.values())


def test_a_synthesizer_emits_all_rows_from_the_rng():
    def emitted(name, **params):
        rounds = list(SYNTHESIZERS[name](**params)([], np.random.default_rng(4)))
        assert all(isinstance(request, Emit) for requests in rounds for request in requests)
        return [accepted.example for (emit,) in rounds for accepted in emit.rows]

    assert len(emitted("world", rows=1234, skills=["shift", "reverse"])) == 1234
    assert emitted("world", rows=50) == emitted("world", rows=50)
    assert len(emitted("tint", rows=20, split="target")) == 20


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"skills": ["juggling"]}, "juggling.*reverse"),
        ({"skills": []}, "no skills"),
        ({"sources": {"gossip": 1.0}}, "gossip.*verbose"),
        ({"sources": {"clean": 0.5}}, "sum to"),
        ({"split": "train"}, "train.*pool"),
        ({"split": "test", "sources": {"clean": 1.0}}, "always clean"),
        ({"rows": 0}, "at least 1"),
        ({"contamination": 1.5}, "probability"),
        ({"p_char": -0.1}, "probability"),
    ],
)
def test_what_a_recipe_may_get_wrong(params, message):
    with pytest.raises(InputError, match=message):
        World(**params)


def test_the_page_names_every_skill_source_split_and_parameter():
    page = (Path(__file__).parents[2] / "docs" / "world.md").read_text(encoding="utf-8")
    parameters = {field.name for synthesizer in (World, Tint) for field in fields(synthesizer)}
    named = {*FAMILIES, *SOURCES, *SPLITS, *OPS, *RENDERINGS, *parameters, "tint", "world"}
    assert not {name for name in named if f"`{name}`" not in page}

"""A race small enough for a test: generated rows, the shipped tiny model, two methods, one epoch."""

from pathlib import Path

import pytest

RECIPE = """\
name: small
pool:
  - synthesize: world
    params: {rows: 300, split: pool, skills: [reverse, lookup, units]}
target:
  - synthesize: world
    params: {rows: 8, split: target, skills: [reverse]}
test:
  - synthesize: world
    params: {rows: 12, split: test, skills: [reverse]}
methods: [random, balanced_random, rds_plus]
budgets: [24]
seeds: [0, 1]
train:
  base: winnow-tiny
  trainer: sft_tiny
  params: {epochs: 1}
tasks:
  - name: exact_match
    max_tokens: 12
"""


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the small race's recipe."""
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path

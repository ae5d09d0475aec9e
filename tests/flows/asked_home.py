"""A small real home to ask: a pool of two versions, cleaned, raced and evaluated, with all that a person asks about."""

import json
from pathlib import Path

from flows import recipes
from flows.engine import PlainEngine
from flows.race import check, race
from flows.run import Silent
from flows.workers import HereWorkers

RECIPE = """\
name: asked
pool:
  - path: notes.jsonl
    licence: CC-BY-4.0
  - synthesize: world
    params: {rows: 110, split: pool, skills: [reverse, lookup, units]}
target:
  - synthesize: world
    params: {rows: 6, split: target, skills: [reverse]}
test:
  - synthesize: world
    params: {rows: 8, split: test, skills: [reverse]}
clean:
  - duplicate_id
  - exact_duplicate
  - {name: length, max_chars: 400}
  - {name: language, keep: [en], action: flag}
methods: [balanced_random, rds_plus]
budgets: [20]
seeds: [0, 1]
train:
  base: winnow-tiny
  trainer: sft_tiny
  params: {epochs: 1}
tasks:
  - name: exact_match
    max_tokens: 12
"""


def note(number: int) -> dict[str, str]:
    """A row of text that says how one keeps things."""
    return {
        "instruction": f"How do I keep {number} apples fresh over the winter?",
        "output": f"Wrap each of the {number} apples in paper and store them in a cool, dark cellar.",
        "category": "advice",
        "license": "MIT" if number % 2 else "",
    }


def notes(n: int) -> str:
    """`n` notes, two of them twice, one far too long, one without an answer, and one line that is no JSON."""
    rows = [note(number) for number in (*range(2, n + 2), 2, 3)]
    rows += [{**note(1), "output": "Wrap it. " * 100}, {**note(1), "output": ""}]
    return "".join(json.dumps(row) + "\n" for row in rows) + '{"instruction": \n'


def build(folder: Path) -> Path:
    """The home in `folder`: a first run that only selects, then the race over a pool that has grown."""
    path = folder / "asked.yaml"
    path.write_text(RECIPE)
    for n, overrides in ((20, ["train=null", "tasks=[]", "methods=[random]"]), (30, [])):
        (folder / "notes.jsonl").write_text(notes(n))
        recipe = recipes.load(path, overrides)
        check(recipe)
        race(recipe, folder / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())
    return folder / "home"

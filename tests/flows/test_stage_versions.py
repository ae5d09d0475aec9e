"""A stage whose code changes its output must bump its version: what every stage makes is compared with what it made.

The stages that go through a model's floating-point sums (measure, train, evaluate, and compare after them) are not
here: their last bits differ between processors. `python tests/flows/test_stage_versions.py` writes the record anew.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows import recipes
from flows.engine import PlainEngine
from flows.race import race
from flows.run import Silent
from flows.workers import HereWorkers
from warehouse.store import Artifact, Store

RECORD = Path(__file__).with_name("stage_versions.json")
# keys change with any version before them, times with every run
VOLATILE = {"pool", "other_pool", "cleaning", "selection", "generation", "description", "tokenizer", "made", "params"}
RECIPE = """\
name: golden
pool:
  - path: rows.jsonl
    licence: Apache 2.0
  - synthesize: world
    params: {rows: 200, split: pool, skills: [reverse, lookup, units]}
target:
  - synthesize: world
    params: {rows: 8, split: target, skills: [reverse]}
test:
  - synthesize: world
    params: {rows: 12, split: test, skills: [reverse]}
clean:
  - duplicate_id
  - exact_duplicate
  - length
  - refusal
  - {name: language, keep: [en], action: flag}
  - pii
  - {name: near_duplicate, threshold: 0.7}
  - contamination
methods: [random, balanced_random, lexical, {name: length, unit: characters}]
budgets: [24]
"""
ROWS = [
    {"id": 1, "instruction": "Write to ann@firm.net about the river.", "output": "Dear Ann, the river is high today."},
    {"id": 1, "instruction": "Again?", "output": "The id is taken."},
    {"instruction": "Say no.", "output": "I'm sorry, but I can't help with that request."},
    {"instruction": "Warum ist der Himmel blau?", "output": "Weil das Licht in der Luft gestreut wird, mein Freund."},
    {"instruction": "What is 2 + 3?", "output": "2 + 3 = 5"},
    {"instruction": "What is 2 + 3?", "output": "2 + 3 = 5"},
    {"instruction": "Empty?", "output": " "},
    {"messages": [{"role": "user", "content": "Code?"}, {"role": "assistant", "content": "```python\nprint(1)\n```"}]},
]


def made(folder: Path) -> dict[str, dict[str, object]]:
    """Version and digest of what every stage of one run makes."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "golden.yaml").write_text(RECIPE)
    recipe = recipes.load(folder / "golden.yaml", ())
    race(recipe, folder / "home", "run", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())
    digests: dict[tuple[str, int], list[str]] = {}
    for artifact in Store(folder / "home").artifacts():
        digests.setdefault((name_of(artifact), version_of(artifact)), []).append("".join(content(artifact)))
    return {
        name: {"version": version, "digest": hashlib.sha256("".join(sorted(parts)).encode()).hexdigest()[:16]}
        for (name, version), parts in sorted(digests.items())
    }


def name_of(artifact: Artifact) -> str:
    """The stage, and of a cleaning stage its filters: each pool filter has a version of its own."""
    filters = artifact.manifest["params"].get("filters", []) if artifact.stage == "clean" else []
    return " ".join([artifact.stage, *(entry["filter"] for entry in filters)])


def version_of(artifact: Artifact) -> int:
    filters = artifact.manifest["params"].get("filters", []) if artifact.stage == "clean" else []
    return int(artifact.manifest["version"]) * 100 + sum(entry["version"] for entry in filters)


def content(artifact: Artifact) -> Iterator[str]:
    for name in sorted(artifact.manifest["files"]):
        path = artifact.folder / name
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
            yield name + json.dumps(table.drop_columns(sorted(VOLATILE & set(table.column_names))).to_pylist())
        else:
            yield name + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_changed_output_has_a_new_version(tmp_path: Path) -> None:
    known, found = json.loads(RECORD.read_text()), made(tmp_path)
    again = f"; then run `python {Path(__file__).name}` beside it to write the record anew"
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) == found.get(name):
            continue
        if name not in known or name not in found or known[name]["version"] != found[name]["version"]:
            pytest.fail(f"{name}: the stage is new, gone or of another version{again}")
        pytest.fail(f"{name}: the output changed and the version did not: bump it{again}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        RECORD.write_text(json.dumps(made(Path(scratch)), indent=1) + "\n")
    sys.stdout.write(RECORD.read_text())

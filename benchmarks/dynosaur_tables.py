"""Dynosaur over real tables, from tables to rows, with a designer that answers by rule where a strong model would.

    python -m benchmarks.dynosaur_tables --real-data FOLDER

The whole of `winnow synth`: an endpoint, the response store, filters, the pool. The designer proposes for each table to
write each of its first fields from all others, and now and then what a model gets wrong: a field that is not there,
two outputs, no form. So the table says what becomes of any admissible table's rows, and nothing of how good tasks are.
All replies are recorded: the last table comes last, in a run of its own, and then all is run once more.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.dynosaur_published import tables
from flows.engine import PlainEngine
from flows.recipes import Recipe
from flows.run import Silent
from flows.synth.job import check, synth
from flows.synth.outcome import SynthOutcome
from flows.workers import HereWorkers
from synthesis.dynosaur.proposal import MOST_TASKS
from warehouse.catalogue import query

FIELDS = "Every field that you name must be one of "
WITH_ROWS = "SELECT DISTINCT json_extract_string(meta, '$.dataset') AS name FROM samples"
OFF = [{"name": name, "action": "off"} for name in ("exact_duplicate", "near_duplicate")]  # a funnel of its own


def designed(asked: str) -> str:
    """What the designer replies to a prompt of `dynosaur`, a function of the prompt; to what a probe asks, no task."""
    if FIELDS not in asked:
        return '{"tasks": []}'
    names: list[str] = json.JSONDecoder().raw_decode(asked.rpartition(FIELDS)[2])[0]
    turn = len(asked) % 10
    if turn == 0:
        return "I cannot think of any task for this data set."
    tasks: list[dict[str, Any]] = [
        {"instruction": f"Write the {name.replace('_', ' ')} that belongs to what is given.",
         "input_fields": [other for other in names if other != name], "output_field": name}
        for name in names[:MOST_TASKS]
    ]  # fmt: skip
    if turn == 1:
        tasks[0]["output_field"] = "a field that is not there"
    if turn == 2:
        tasks[0]["output_field"] = names[:2]
    return json.dumps({"tasks": tasks}, ensure_ascii=False)


class Designer(BaseHTTPRequestHandler):
    """A chat endpoint that replies what is `designed`."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if FIELDS in prompt:
            type(self).asked.append(prompt)
        choice = {"index": 0, "message": {"role": "assistant", "content": designed(prompt)}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 60}
        reply = json.dumps({"model": body["model"], "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *told: Any) -> None:
        """Requests are counted, not told."""


@contextmanager
def serving() -> Iterator[tuple[str, Sequence[str]]]:
    """The address of a designer, and the prompts it was asked so far, those of a probe left out."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Designer,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    server.shutdown()
    server.server_close()


def written(real: Path, folder: Path) -> list[Mapping[str, Any]]:
    """Every annotated table as a file of its own, and what a recipe says of it."""
    found = list[Mapping[str, Any]]()
    for place, (card, rows) in enumerate(tables(real)):
        path = folder / f"{place}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
        found.append({"path": str(path), "name": card.name, "description": card.description, "licence": card.licence})
    return found


def made(folder: Path, url: str, given: Sequence[Mapping[str, Any]]) -> SynthOutcome:
    recipe = Recipe.model_validate({
        "name": "tables",
        "pool": [{"synthesize": "dynosaur", "models": {"generator": "designer"}, "params": {"tables": given}}],
        "clean": OFF,
        "endpoints": {"designer": {"base_url": url, "model": "by rule", "prices": {"input": "0", "output": "0"}}},
    })  # fmt: skip
    check(recipe)
    return synth(recipe, folder / "home", "synth", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


def why(home: Path, name: str) -> str:
    """The reasons for which what was proposed for a table made no row."""
    reasons = query(home, f"SELECT DISTINCT reason FROM rejects WHERE split_part(detail, ':', 1) = {name!r} ORDER BY 1")
    return ", ".join(row["reason"] for row in reasons.to_pylist())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-data", type=Path, required=True, help="the folder that holds tables/")
    real = parser.parse_args().real_data
    with tempfile.TemporaryDirectory() as scratch, serving() as (url, asked):
        folder = Path(scratch)
        given = written(real, folder)
        for title, some in (("all but the last", given[:-1]), ("one more", given), ("the same again", given)):
            before, start = len(asked), time.perf_counter()
            outcome = made(folder, url, some)
            [found] = outcome.syntheses
            print(f"\n{title}: {len(some)} tables, {len(asked) - before} requests, {found['accepted']:,} rows, "
                  f"{time.perf_counter() - start:.0f} s")  # fmt: skip
            for reason, count in found["refused"].items():
                print(f"  {count:>7,}  {reason}")
        names = {card["name"] for card in given} - {
            row["name"] for row in query(folder / "home", WITH_ROWS).to_pylist()
        }
        print(f"\ntables without a row in the pool: {len(names)}")
        for reason, count in Counter(why(folder / "home", name) for name in names).most_common():
            print(f"  {count:>7,}  {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

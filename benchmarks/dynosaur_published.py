"""Dynosaur's filters over the tasks that its authors published, and over real tables: what is kept, and why the rest
is not.

    python -m benchmarks.dynosaur_published --real-data FOLDER
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from models.dialogue import Accepted, Rejected
from synthesis.dynosaur.card import Card, Row, named_labels
from synthesis.dynosaur.labels import Labels, labels_of
from synthesis.dynosaur.proposal import Proposal, Task, task_of
from synthesis.dynosaur.tables import Dynosaur, rows_of_task, unfit
from synthesis.dynosaur.truncation import is_identifier, shown
from synthesis.fault import Fault
from warehouse.licences import normalised_licence

LISTED = " Answers must be one of "
CUT = 4000  # characters of a card's features that the file holds; longer ones are no JSON any more
ROWS = 100  # of a table, as the paper reads them


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist()
    return rows


def known_columns(cards: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """The columns of each configuration by the name that the authors gave it: `dataset-config`, or `dataset`."""
    found = dict[str, frozenset[str]]()
    for card in cards:
        columns = frozenset(json.loads(card["features"]))
        found[f"{card['name']}-{card['config']}"] = columns
        if card["n_configs"] == 1:
            found[card["name"]] = columns
    return found


def published(tasks: Iterable[Mapping[str, Any]], columns: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """(what, data set) of each published task: the reason of step 3, "kept", and "instruction twice" beside those.

    Columns are checked where a card of the data set is at hand; otherwise every field counts as a column.
    """
    seen: dict[str, set[Task]] = defaultdict(set)
    for row in tasks:
        given, wanted = json.loads(row["input_fields"]), json.loads(row["output_field"])
        instruction = row["instruction"].split(LISTED)[0]
        proposal = Proposal(instruction, tuple(given), tuple(wanted))
        name = row["task_name"]
        found = task_of(proposal, columns.get(name, frozenset((*given, *wanted))), ())
        if isinstance(found, Fault):
            yield found.reason, name
        elif found in seen[name]:
            yield "same_task", name
        else:
            if instruction in {task.instruction for task in seen[name]}:
                yield "(kept, same instruction as another task of the data set)", name
            seen[name].add(found)
            yield "kept", name


def tables(folder: Path) -> Iterator[tuple[Card, list[Row]]]:
    """The annotated data sets with their first rows, labels named."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read(folder, "rows"):
        rows[row["dataset"]].append(json.loads(row["row"]))
    for one in read(folder, "datasets"):
        labels = json.loads(one["labels"] or "[]") or []
        fields = [field["name"] for field in json.loads(one["fields"] or "[]")]
        named = {"label": labels} if "label" in fields and isinstance(labels, list) else {}
        card = Card("rows.parquet", one["name"], one["description"] or "", one["license"] or "", labels=named)
        yield card, [named_labels(row, card.labels) for row in rows[one["name"]][:ROWS]]


def every_column(card: Card, rows: Sequence[Row], visible: Sequence[Row]) -> Iterator[str]:
    """What comes of the tasks that write each visible column from all others."""
    names = list(visible[0])
    for name in names:
        task = Task("Fill in what is missing.", tuple(other for other in names if other != name), name)
        labels = labels_of([row.get(name) for row in rows])
        if isinstance(labels, Labels):
            yield f"task: {'labels listed' if labels.listed else 'labels not listed' if labels.spelling else 'open'}"
        for made in rows_of_task(card, rows, names, "unaware", task):
            if isinstance(made, Rejected):
                yield f"{'task' if isinstance(labels, Fault) else 'row'}: {made.reason}"
            elif isinstance(made, Accepted):
                yield "row: kept" + (", task flagged as a leak" if made.example.meta["leak"] else "")


def at_hand(tasks: Iterable[Mapping[str, Any]], there: Iterable[tuple[Card, list[Row]]]) -> Iterator[str]:
    """What steps 4 and 5 make of published tasks of data sets whose rows are there, beside the authors' labels."""
    known = {card.name.lower(): (card, rows) for card, rows in there}
    for published_task in tasks:
        name = published_task["task_name"].lower().removeprefix("glue-")
        given, wanted = json.loads(published_task["input_fields"]), json.loads(published_task["output_field"])
        if name not in known or len(wanted) != 1 or not {*given, *wanted} <= set(known[name][1][0]):
            continue
        card, rows = known[name]
        instruction, _, listed = published_task["instruction"].partition(LISTED)
        labels = labels_of([row.get(wanted[0]) for row in rows])
        ours = labels.reason if isinstance(labels, Fault) else ", ".join(labels.listed) or "no list"
        made = rows_of_task(card, rows, list(shown(rows)[0]), "unaware", Task(instruction, tuple(given), wanted[0]))
        kept = sum(isinstance(row, Accepted) for row in made)
        yield f"{card.name}: {instruction[:60]} | ours: {ours} | theirs: {listed or 'no list'} | {kept} rows"


def report(title: str, counts: Counter[str]) -> None:
    print(f"\n{title}")
    for what, count in counts.most_common():
        print(f"  {count:>7,}  {what}")


def licences(names: Iterable[str]) -> Counter[str]:
    job = Dynosaur([{"path": "any.csv", "name": "any"}])
    faults = (job.licence_fault(normalised_licence(name) if name else "") for name in names)
    return Counter(fault.reason if fault else "kept" for fault in faults)


def columns_hidden(cards: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Columns of all configurations: hidden as identifiers, and those that only hold the two letters `id`."""
    names = [name for card in cards for name in json.loads(card["features"])]
    hidden = Counter("identifier" for name in names if is_identifier(name))
    spared = [name for name in names if "id" in name.lower() and not is_identifier(name)]
    hidden["holds the letters id, and is shown"] = len(spared)
    hidden["other"] = len(names) - hidden.total()
    print(f"\nexamples of the second kind: {', '.join(sorted(set(spared))[:12])}")
    return hidden


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-data", type=Path, required=True, help="the folder that holds tables/")
    folder = parser.parse_args().real_data
    cards = [card for card in read(folder, "hf_dataset_cards") if len(card["features"]) < CUT]
    columns = known_columns(cards)
    tasks = read(folder, "dynosaur_instructions")
    found = list(published(tasks, columns))
    checked = [what for what, name in found if name in columns]
    report(f"{len(tasks):,} published tasks, step 3", Counter(what for what, _ in found))
    report("of these, of data sets whose columns are known", Counter(checked))
    report(
        f"licences of {len(cards):,} hub configurations",
        licences((json.loads(c["license_tags"]) or [""])[0] for c in cards),
    )
    report("columns of these configurations", columns_hidden(cards))
    there = list(tables(folder))
    report(f"licences of {len(there)} annotated tables", licences(card.licence for card, _ in there))
    print("\npublished tasks of tables at hand")
    for line in at_hand(tasks, there):
        print(f"  {line}")
    fit = [(card, rows, shown(rows), unfit(rows, shown(rows))) for card, rows in there]
    report("tables that can be shown", Counter(fault.reason if fault else "kept" for *_, fault in fit))
    made = (what for card, rows, visible, fault in fit if not fault for what in every_column(card, rows, visible))
    report("each visible column from all others, first 100 rows", Counter(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())

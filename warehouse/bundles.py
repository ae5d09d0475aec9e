"""A folder that trainers open as it is: the rows, how LLaMA-Factory and axolotl read them, and what they are."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from warehouse.errors import InputError
from warehouse.export import Row, Types, check_folder, export_rows, replacing_folder, save
from warehouse.records import Example

ROWS_FILE, ROWS_FOLDER = "rows.parquet", "rows"  # of one schema: readers of JSON guess it anew for each part
README, LLAMA_FACTORY, AXOLOTL = "README.md", "dataset_info.json", "axolotl.yaml"
NAMES = (ROWS_FILE, ROWS_FOLDER, README, LLAMA_FACTORY, AXOLOTL)
SAVED = "datasets"  # the format that is a folder for `datasets.load_from_disk`
UNKNOWN_LICENCE = "not known"

# The keys that LLaMA-Factory's data/README.md documents for dataset_info.json; where `tags` or `columns` are given at
# all it takes every one that is missing for null, so all are spelt out.
_SHAREGPT_TAGS = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "observation_tag": "tool",
    "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
_MESSAGES_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "observation_tag": "tool", "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip
LLAMA_FACTORY_ENTRIES: dict[str, dict[str, Any]] = {
    "messages": {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": _MESSAGES_TAGS},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}, "tags": _SHAREGPT_TAGS},
    "alpaca": {
        "formatting": "alpaca",
        "columns": {
            "prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history",
        },
    },
}  # fmt: skip

# The keys of a `datasets` entry of an axolotl configuration (docs/dataset-formats/conversation.qmd).
_CHAT: dict[str, Any] = {
    "type": "chat_template",
    "field_messages": "messages",
    "message_property_mappings": {"role": "role", "content": "content"},
}
AXOLOTL_ENTRIES: dict[str, dict[str, Any]] = {
    "messages": {"path": ROWS_FILE, "ds_type": "parquet", **_CHAT},
    SAVED: {"path": ROWS_FOLDER, **_CHAT},
    "sharegpt": {
        "path": ROWS_FILE,
        "ds_type": "parquet",
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
        "roles": {"user": ["human"], "assistant": ["gpt"], "system": ["system"], "tool": ["tool"]},
    },
    "alpaca": {"path": ROWS_FILE, "ds_type": "parquet", "type": "alpaca_w_system.load_instruct"},
}


@dataclass(slots=True)
class Tally:
    """Counts rows by licence and source as they pass, and those that a trainer would not read whole."""

    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    out_of_turn: int = 0  # user (or tool) and assistant do not alternate: LLaMA-Factory skips such rows
    many_turns: int = 0  # axolotl's alpaca readers have no history

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        for example, added in rows:
            self.licences[added.get("licence") or UNKNOWN_LICENCE] += 1
            self.sources[example.source] += 1
            self.out_of_turn += not alternates(example)
            self.many_turns += sum(turn.role == "user" for turn in example.messages) > 1
            yield example, added


def alternates(example: Example) -> bool:
    """Whether after a leading system turn user (or tool) and assistant take turns, and the assistant has the last."""
    roles = [turn.role for turn in example.messages]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    sides = [role == "assistant" for role in roles]
    return "system" not in roles and sides == [False, True] * (len(sides) // 2) and bool(sides)


def repeats(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """(k,) how often each row is written so that k rows stand for the weights: shares rounded by largest remainder.

    Each count is less than 1 from k · weight / sum of weights; a tie goes to the earlier row.
    """
    k = len(weights)
    shares = k * weights / weights.sum() if k else weights
    counts = np.floor(shares).astype(np.int64)
    order = np.argsort(counts - shares, kind="stable")  # the largest remainder first
    counts[order[: k - int(counts.sum())]] += 1
    return counts


def write(
    rows: Iterable[Row], folder: Path, format_name: str, types: Types, about: Mapping[str, str], notes: Sequence[str]
) -> int:
    """Write `rows` and all that trainers and readers need to know of them into `folder`. Returns the rows written.

    `about` is what the README says of their origin, `notes` are sentences on how to use them. The folder appears whole
    or not at all. Raises `InputError` as `export_rows` does, and for a folder that holds other files.
    """
    check_folder(folder, NAMES)
    tally = Tally()
    try:
        with replacing_folder(folder) as draft:
            if format_name == SAVED:
                n = save(tally.over(rows), draft / ROWS_FOLDER, types)
            else:
                n = export_rows(tally.over(rows), draft / ROWS_FILE, format_name, types)
            name = entry_name(folder)
            if format_name in LLAMA_FACTORY_ENTRIES:
                entry = {name: {"file_name": ROWS_FILE} | LLAMA_FACTORY_ENTRIES[format_name]}
                _text(draft / LLAMA_FACTORY, json.dumps(entry, indent=2))
            _text(draft / AXOLOTL, yaml.safe_dump({"datasets": [AXOLOTL_ENTRIES[format_name]]}, sort_keys=False))
            _text(draft / README, readme(name, format_name, n, tally, about, notes))
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    return n


def entry_name(folder: Path) -> str:
    """The name of `folder` as trainers can take it for a data set's."""
    return re.sub(r"[^\w-]+", "_", folder.absolute().name).strip("_") or "winnow"


def _text(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def readme(name: str, format_name: str, n: int, tally: Tally, about: Mapping[str, str], notes: Sequence[str]) -> str:
    """The page that goes with the rows: origin, licences, mixture, and how to load them."""
    said = [f"- {what}: {value}" for what, value in about.items()]
    parts = [
        f"# {name}",
        f"{n:,} rows, chosen and written by Winnow.",
        "\n".join(said),
        "\n\n".join(notes),
        "## Licences",
        _licence_note(tally),
        _table("licence", tally.licences),
        "## Sources",
        _table("source", tally.sources),
        "## Use",
        *_uses(name, format_name, tally),
    ]
    return "\n\n".join(part for part in parts if part)


def _licence_note(tally: Tally) -> str:
    unknown = tally.licences[UNKNOWN_LICENCE]
    return f"The licence of {unknown:,} rows is not known: neither the row nor its source names one." if unknown else ""


def _table(what: str, counts: Counter[str]) -> str:
    total = counts.total()
    lines = [f"| {_cell(label)} | {count:,} | {count / total:.1%} |" for label, count in counts.most_common()]
    return "\n".join([f"| {what} | rows | share |", "|---|---|---|", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _uses(name: str, format_name: str, tally: Tally) -> Iterator[str]:
    if format_name == SAVED:
        yield f'`datasets`: `load_from_disk("{ROWS_FOLDER}")`'
    else:
        yield f'`datasets`: `load_dataset("parquet", data_files="{ROWS_FILE}", split="train")`'
        skipped = f" It skips {tally.out_of_turn:,} rows in which user and assistant do not take turns."
        yield (
            f"LLaMA-Factory: `dataset_dir: <this folder>` and `dataset: {name}` (see `{LLAMA_FACTORY}`)."
            + (skipped if tally.out_of_turn else "")
        )
    lost = (
        f" Its alpaca readers take no history: {tally.many_turns:,} rows lose all but the last turns; export messages."
    )
    yield (
        f"axolotl: the `datasets` entry of `{AXOLOTL}`; its path is relative to where axolotl is started."
        + (lost if format_name == "alpaca" and tally.many_turns else "")
    )
    if format_name in ("messages", SAVED):
        yield "TRL: `SFTTrainer(train_dataset=...)` takes the column `messages` as it is."

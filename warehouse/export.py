"""Export of examples to the formats that trainers read, atomically and without losing a turn."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.errors import InputError
from warehouse.json_text import dumps
from warehouse.records import Example, Messages
from warehouse.tables import MESSAGES

BATCH_ROWS = 2048
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SAVED_FILES = ("data-", "dataset_info.json", "state.json")  # how the names in a saved `datasets` folder begin
Columns = dict[str, Any]
Row = tuple[Example, Mapping[str, Any]]  # an example and the values of the columns that are added to it
Types = Mapping[str, pa.DataType]


class _CannotHoldError(Exception):
    """A conversation that the chosen format has no place for; says what."""


@dataclass(frozen=True, slots=True)
class Output:
    """A format to write: its columns for one example, and their Arrow types."""

    types: Mapping[str, pa.DataType]
    columns: Callable[[Example], Columns]


def _messages(example: Example) -> Columns:
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in example.messages]}


SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _sharegpt(example: Example) -> Columns:
    turns = [{"from": SHAREGPT_ROLES[turn.role], "value": turn.content} for turn in example.messages]
    return {"conversations": turns}


def _alpaca(example: Example) -> Columns:
    """System, earlier turns as `history`, and the last pair, parted from its `input` where the import joined them."""
    system, turns = _parted(example.messages)
    pairs = [[asked.content, reply.content] for asked, reply in zip(turns[::2], turns[1::2], strict=True)]
    asked, reply = pairs.pop()
    instruction, given = _instruction_and_input(asked, example.meta.get("input"))
    return {"instruction": instruction, "input": given, "output": reply, "system": system, "history": pairs}


def _parted(messages: Messages) -> tuple[str, Messages]:
    leads = bool(messages) and messages[0].role == "system"
    system, turns = (messages[0].content, messages[1:]) if leads else ("", messages)
    if leads and not system:
        raise _CannotHoldError("an empty system turn")
    roles = [turn.role for turn in turns]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise _CannotHoldError(f"turns that are not pairs of user and assistant ({', '.join(roles)})")
    return system, turns


def _instruction_and_input(asked: str, given: Any) -> tuple[str, str]:
    if isinstance(given, str) and given.strip() and asked.endswith(f"\n\n{given}"):
        instruction = asked[: -len(given) - 2]
        return (instruction, given) if instruction else (asked, "")
    return asked, ""


TEXT = pa.string()
ALPACA_TYPES = dict.fromkeys(("instruction", "input", "output", "system"), TEXT)
FORMATS: dict[str, Output] = {
    "messages": Output({"messages": MESSAGES}, _messages),
    "alpaca": Output(ALPACA_TYPES | {"history": pa.list_(pa.list_(TEXT))}, _alpaca),
    "sharegpt": Output({"conversations": pa.list_(pa.struct([("from", TEXT), ("value", TEXT)]))}, _sharegpt),
}


def export(
    examples: Iterable[Example],
    path: Path,
    format_name: str = "messages",
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
    inputs: Sequence[Path] = (),
) -> int:
    """Write `examples` to `path` in a format of `FORMATS`; the suffix says how. Returns the rows written.

    `columns` adds one value per example under each name (rank, score, reason); `source` and `meta` are always there.
    The file appears whole or not at all. Raises `InputError` for an unknown format or suffix, for a path that is one of
    `inputs` or inside one, for a disk that cannot take it, and for a conversation that the format cannot hold.
    """
    extra = {name: pa.array(_plain(values)) for name, values in (columns or {}).items()}
    types = {name: column.type for name, column in extra.items()}
    values: Iterable[Sequence[Any]] = zip(*(column.to_pylist() for column in extra.values()), strict=True)
    added = (dict(zip(extra, row, strict=True)) for row in values) if extra else repeat(Columns())
    return export_rows(zip(examples, added, strict=bool(extra)), path, format_name, types, inputs=inputs)


def export_rows(
    rows: Iterable[Row],
    path: Path,
    format_name: str = "messages",
    types: Types | None = None,
    *,
    inputs: Sequence[Path] = (),
) -> int:
    """As `export`, for rows that bring the values of the added columns along; `types` names those columns."""
    output = check_export(path, format_name, inputs)
    types = types or {}
    if taken := {*output.types, "source", "meta"} & set(types):
        raise ValueError(f"{format_name} writes columns of its own named {', '.join(sorted(taken))}")
    written = _rows(rows, output, format_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as temporary:
            if path.suffix.lower() == ".parquet":
                return _write_parquet(written, temporary, _schema(output, types))
            return _write_json(written, temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def save(rows: Iterable[Row], folder: Path, types: Types | None = None, *, inputs: Sequence[Path] = ()) -> int:
    """Write `rows` as messages into a folder that `datasets.load_from_disk` opens. Returns the rows written.

    The folder appears whole or not at all. Raises `InputError` for a folder that holds anything else, for one that is
    or holds one of `inputs`, and for a disk that cannot take it.
    """
    from datasets import Dataset, disable_progress_bars  # 1 s to import, and only saved folders need it

    check_folder(folder, SAVED_FILES, inputs)
    output = FORMATS["messages"]
    try:
        with replacing_folder(folder) as temporary, _scratch(folder) as scratch:
            count = _write_stream(_rows(rows, output, "messages"), scratch, _schema(output, types or {}))
            disable_progress_bars()
            Dataset.from_file(str(scratch)).save_to_disk(temporary)
        return count
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error


def check_folder(folder: Path, ours: Sequence[str], inputs: Sequence[Path] = ()) -> None:
    """Raise `InputError` where `folder` may not be replaced: it holds more than names that begin as `ours` do."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a new folder, or one that an export made")
    if folder.is_dir() and (other := [p.name for p in folder.iterdir() if not p.name.startswith(tuple(ours))]):
        raise InputError(f"{folder} holds other files ({', '.join(sorted(other)[:3])}); name a new folder")
    _check_inputs(folder, inputs)


def check_export(path: Path, format_name: str, inputs: Sequence[Path] = ()) -> Output:
    """The format of this name, if `path` can be written in it. Raises `InputError` as `export` does; writes nothing."""
    if format_name not in FORMATS:
        raise InputError(f"unknown format {format_name!r}; known formats: {', '.join(FORMATS)}")
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    _check_inputs(path, inputs)
    return FORMATS[format_name]


def _check_inputs(path: Path, inputs: Sequence[Path]) -> None:
    target = path.resolve()
    for given in inputs:
        if target == given.resolve() or given.resolve() in target.parents:
            raise InputError(f"{path} is an input of this run ({given}); write the result elsewhere")


def _plain(values: Sequence[Any]) -> Any:
    return values if isinstance(values, np.ndarray) else list(values)


def _rows(rows: Iterable[Row], output: Output, format_name: str) -> Iterator[Columns]:
    for count, (example, added) in enumerate(rows):
        try:
            row = output.columns(example)
        except _CannotHoldError as error:
            others = " or ".join(name for name in FORMATS if name != format_name)
            raise InputError(f"row {count}: {format_name} has no place for {error}; write {others} instead") from None
        meta = {name: value for name, value in example.meta.items() if name != "input" or not row.get("input")}
        yield row | {"source": example.source} | dict(added) | {"meta": meta}


def _schema(output: Output, types: Types) -> pa.Schema:
    return pa.schema(list((dict(output.types) | {"source": TEXT} | dict(types) | {"meta": TEXT}).items()))


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A sibling of `folder` to fill; it takes its place when the block ends well, and disappears when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(temporary, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A file beside `folder` that is gone after the block."""
    file = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.arrow")
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A sibling of `path` that takes its place when the block ends well, and disappears when it does not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(rows: Iterator[Columns], path: Path, schema: pa.Schema) -> int:
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        return sum(_written(file, table) for table in _tables(rows, schema))


def _write_stream(rows: Iterator[Columns], path: Path, schema: pa.Schema) -> int:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as file:
        return sum(_written(file, table) for table in _tables(rows, schema))


def _written(file: Any, table: pa.Table) -> int:
    file.write_table(table)
    return int(table.num_rows)


def _tables(rows: Iterator[Columns], schema: pa.Schema) -> Iterator[pa.Table]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield pa.Table.from_pylist([row | {"meta": dumps(row["meta"])} for row in batch], schema=schema)


def _write_json(rows: Iterator[Columns], path: Path, final: Path) -> int:
    lines = (dumps(row) for row in rows)
    is_array = final.suffix.lower() == ".json"
    count = 0
    with pa.output_stream(str(path), compression=COMPRESSIONS.get(final.suffix.lower())) as file:
        for count, line in enumerate(lines, 1):
            before = "" if not is_array else "[\n" if count == 1 else ",\n"
            file.write(f"{before}{line}{'' if is_array else chr(10)}".encode())
        if is_array:
            file.write(b"\n]\n" if count else b"[]\n")
    return count

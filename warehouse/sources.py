"""What a user can name as a source of rows, and what it is: files, a saved `datasets` folder, or a hub data set."""

import difflib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from warehouse.errors import InputError
from warehouse.records import digest

KINDS = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
METADATA_FILES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json")
POOL_FILE = "pool.parquet"
_DATA_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")  # ends a file's name; a version like v1.5 does not
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB = re.compile(rf"(?P<name>{_HUB_NAME.pattern})(@(?P<revision>[^:@]+))?(:((?P<config>[^:/]+)/)?(?P<split>[^:/]+))?")


@dataclass(frozen=True, slots=True)
class File:
    """A file of rows. `name` places its rejects, relative to the folder that was given; `label` is their source."""

    path: Path
    name: str
    label: str
    kind: str
    compression: str | None = None

    @property
    def title(self) -> str:
        """What places its rows."""
        return self.name


@dataclass(frozen=True, slots=True)
class SavedDataset:
    """One split of what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; `folder` is the split's own."""

    folder: Path
    label: str

    @property
    def name(self) -> str:
        return self.label

    @property
    def title(self) -> str:
        """What places its rows: with the split, where there are several."""
        split = (self.folder.parent / "dataset_dict.json").is_file()
        return f"{self.label}:{self.folder.name}" if split else self.label


@dataclass(frozen=True, slots=True)
class HubDataset:
    """One split of a hub data set; without a split `train`, or the only one. `commit` is what `pinned` found."""

    name: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    commit: str | None = None

    @property
    def label(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        """What places its rows: with all that tells it from another part of the same data set."""
        revision = f"@{self.revision}" if self.revision else ""
        split = "/".join(part for part in (self.config, self.split) if part)
        return f"{self.name}{revision}{f':{split}' if split else ''}"


Part: TypeAlias = File | SavedDataset | HubDataset


@dataclass(frozen=True, slots=True)
class Source:
    """What the user named, and the parts it is made of, in the order that their rows are read.

    The first `skip` rows are left out, and at most `limit` of the others are read.
    """

    text: str
    parts: tuple[Part, ...]
    skip: int = 0
    limit: int | None = None

    @property
    def stop(self) -> int | None:
        """Where reading ends, counted from the first row; None reads to the end."""
        return None if self.limit is None else self.skip + self.limit


def locate(text: str) -> Source:
    """The source that `text` names: a path where there is one, else a hub name (`org/name@revision:config/split`).

    Raises `InputError` for a path that does not exist (with close matches), a folder without data files, a suffix that
    is not known.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(text, _parts_of_folder(path))
    if path.exists():
        return Source(text, (_file(path, path.name),))
    if saved := _saved_split(text):
        return Source(text, (saved,))
    if not (hub := _hub_name(text)):
        raise InputError(f"no such file or folder: {text}{_close_matches(path)}")
    return Source(text, (HubDataset(**hub.groupdict()),))


def may_be_hub(text: str) -> bool:
    """Whether `text` can be a hub name: no suffix of a file, no more than one slash, no leading dot, slash or tilde."""
    return _hub_name(text) is not None


def _hub_name(text: str) -> re.Match[str] | None:
    hub = _HUB.fullmatch(text)
    return None if hub is None or _DATA_SUFFIX.search(hub["name"]) else hub


def _close_matches(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    close = difflib.get_close_matches(path.name, sorted(p.name for p in folder.iterdir()), n=3)
    return f". Did you mean {' or '.join(close)}?" if close else f" (nothing in {folder} has a similar name)"


def _file(path: Path, name: str) -> File:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    suffix = (suffixes[:-1] if compression else suffixes)[-1:]
    kind = KINDS.get("".join(suffix))
    if kind is None or (kind == "parquet" and compression):
        raise InputError(f"{path}: expected a file named {', '.join(KINDS)} (all but Parquet also with .gz or .zst)")
    stem = path.name[: len(path.name) - sum(map(len, suffix)) - (len(suffixes[-1]) if compression else 0)]
    return File(path, name, stem, kind, compression)


def _parts_of_folder(folder: Path) -> tuple[Part, ...]:
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return (_saved(folder, None),)
    files = [path for path in _visible(folder) if _is_data(path)]
    if (folder / POOL_FILE).is_file():  # a pool of the warehouse: its samples, not its own bookkeeping
        files = [path for path in files if path.name.startswith("samples-")]
    if not files:
        raise InputError(f"{folder}: no data file in this folder; looked for {', '.join(KINDS)}, also with .gz or .zst")
    return tuple(_file(path, path.relative_to(folder).as_posix()) for path in files)


def _visible(folder: Path) -> Iterator[Path]:
    """Files under `folder` by relative path; hidden ones and those named `_...` (markers of other tools) left out."""
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _is_data(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in KINDS and path.name not in METADATA_FILES


def _saved_split(text: str) -> SavedDataset | None:
    """`folder:split` of a saved DatasetDict."""
    folder, _, split = text.rpartition(":")
    if not (folder and (Path(folder).expanduser() / "dataset_dict.json").is_file()):
        return None
    return _saved(Path(folder).expanduser(), split)


def _saved(folder: Path, split: str | None) -> SavedDataset:
    label = folder.resolve().name
    if not (folder / "dataset_dict.json").is_file():
        return SavedDataset(folder, label)
    splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
    return SavedDataset(folder / choose_split(str(folder), splits, split), label)


def choose_split(name: str, splits: Sequence[str], wanted: str | None) -> str:
    """`wanted`, or `train`, or the only split; never several, so that a test split is not trained on by accident."""
    if wanted in splits:
        return str(wanted)
    if wanted is None and "train" in splits:
        return "train"
    if wanted is None and len(splits) == 1:
        return splits[0]
    found = ", ".join(splits) or "none"
    asked = f"no split {wanted!r}" if wanted else "no split `train`"
    example = splits[0] if splits else "train"
    raise InputError(f"{name}: {asked}; splits found: {found}. Name one, as in {name}:{example}")


def content(part: Part) -> str:
    """Content key of a part, 32 hexadecimal digits: bytes, no path and no time.

    Of a hub data set: its configuration, split and the commit that the revision stands for; offline, where the commit
    cannot be asked for, the revision as given.
    """
    if isinstance(part, File):
        return _hash(part.path)[:32]
    if isinstance(part, SavedDataset):
        return digest("\n".join(f"{path.name} {_hash(path)}" for path in sorted(part.folder.glob("*.arrow"))))
    return digest(f"{part.config}\n{part.split}\n{part.commit or part.revision}")


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def pinned(part: Part) -> Part:
    """`part`, a hub data set with the commit that its revision means now; without a network its name alone counts."""
    if not isinstance(part, HubDataset) or part.commit is not None:
        return part
    from huggingface_hub import HfApi  # 0.3 s, and only hub names need it
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return replace(part, commit=HfApi().dataset_info(part.name, revision=part.revision).sha)
    except (OSError, ValueError, HTTPError):
        return part

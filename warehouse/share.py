"""Sharing: artifacts, with the signals and run logs that belong to them, between homes by way of a shared place.

    blobs/<first two digits>/<SHA-256>     the content of a file, once, however many artifacts hold it
    artifacts/<stage>/<key>/manifest.json  an artifact, as in a home
    signals/<spec>/spec.json               a signal, and <spec>/<shard>.json the files of each of its shards
    runs/<run>/files.json                  the log and the report of a finished run, and the keys of its stages

A card (the JSON file) is written when all of its blobs are there, so an interrupted push leaves whole things and blobs
that the next push does not send again. A pull verifies every byte; what it brings appears whole, its inputs before it.
"""

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from warehouse import leases
from warehouse.errors import InputError
from warehouse.lineage import KEY, SIGNAL, ancestry, inputs_first, inputs_of, keys, leaves
from warehouse.records import Spec, canonical, digest
from warehouse.remote import DamagedError, Remote, blob, is_sha256, os_errors, threads
from warehouse.runs import RunLog
from warehouse.store import MANIFEST, Store, load_artifact, sha256_file, write_atomically

SPEC, RUN_FILES = "spec.json", "files.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PARTS = ("stage", "version", "params", "inputs", "model", "seed")
Kind = Literal["artifact", "signal", "shard", "run"]
Card = Mapping[str, Any]
Files = Mapping[str, tuple[str, int]]
"""Name of a file to the SHA-256 and the bytes of its content."""
Progress = Callable[[int, int], None]
"""Is told the bytes done, and in all."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What comes whole or not at all. `owner` is the key of the artifact or signal, or the run; `card` lists the files.

    Both homes and shared places keep it in `folder`.
    """

    kind: Kind
    folder: str
    owner: str
    card: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.card}"


@dataclass(slots=True)
class Moved:
    """What a push or a pull did: things that came or were whole already, files and bytes moved or there already."""

    artifacts: int = 0
    shards: int = 0
    runs: int = 0
    whole: int = 0
    files: int = 0
    bytes: int = 0
    files_there: int = 0
    bytes_there: int = 0

    def came(self, kind: Kind) -> None:
        self.artifacts += kind == "artifact"
        self.shards += kind == "shard"
        self.runs += kind == "run"

    def as_text(self, verb: str) -> str:
        """One line for people."""
        return (
            f"{verb} {self.artifacts:,} artifacts, {self.shards:,} shards of signals and {self.runs:,} runs: "
            f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB moved; already there: {self.whole:,} whole, and of the "
            f"others {self.files_there:,} files, {self.bytes_there / 1e6:,.1f} MB"
        )


def push(home: Path, url: str, wanted: Sequence[str], on_bytes: Progress) -> Moved:
    """Copy what `wanted` names (beginnings of keys of artifacts and signals or of runs; nothing: all) and all it needs.

    Raises `InputError` for a URL or a name that is wrong, `DamagedError` for a file of the home that is not what its
    manifest says, `OSError` where the place cannot be reached or written.
    """
    with os_errors(url):
        remote = Remote.open(url)
        finished = [
            end.parent.name for end in sorted((home / "runs").glob("*/end.parquet")) if end.parent.name != "empty"
        ]
        roots, runs = _named(wanted, keys(home), finished, str(home))
        roots += [key for run in runs for key in _stage_keys(home, run)]
        leases.hold(home, *roots)
        nodes = ancestry(home, roots)
        leases.hold(home, *nodes)
        stages = keys(home)
        parcels = [parcel for key in nodes if key in stages for parcel in _parcels(home, key, stages[key])]
        return _push(home, remote, [*parcels, *map(_run, runs)], on_bytes)


def pull(home: Path, url: str, wanted: Sequence[str], on_bytes: Progress) -> Moved:
    """Copy what `wanted` names there (nothing: all) and all it needs into `home`; what is whole in the home stays.

    Raises `InputError` for a URL or a name that is wrong, `DamagedError` where something there is not what it should
    be: what came whole before that is kept. `OSError` where the place cannot be reached.
    """
    with os_errors(url):
        shared = Shared.look(Remote.open(url))
        roots, runs = _named(wanted, shared.stages, shared.runs, url)
        store = Store.open(home)
        with threads() as pool:
            logs = [_run(run) for run in runs]
            roots += [key for card in pool.map(shared.read, logs) for key in card["keys"] if key in shared.stages]
            order = _closure(shared, roots, lambda some: pool.map(shared.inputs, some))
            leases.hold(store.home, *order)
            parcels = [parcel for key in order for parcel in shared.parcels(key)] + logs
            cards = dict(zip(parcels, pool.map(shared.read, parcels), strict=True))
        return _pull(store, shared.remote, cards, on_bytes)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a shared place holds: the stage of every key, the cards of every signal's shards, the runs."""

    remote: Remote
    stages: Mapping[str, str]
    shards: Mapping[str, Sequence[str]]
    runs: Sequence[str]

    @classmethod
    def look(cls, remote: Remote) -> "Shared":
        """Raises `InputError` where nothing is shared."""
        stages, shards, runs = dict[str, str](), dict[str, list[str]](), []
        for path in _cards(remote):
            match path.split("/"):
                case ["artifacts", stage, key, card] if (
                    card == MANIFEST and NAME.fullmatch(stage) and KEY.fullmatch(key)
                ):
                    stages[key] = stage
                case ["signals", key, card] if card == SPEC and KEY.fullmatch(key):
                    stages[key] = SIGNAL
                case ["signals", key, card] if card.endswith(".json") and NAME.fullmatch(card):
                    shards.setdefault(key, []).append(card)
                case ["runs", run, card] if card == RUN_FILES and NAME.fullmatch(run):
                    runs.append(run)
        if not stages:
            raise InputError(f"nothing is shared at {remote.url}; `winnow cache push` there shares what a home holds")
        return cls(remote, stages, shards, runs)

    def parcels(self, key: str) -> list[Parcel]:
        if self.stages[key] != SIGNAL:
            return [_artifact(self.stages[key], key)]
        return [_signal(key, SPEC), *(_signal(key, card) for card in sorted(self.shards.get(key, [])))]

    def read(self, parcel: Parcel) -> Card:
        """The card of `parcel`. Raises `DamagedError` where it is not one, or of something else."""
        try:
            card = json.loads(self.remote.read(parcel.path))
            if _is_card(parcel, card):
                return dict(card)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{self.remote.url}: {parcel.path} cannot be read: {error!r}") from error
        raise DamagedError(f"{self.remote.url}: {parcel.path} describes something else than its path says")

    def inputs(self, key: str) -> list[str]:
        """The keys at this place that `key` was made from."""
        card = self.read(self.parcels(key)[0])
        tree = card["params"] if self.stages[key] == SIGNAL else inputs_of(card)
        return [text for _, text in leaves(tree) if text in self.stages and text != key]


def _closure(shared: Shared, roots: Sequence[str], read: Callable[[list[str]], Iterable[list[str]]]) -> list[str]:
    """`roots` and all they were made from, inputs first; `read` gives the inputs of many keys at once."""
    inputs: dict[str, list[str]] = {}
    wave = list(dict.fromkeys(roots))
    while wave:
        inputs |= dict(zip(wave, read(wave), strict=True))
        wave = list(dict.fromkeys(each for key in wave for each in inputs[key] if each not in inputs))
    return inputs_first(roots, inputs)


def _push(home: Path, remote: Remote, parcels: Sequence[Parcel], on_bytes: Progress) -> Moved:
    there, cards = remote.sizes("blobs"), set(_cards(remote))
    moved = Moved()

    def whole(parcel: Parcel) -> bool:
        return parcel.path in cards and _is_whole_there(remote, parcel, there)

    def send(parcel: Parcel, name: str, sha256: str) -> None:
        source = home / parcel.folder / name
        if parcel.kind == "artifact" and (not source.exists() or sha256_file(source) != sha256):
            raise DamagedError(f"{source} is not what its manifest says; `winnow cache ls --verify` lists all damage")
        remote.put(blob(sha256), source)

    with threads() as pool:
        lacking = [parcel for parcel, is_whole in zip(parcels, pool.map(whole, parcels), strict=True) if not is_whole]
        moved.whole = len(parcels) - len(lacking)
        written = list(pool.map(lambda parcel: _written(home, parcel), lacking))
        jobs: dict[str, Future[None]] = {}
        meter = Meter(on_bytes, [_files(parcel, card) for parcel, card in zip(lacking, written, strict=True)])
        for parcel, card in zip(lacking, written, strict=True):
            for name, (sha256, size) in _files(parcel, card).items():
                if there.get(blob(sha256)) == size:
                    meter.was_there(sha256, size)
                elif sha256 not in jobs:
                    jobs[sha256] = pool.submit(meter.moving, send, size, parcel, name, sha256)
        for parcel, card in zip(lacking, written, strict=True):
            for sha256, _ in _files(parcel, card).values():
                if sha256 in jobs:
                    jobs[sha256].result()
            remote.put(parcel.path, json.dumps(card, indent=1, ensure_ascii=False).encode())
            moved.came(parcel.kind)
    return meter.told(moved)


def _pull(store: Store, remote: Remote, cards: Mapping[Parcel, Card], on_bytes: Progress) -> Moved:
    lacking = {parcel: _files(parcel, card) for parcel, card in cards.items() if not _is_whole(store.home, parcel)}
    moved = Moved(whole=len(cards) - len(lacking))
    meter = Meter(on_bytes, list(lacking.values()))
    here = _contents(store) if lacking else {}
    scratch = store.scratch()

    def get(sha256: str, size: int) -> None:
        if sha256 in here and sha256_file(here[sha256]) == sha256:
            os.link(here[sha256], scratch / sha256)
            meter.was_there(sha256, size)
        else:
            meter.moving(remote.fetch, size, sha256, size, scratch / sha256)

    try:
        with threads() as pool:
            wanted = {sha256: size for files in lacking.values() for sha256, size in files.values()}
            jobs = {sha256: pool.submit(get, sha256, size) for sha256, size in wanted.items()}
            for parcel, files in lacking.items():
                for sha256, _ in files.values():
                    jobs[sha256].result()
                _lay(store, parcel, cards[parcel], files, scratch)
                moved.came(parcel.kind)
    finally:
        shutil.rmtree(scratch)
    return meter.told(moved)


class Meter:
    """Counts what several threads move, and tells how far they are."""

    def __init__(self, on_bytes: Progress, parcels: Iterable[Files]) -> None:
        self._total = sum({sha256: size for files in parcels for sha256, size in files.values()}.values())
        self._on_bytes = on_bytes
        self._lock = Lock()
        self._moved: list[int] = []
        self._there: dict[str, int] = {}

    def moving(self, move: Callable[..., None], size: int, *args: Any) -> None:
        """Call `move(*args)`, which moves `size` bytes."""
        move(*args)
        with self._lock:
            self._moved.append(size)
            self._tell()

    def was_there(self, sha256: str, size: int) -> None:
        with self._lock:
            self._there[sha256] = size
            self._tell()

    def told(self, moved: Moved) -> Moved:
        """`moved` with the counts."""
        moved.files, moved.bytes = len(self._moved), sum(self._moved)
        moved.files_there, moved.bytes_there = len(self._there), sum(self._there.values())
        return moved

    def _tell(self) -> None:
        self._on_bytes(sum(self._moved) + sum(self._there.values()), self._total)


def _named(
    wanted: Sequence[str], stages: Mapping[str, str], runs: Sequence[str], where: str
) -> tuple[list[str], list[str]]:
    """The keys and the runs that `wanted` names. Raises `InputError` for what is not there, or not one thing."""
    if not wanted:
        return list(stages), list(runs)
    found: dict[str, None] = {}
    for text in wanted:
        hits = [name for name in (*stages, *runs) if text and name.startswith(text)]
        if text not in hits and len(hits) != 1:
            what = f"{len(hits)} things begin" if hits else "no artifact, signal or finished run begins"
            raise InputError(f"{where}: {what} with {text!r}" + (f": {', '.join(sorted(hits)[:5])}" if hits else ""))
        found[text if text in hits else hits[0]] = None
    return [name for name in found if name in stages], [name for name in found if name not in stages]


def _parcels(home: Path, key: str, stage: str) -> list[Parcel]:
    """What a home has of `key`: an artifact, or a signal and its shards."""
    if stage != SIGNAL:
        return [_artifact(stage, key)]
    shards = sorted((home / "signals" / key).glob("shard-*.parquet"))
    return [_signal(key, SPEC), *(_signal(key, f"{shard.stem}.json") for shard in shards)]


def _artifact(stage: str, key: str) -> Parcel:
    return Parcel("artifact", f"artifacts/{stage}/{key}", key, MANIFEST)


def _signal(key: str, card: str) -> Parcel:
    return Parcel("signal" if card == SPEC else "shard", f"signals/{key}", key, card)


def _run(run: str) -> Parcel:
    return Parcel("run", f"runs/{run}", run, RUN_FILES)


def _stage_keys(home: Path, run: str) -> list[str]:
    """The keys of the run's stages that the home still has."""
    there = keys(home)
    return [row["key"] for row in RunLog(home, run).stages() if row["key"] in there]


def _cards(remote: Remote) -> Iterator[str]:
    for under in ("artifacts", "signals", "runs"):
        yield from remote.sizes(under)


def _written(home: Path, parcel: Parcel) -> Card:
    """The card of what a home holds."""
    folder = home / parcel.folder
    if parcel.kind in ("artifact", "signal"):
        card: Card = json.loads((folder / parcel.card).read_text())
        return card
    names = "*" if parcel.kind == "run" else f"{parcel.card.removesuffix('.json')}.*"
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.glob(names))
        if path.is_file() and not path.name.startswith(".")
    }
    return {"files": files} | ({"keys": _stage_keys(home, parcel.owner)} if parcel.kind == "run" else {})


def _files(parcel: Parcel, card: Card) -> Files:
    if parcel.kind == "signal":
        return {}
    return {name: (entry["sha256"], entry["bytes"]) for name, entry in card["files"].items()}


def _is_card(parcel: Parcel, card: Card) -> bool:
    """Whether `card` describes `parcel`, and none of its files would leave the folder it belongs in."""
    if parcel.kind == "signal":
        return bool(Spec(card["name"], card["params"]).key == parcel.owner)
    if parcel.kind == "artifact" and (
        digest(canonical({part: card[part] for part in PARTS})) != parcel.owner
        or parcel.folder != f"artifacts/{card['stage']}/{card['key']}"
        or not {"facts", "created", "seconds"} <= set(card)
        or not isinstance(card["facts"], dict)
    ):
        return False
    if parcel.kind == "run" and not ("run.parquet" in card["files"] and "keys" in card):
        return False
    stem = parcel.card.removesuffix(".json")
    if parcel.kind == "shard" and not all(name.startswith(f"{stem}.") for name in (*card["files"], f"{stem}.parquet")):
        return False
    flat = parcel.kind != "artifact"
    return all(
        is_sha256(sha256) and isinstance(size, int) and _is_inside(name, flat)
        for name, (sha256, size) in _files(parcel, card).items()
    )


def _is_inside(name: str, flat: bool) -> bool:
    parts = name.split("/")
    return name != MANIFEST and not (flat and len(parts) > 1) and "\0" not in name and not {"", ".", ".."} & set(parts)


def _is_whole_there(remote: Remote, parcel: Parcel, there: Mapping[str, int]) -> bool:
    """Whether the card and all of its blobs are there; what another home pushed under the key is as good."""
    try:
        files = _files(parcel, json.loads(remote.read(parcel.path)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # damaged: it is written again
    return all(there.get(blob(sha256)) == size for sha256, size in files.values())


def _is_whole(home: Path, parcel: Parcel) -> bool:
    """Whether the home has it: an artifact as verified on every hit."""
    folder = home / parcel.folder
    if parcel.kind == "artifact":
        artifact = load_artifact(folder)
        return artifact is not None and not artifact.faults()
    last = {"signal": SPEC, "shard": f"{parcel.card.removesuffix('.json')}.parquet", "run": "run.parquet"}
    return (folder / last[parcel.kind]).exists()


def _contents(store: Store) -> dict[str, Path]:
    """A file of some artifact of the home for each content."""
    return {
        entry["sha256"]: path
        for artifact in store.artifacts()
        for name, entry in artifact.manifest["files"].items()
        if (path := artifact.folder / name).exists()
    }


def _lay(store: Store, parcel: Parcel, card: Card, files: Files, scratch: Path) -> None:
    """Put what came into its place, all at once as seen by others; files of one content share it."""
    place = store.home / parcel.folder
    if parcel.kind == "signal":
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / SPEC, json.dumps(card).encode())
    elif parcel.kind == "shard":
        for name in sorted(files, key=lambda name: name.endswith(".parquet")):  # the ids last: they make it a shard
            _link(scratch / files[name][0], place / name)
    else:
        folder = store.scratch()
        try:
            for name, (sha256, _) in files.items():
                _link(scratch / sha256, folder / name)
            if parcel.kind == "artifact":
                store.receive(folder, card)
            else:
                with contextlib.suppress(FileExistsError):  # another pull was faster
                    os.rename(folder, place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{uuid.uuid4().hex}")
    os.link(source, draft)
    os.replace(draft, target)

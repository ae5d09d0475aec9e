"""Merging the weight files of checkpoints, tensor by tensor: memory holds one tensor of each model, and one shard."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.fingerprint import ADAPTER, fetch
from models.network import load_network
from training.merge import Cat, Linear, Merge
from training.merge_adapters import join_adapters
from training.quiet import quiet
from warehouse.errors import InputError
from warehouse.records import Checkpoint

SHARD_BYTES = 4 * 2**30
MERGED = "merged.json"
INDEX = "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
    "vocab.*",
    "merges.txt",
    "*.model",
)
MODEL = ("config.json", "generation_config.json", "*.py")


def write_merged(how: Merge, checkpoints: Sequence[Checkpoint], out: Path, seed: int, trust_remote_code: bool) -> None:
    """Write weights, configuration, tokenizer and `merged.json` of the merged model under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    folders = [checkpoint.path for checkpoint in checkpoints]
    base = checkpoints[0].base
    if isinstance(how, Cat | Linear) and all((folder / ADAPTER).exists() for folder in folders):
        join_adapters(folders, base, how.weights, exact=isinstance(how, Cat), out=out)
    else:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix="merge-") as scratch:
            whole = [_whole(each, Path(scratch) / str(i), trust_remote_code) for i, each in enumerate(checkpoints)]
            _merge_files(how, fetch(base, trust_remote_code=trust_remote_code), whole, out, seed)
            _copy(whole[0], out, MODEL)
    _copy(folders[0], out, TOKENIZER)
    facts = {"merge": {"name": how.spec.name, **how.spec.params}, "base": base, "seed": seed,
             "checkpoints": [str(folder) for folder in folders]}  # fmt: skip
    (out / MERGED).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _whole(checkpoint: Checkpoint, scratch: Path, trust_remote_code: bool) -> Path:
    """A folder with the whole weights of a checkpoint: its own, or one in which its adapter is merged into its base."""
    if not (checkpoint.path / ADAPTER).exists():
        return checkpoint.path
    write_whole(checkpoint.base, checkpoint.path, scratch, trust_remote_code)
    return scratch


def write_whole(base: str, adapter: Path, out: Path, trust_remote_code: bool = False) -> None:
    """Write `base` with the adapter in the folder `adapter` merged into its weights, float32, under `out`."""
    with quiet():
        loaded = load_network(
            base, dtype="float32", device="cpu", adapter=adapter, trust_remote_code=trust_remote_code, revision="main"
        )
        loaded.network.save_pretrained(out)
    _copy(adapter, out, TOKENIZER)


def _merge_files(how: Merge, base: Path, folders: Sequence[Path], out: Path, seed: int) -> None:
    with ExitStack() as stack:
        before = _Weights(base, stack)
        models = [_Weights(folder, stack) for folder in folders]
        names = _common(before, models)
        moved = [name for name in names if models[0].tensor(name).is_floating_point()]

        def deltas(model: int) -> Iterator[tuple[str, torch.Tensor]]:
            return ((name, _delta(models[model], before, name)) for name in moved)

        combine = how.combine(len(models), deltas, seed)

        def merged(name: str) -> torch.Tensor:
            first = models[0].tensor(name)
            if name not in moved:
                return first
            changed = combine(name, [_delta(model, before, name) for model in models])
            return (before.tensor(name).float() + changed).to(first.dtype)

        _save(((name, partial(merged, name)) for name in names), models[0], out)


class _Weights:
    """The tensors of a model folder by name, read one at a time."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = stack.enter_context(safe_open(path, framework="pt"))
            self._files |= dict.fromkeys(file.keys(), file)

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> list[int]:
        return list(self._files[name].get_slice(name).get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self._files[name].get_tensor(name)
        return found


def _common(base: _Weights, models: Sequence[_Weights]) -> list[str]:
    """The names of the models' weights. Raises `InputError` where some model, or the base, has others or other shapes.

    What the base has beside them is a head that is written twice: trained checkpoints keep tied weights once.
    """
    names = models[0].names
    for other in models[1:]:
        if odd := set(names) ^ set(other.names):
            raise InputError(f"{other.folder} and {models[0].folder} are of different models: {_few(odd)} is in one")
    if absent := set(names) - set(base.names):
        raise InputError(f"{base.folder} is not the base of {models[0].folder}: it has no {_few(absent)}")
    for name in names:
        shapes = [model.shape(name) for model in (base, *models)]
        if any(shape != shapes[0] for shape in shapes):
            raise InputError(
                f"the shapes of {name} differ ({shapes}), so these are different models: {base.folder} ..."
            )
    return names


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3])


def _delta(model: _Weights, base: _Weights, name: str) -> torch.Tensor:
    return model.tensor(name).float() - base.tensor(name).float()


def _save(tensors: Iterator[tuple[str, Any]], like: _Weights, out: Path) -> None:
    """Write tensors, each made when its turn comes, as one file, or as shards with an index."""
    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}

    def write() -> None:
        save_file(held, out / f"shard-{len(shards)}.safetensors", {"format": "pt"})
        shards.append(list(held))
        held.clear()

    size = total = 0
    for name, make in tensors:
        held[name] = make().contiguous()
        size += held[name].nbytes
        total += held[name].nbytes
        if size >= SHARD_BYTES:
            write()
            size = 0
    if held:
        write()
    if len(shards) == 1:
        (out / "shard-0.safetensors").rename(out / "model.safetensors")
        return
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for i, name in enumerate(names):
        (out / f"shard-{i}.safetensors").rename(out / name)
    placed = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (out / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _copy(folder: Path, out: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.parent != out:
                shutil.copyfile(path, out / path.name)

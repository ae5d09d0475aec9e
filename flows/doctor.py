"""`winnow doctor`: is everything here that a run needs, and if not, what to do."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flows import recipes, server, sources
from models.fingerprint import fingerprint
from warehouse import catalogue, pools
from warehouse.errors import InputError
from warehouse.sources import HubDataset
from warehouse.store import Store

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "sentence-transformers",
    "datasets",
    "ray",
    "prefect",
    "duckdb",
    "pyarrow",
)
FREE_DISK_BYTES = 2 * 10**9
FREE_MEMORY_BYTES = 3 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is good, and what was found or what to do."""

    good: bool
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{'ok ' if self.good else 'BAD'}  {self.subject:<10} {self.text}"


def examine(home: Path, recipe: Path | None, overrides: Sequence[str] = ()) -> list[Finding]:
    """Everything that can be checked without starting work; a recipe with its overrides."""
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "processor": _processor,
        "memory": _memory,
        "home": lambda: _home(home),
        "disk": lambda: _disk(home),
        "server": lambda: _server(home),
        "model": lambda: f"winnow-tiny is here ({fingerprint('winnow-tiny')[:12]})",
    }
    if recipe is not None:
        checks["recipe"] = lambda: _recipe(recipe, overrides)
    return list(_findings(checks))


def _findings(checks: dict[str, Callable[[], str]]) -> Iterator[Finding]:
    for subject, check in checks.items():
        try:
            yield Finding(True, subject, check())
        except (InputError, OSError) as error:
            yield Finding(False, subject, str(error))


def _python() -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _packages() -> str:
    missing, found = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise InputError(f"not installed: {', '.join(missing)}. Install with: pip install -c constraints.txt -e .")
    return ", ".join(found)


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}; {os.cpu_count()} cores"
    fast = [name for name in ("avx512_bf16", "amx_bf16") if name in _cpu_flags()]
    return (
        f"{os.cpu_count()} cores, no GPU; {'bf16 by ' + ', '.join(fast) if fast else 'float32 (no bf16 instructions)'}"
    )


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _memory() -> str:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return "not known on this system"
    free = int(lines["MemAvailable"].split()[0]) * 1024
    if free < FREE_MEMORY_BYTES:
        raise InputError(f"{free / 1e9:.1f} GB free; the demo needs {FREE_MEMORY_BYTES / 1e9:.0f}. Close something")
    return f"{free / 1e9:.1f} GB free"


def _home(home: Path) -> str:
    place = _nearest(home)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"{home} cannot be made: {place} is no folder that can be written; choose another --home")
    if place != home:
        return f"{home} (not there yet; the first run makes it)"
    Store.open(home)
    catalogue.ensure(home)
    return f"{home} can be written; the catalogue opens"


def _nearest(home: Path) -> Path:
    """`home`, or the deepest of its parents that is there."""
    return next(place for place in (home, *home.parents) if place.exists())


def _disk(home: Path) -> str:
    place = _nearest(home)
    free = shutil.disk_usage(place).free
    if free < FREE_DISK_BYTES:
        raise InputError(
            f"{free / 1e9:.1f} GB free at {place}; give {FREE_DISK_BYTES / 1e9:.0f} or choose another --home"
        )
    return f"{free / 1e9:.1f} GB free at {place}"


def _server(home: Path) -> str:
    given = os.environ.get("PREFECT_API_URL")
    if given and not server.healthy(given):
        raise InputError(f"PREFECT_API_URL is {given}, but no Prefect server answers there; start it or unset it")
    url = given or server.known(home)
    return f"Prefect answers at {url}" if url else "no Prefect server yet; the first run starts one"


def _recipe(path: Path, overrides: Sequence[str]) -> str:
    from flows.jobs import JOBS

    recipe = recipes.load(path, overrides)
    given = [source for source in (*recipe.pool, *recipe.target, *recipe.test) if source.path is not None]
    if missing := [fault for source in given if (fault := _fault(source, Path(recipe.data)))]:
        raise InputError("; ".join(missing))
    verbs = verbs_of(recipe)
    for verb in verbs:
        JOBS[verb].check(recipe)
    asked = f"{len(recipe.methods)} methods, budgets {recipe.budgets}, seeds {recipe.seeds}; " if recipe.methods else ""
    return f"{path}: for {', '.join(f'`winnow {verb}`' for verb in verbs)}: {asked}all it names is there"


def verbs_of(recipe: recipes.Recipe) -> list[str]:
    """The commands that a recipe has something for; "run" where it has nothing for any."""
    there = {
        "run": recipe.methods,
        "evaluate": recipe.models,
        "advise": recipe.advise,
        "scorers": recipe.scorers,
        "synth": not recipe.methods and any(source.synthesize for source in recipe.pool),
    }
    return [verb for verb, something in there.items() if something] or ["run"]


def _fault(source: recipes.Source, data: Path) -> str:
    """Why no rows can be read from a file or folder; hub data sets are asked for by the run alone."""
    try:
        found = sources.located(source, data)
        if not any(isinstance(part, HubDataset) for part in found.source.parts):
            pools.probe(found.source)
    except InputError as error:
        return str(error)
    return ""

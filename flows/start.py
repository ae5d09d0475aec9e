"""The first five minutes: the demo's recipe, and `winnow init`, which puts a recipe of one's own into a folder."""

from pathlib import Path

from flows.workers import CHECKOUT
from warehouse.errors import InputError
from warehouse.store import write_atomically

RECIPES = CHECKOUT / "recipes"
DEMO = RECIPES / "demo.yaml"
FIRST = RECIPES / "first.yaml"


def init_folder(folder: Path) -> str:
    """Write `recipe.yaml` into `folder`; what to do next. Raises `InputError` where a recipe is there already."""
    target = folder / "recipe.yaml"
    if target.exists():
        raise InputError(f"{target} exists; `winnow init` does not overwrite it. Name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(target, FIRST.read_bytes())
    return (
        f"wrote {target}\n"
        "next:\n"
        "  1. put your rows where it says, or change the paths: JSON, JSONL, CSV, Parquet, a folder, a hub name\n"
        f"  2. winnow doctor {target}   says what is missing\n"
        f"  3. winnow run {target}      runs it"
    )

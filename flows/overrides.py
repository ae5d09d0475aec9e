"""What a user sets on the command line: `key=value` with dotted keys and YAML values, put into a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from warehouse.errors import InputError


def apply(override: str, tree: dict[str, Any]) -> None:
    """Set what `override` says in the recipe `tree`. Raises `InputError` for a place that there is not."""
    key, mark, text = override.partition("=")
    if not mark or not key:
        raise InputError(
            f"override {override!r}: expected key=value, for instance budgets=[500] or train.params.epochs=2"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value is not valid YAML") from error
    if key == "data":
        value = str(Path(str(value)).expanduser().resolve())  # what a user types is relative to where they are
    place: Any = tree
    *path, last = key.split(".")
    for step in path:
        place = _step(place, step, override)
    if isinstance(place, list):
        place[_index(place, last, override)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise InputError(f"override {override!r}: {'.'.join(path)} is a plain value, it has no part {last!r}")


def _step(place: Any, step: str, override: str) -> Any:
    if isinstance(place, list):
        index = _index(place, step, override)
        if isinstance(place[index], str):
            place[index] = {"name": place[index]}
        return place[index]
    if isinstance(place, dict):
        if place.get(step) is None:
            place[step] = {}
        return place[step]
    raise InputError(f"override {override!r}: nothing can be set below {step!r}")


def _index(place: Sequence[Any], step: str, override: str) -> int:
    if not step.isdigit() or int(step) >= len(place):
        raise InputError(
            f"override {override!r}: {step!r} is not a position in a list of {len(place)} (0 is the first)"
        )
    return int(step)

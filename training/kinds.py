"""Whether a value that a recipe gives is of the type that a parameter has."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from warehouse.errors import InputError
from warehouse.records import Spec

TOLD = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "a mapping",
    type(None): "nothing",
}


def spec_of(name: str, trainer: Any) -> Spec:
    """What rebuilds a trainer, a dataclass: every field, its tuning by name and parameters."""
    tuning = trainer.tuning.spec
    params = {each.name: getattr(trainer, each.name) for each in fields(trainer)}
    return Spec(name, params | {"tuning": {"name": tuning.name, **tuning.params}})


def check_fields(
    what: str, trainer: Any, known: Mapping[str, Sequence[str]], ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Raise `InputError` for a field of `trainer` that is of another type, not `known`, or out of its range.

    `ranges` may name fields that this trainer does not have.
    """
    plain = {name: kind for name, kind in get_type_hints(type(trainer)).items() if name not in {"tuning", *known}}
    check_kinds(what, plain, {name: getattr(trainer, name) for name in plain})
    for name, values in known.items():
        if (found := getattr(trainer, name)) not in values:
            raise InputError(f"unknown {name} {found!r}; known: {', '.join(values)}")
    for name, (low, high) in ranges.items():
        if hasattr(trainer, name) and not low <= (found := getattr(trainer, name)) <= high:
            raise InputError(f"{name} is {found}; expected {low} to {high}")


def check_kinds(what: str, kinds: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Raise `InputError` for a parameter of `what` that is not of its type in `kinds`.

    A whole number is a number too; true is neither; a list is good where a tuple is meant.
    """
    for param, value in params.items():
        allowed = _parts(kinds[param])
        if not any(_holds(kind, value) for kind in allowed):
            expected = " or ".join(_told(kind) for kind in allowed)
            raise InputError(f"{what}: {param} is {value!r}; give {expected}")


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _holds(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(_holds(get_args(kind)[0], each) for each in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


def _told(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return f"a list, each {_told(get_args(kind)[0])}"
    return TOLD[get_origin(kind) or kind]

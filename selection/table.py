"""The table of selection methods, and how a recipe's entry becomes one of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from selection.balanced_random import BalancedRandom
from selection.length import Length
from selection.lexical import Lexical
from selection.problem import Method
from selection.random_rows import Random
from selection.rds_plus import RdsPlus
from selection.top_k import TopK
from warehouse.errors import InputError

METHODS: dict[str, Callable[..., Method]] = {
    "random": Random,
    "balanced_random": BalancedRandom,
    "length": Length,
    "lexical": Lexical,
    "top_k": TopK,
    "rds_plus": RdsPlus,
}

FILLED = ("representation", "tokenizer")
"""Fields that follow from the run's models and that a recipe therefore does not give."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a recipe may give: its name, its type and its default."""

    name: str
    kind: Any
    default: Any

    @property
    def expected(self) -> str:
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(str(choice) for choice in get_args(self.kind))
        return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.kind]

    def holds(self, value: Any) -> bool:
        """Whether `value`, as YAML gives it, is of this type; a whole number is a number too, true is neither."""
        if get_origin(self.kind) is Literal:
            return value in get_args(self.kind)
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, (int, float) if self.kind is float else self.kind)


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of method `name` that a recipe may give, by name. Raises `InputError` for an unknown method."""
    fields, kinds = _fields(name), get_type_hints(METHODS[name])
    return {field: Parameter(field, kinds[field], fields[field].default) for field in fields if field not in FILLED}


def build(name: str, params: Mapping[str, Any], **filled: Any) -> Method:
    """Method `name` with a recipe's `params`; `filled` is what the run knows (`FILLED`), used where the method has it.

    Raises `InputError` for an unknown method or parameter, a value of the wrong type, or a missing representation.
    """
    known = parameters(name)
    for param, value in params.items():
        _check(name, param, value, known)
    fields = _fields(name)
    if "representation" in fields and "representation" not in filled:
        raise InputError(f"method {name!r} compares representations: name the model or the encoder that makes them")
    return METHODS[name](**params, **{field: value for field, value in filled.items() if field in fields})


def _fields(name: str) -> Mapping[str, inspect.Parameter]:
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known methods: {', '.join(METHODS)}")
    return inspect.signature(METHODS[name]).parameters


def _check(name: str, param: str, value: Any, known: Mapping[str, Parameter]) -> None:
    if param not in known:
        listed = ", ".join(f"{each.name} ({each.default})" for each in known.values())
        raise InputError(f"method {name!r} has no parameter {param!r}; known, with defaults: {listed or 'none at all'}")
    if not known[param].holds(value):
        raise InputError(f"method {name!r}: {param} must be {known[param].expected}, found {value!r}")

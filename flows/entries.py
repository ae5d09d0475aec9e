"""An entry of a room's table, made from a recipe's name and parameters."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from warehouse.errors import InputError

T = TypeVar("T")


def make(kind: str, table: Mapping[str, Callable[..., T]], name: str, params: Mapping[str, Any], **filled: Any) -> T:
    """Entry `name` of `table` with a recipe's `params`; `filled` is what the flow gives and a recipe may not.

    Raises `InputError` for an unknown name or parameter, listing the known ones, and for a value of the wrong type.
    """
    if name not in table:
        raise InputError(f"unknown {kind} {name!r}; known: {', '.join(table)}")
    known = [field for field in inspect.signature(table[name]).parameters if field not in filled]
    if unknown := [param for param in params if param not in known]:
        raise InputError(f"{kind} {name!r} has no parameter {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    try:
        return table[name](**filled, **params)
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: a parameter has the wrong type: {error}") from error

"""An entry of a room's table, made from a recipe's name and parameters."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from selection.table import Parameter
from warehouse.errors import InputError

T = TypeVar("T")
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def make(kind: str, table: Mapping[str, Callable[..., T]], name: str, params: Mapping[str, Any], **filled: Any) -> T:
    """Entry `name` of `table` with a recipe's `params`; `filled` is what the flow gives and a recipe may not.

    Raises `InputError` for an unknown name or parameter, listing the known ones, and for a value of the wrong type.
    """
    if name not in table:
        raise InputError(f"unknown {kind} {name!r}; known: {', '.join(table)}")
    known = [field for field in inspect.signature(table[name]).parameters if field not in filled]
    if unknown := [param for param in params if param not in known]:
        raise InputError(f"{kind} {name!r} has no parameter {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    _check_types(kind, name, table[name], filled, params)
    try:
        return table[name](**filled, **params)
    except TypeError as error:
        raise InputError(f"{kind} {name!r}: a parameter has the wrong type: {error}") from error


def _check_types(
    kind: str, name: str, entry: Callable[..., Any], filled: Mapping[str, Any], params: Mapping[str, Any]
) -> None:
    """Raise `InputError` for a plain parameter of the wrong type, and for one that has no default and is not given."""
    hints = get_type_hints(entry)
    for param, known in inspect.signature(entry).parameters.items():
        asked = Parameter(param, hints.get(param, Any), known.default)
        if param in params and asked.plain and not asked.holds(params[param]):
            raise InputError(f"{kind} {name!r}: {param} is {params[param]!r}; give {asked.expected}")
        if known.default is known.empty and param not in params and param not in filled and known.kind in NAMED:
            raise InputError(f"{kind} {name!r} needs {param}: give `{param}`")

"""The tunings by name, and how a recipe's entry becomes one of them.

A new one is a file, a line here and a part of docs/training.md; the contract test runs over every entry.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from training.kinds import check_kinds
from training.tuning import adapters, eva, full, partial, sparse
from training.tuning.protocol import Tuning
from warehouse.errors import InputError

TUNINGS: dict[str, Callable[..., Tuning]] = {
    "full": full.Full,
    "lora": adapters.Lora,
    "rslora": adapters.RsLora,
    "dora": adapters.Dora,
    "pissa": adapters.Pissa,
    "olora": adapters.OLora,
    "eva": eva.Eva,
    "ia3": adapters.Ia3,
    "shira": sparse.Shira,
    "lift": sparse.Lift,
    "hft": partial.Hft,
    "lisa": partial.Lisa,
    "s2ft": partial.S2ft,
    "galore": partial.Galore,
    "mezo": partial.Mezo,
}


def tuning_of(given: Any) -> Tuning:
    """A tuning from its name, from a mapping of `name` and parameters, or as it is.

    Raises `InputError` for an unknown name or parameter, listing the known ones, and for a value of the wrong type.
    """
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        if not hasattr(given, "prepare"):
            raise InputError(f"tuning is {given!r}; give a name, or a mapping of `name` and its parameters")
        made: Tuning = given
        return made
    params = dict(given)
    name = params.pop("name", None)
    if name is None:
        raise InputError(f"tuning is {params}, without a `name`; known tunings: {', '.join(TUNINGS)}")
    if not isinstance(name, str) or name not in TUNINGS:
        raise InputError(f"unknown tuning {name!r}; known tunings: {', '.join(TUNINGS)}")
    hints = {param: kind for param, kind in get_type_hints(TUNINGS[name]).items() if param.islower()}
    if unknown := [param for param in params if param not in hints]:
        raise InputError(f"tuning {name!r} has no parameter {unknown[0]}; known: {', '.join(hints) or 'none'}")
    check_kinds(f"tuning {name!r}", hints, params)
    return TUNINGS[name](**params)

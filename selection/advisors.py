"""The table of advisors, what each must be given, and how a recipe's entry becomes one of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from selection.advice import Advisor
from selection.dmt import Dmt
from selection.ot_mixture import OtMixture
from selection.projektor import Projektor, rank_needed
from selection.scaling import PARAMETERS, Scaling
from selection.table import Parameter
from warehouse.errors import InputError

ADVISORS: dict[str, Callable[..., Advisor]] = {
    "projektor": Projektor,
    "scaling": Scaling,
    "ot_mixture": OtMixture,
    "dmt": Dmt,
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What an advisor is given beside the sources and the budget.

    pilots    sizes of runs that it needs at least; 0 where it learns from none
    distance  the transport distance of any mixture to the target
    rows      the source and key of every candidate: it answers with rows
    one_pass  runs whose rows are seen once, but for those that are there again: it counts how often they are seen
    """

    pilots: int = 0
    distance: bool = False
    rows: bool = False
    one_pass: bool = False


NEEDS: Mapping[str, Needs] = {
    "projektor": Needs(pilots=2, distance=True),
    "scaling": Needs(pilots=PARAMETERS, one_pass=True),
    "ot_mixture": Needs(distance=True),
    "dmt": Needs(rows=True),
}


def least_mixtures(advisor: Advisor, s: int, sizes: int, seeds: int) -> int:
    """On how many mixtures of s sources runs must be made, each of them at `sizes` sizes with `seeds` seeds.

    Those of one source alone count, and come first.
    """
    if not isinstance(advisor, Projektor):
        return s
    rank = rank_needed(s, advisor.surface)
    return max(rank, 2 * rank // (sizes * seeds) + 1)  # more runs than numbers fitted, at two sizes' worth


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of advisor `name`, by name. Raises `InputError` for an unknown advisor."""
    if name not in ADVISORS:
        raise InputError(f"unknown advisor {name!r}; known advisors: {', '.join(ADVISORS)}")
    fields, kinds = inspect.signature(ADVISORS[name]).parameters, get_type_hints(ADVISORS[name])
    return {each: Parameter(each, kinds[each], fields[each].default) for each in fields}


def build(name: str, params: Mapping[str, Any]) -> Advisor:
    """Advisor `name` with a recipe's `params`.

    Raises `InputError` for an unknown advisor or parameter, a value of the wrong type, and a parameter that is missing.
    """
    known = parameters(name)
    missing = [each.name for each in known.values() if each.default is inspect.Parameter.empty]
    if absent := [each for each in missing if each not in params]:
        raise InputError(f"advisor {name!r} needs {', '.join(absent)}: give {_expected(known[absent[0]])}")
    return ADVISORS[name](**{param: _value(name, param, given, known) for param, given in params.items()})


def _value(name: str, param: str, given: Any, known: Mapping[str, Parameter]) -> Any:
    if param not in known:
        listed = ", ".join(_listed(each) for each in known.values())
        raise InputError(f"advisor {name!r} has no parameter {param!r}; known, with defaults: {listed}")
    wanted = known[param]
    if _many(wanted):
        good = isinstance(given, list | tuple) and all(isinstance(each, str) for each in given)
    else:
        good = wanted.holds(given)
    if not good:
        raise InputError(f"advisor {name!r}: {param} must be {_expected(wanted)}, found {given!r}")
    return tuple(given) if _many(wanted) else given


def _many(parameter: Parameter) -> bool:
    return get_origin(parameter.kind) is tuple


def _expected(parameter: Parameter) -> str:
    return "a list of texts" if _many(parameter) else parameter.expected


def _listed(parameter: Parameter) -> str:
    required = parameter.default is inspect.Parameter.empty
    return f"{parameter.name} ({'required' if required else parameter.default})"

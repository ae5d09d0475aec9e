"""The table of selection methods, and how a recipe's entry becomes one of them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from selection.balanced_random import BalancedRandom
from selection.deita import Deita
from selection.dsir import Dsir
from selection.facility_location import FacilityLocation, FacilityLocationTargets
from selection.got_d import GotD
from selection.grape import Grape
from selection.ifd import Ifd
from selection.k_center import KCenter
from selection.k_means import KMeansQuota
from selection.length import Length
from selection.less import Less
from selection.lexical import Lexical
from selection.paser import Paser
from selection.perplexity import Perplexity
from selection.private_clusters import PrivateClusters
from selection.private_kernel import PrivateKernel
from selection.private_mean import PrivateMean
from selection.problem import Method
from selection.proportional import Proportional
from selection.random_rows import Random
from selection.rds_plus import RdsPlus
from selection.replay import Replay
from selection.reverse import Reverse
from selection.top_k import TopK
from selection.tsds import Tsds
from warehouse.errors import InputError

METHODS: dict[str, Callable[..., Method]] = {
    "random": Random,
    "balanced_random": BalancedRandom,
    "proportional": Proportional,
    "length": Length,
    "lexical": Lexical,
    "top_k": TopK,
    "rds_plus": RdsPlus,
    "tsds": Tsds,
    "got_d": GotD,
    "dsir": Dsir,
    "less": Less,
    "perplexity": Perplexity,
    "ifd": Ifd,
    "deita": Deita,
    "k_center": KCenter,
    "k_means": KMeansQuota,
    "facility_location": FacilityLocation,
    "facility_location_targets": FacilityLocationTargets,
    "grape": Grape,
    "paser": Paser,
    "replay": Replay,
    "private_mean": PrivateMean,
    "private_kernel": PrivateKernel,
    "private_clusters": PrivateClusters,
}


PLAIN = (int, float, bool, str, type(None))


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a recipe may give: its name, its type and its default."""

    name: str
    kind: Any
    default: Any

    @property
    def plain(self) -> bool:
        """Whether all of its types are plain: numbers, texts, true or false, or nothing."""
        return all(kind in PLAIN for kind in self._kinds)

    @property
    def expected(self) -> str:
        choices = [text for kind in self._kinds for text in _told(kind)]
        return f"one of {', '.join(choices)}" if self._literal else " or ".join(choices)

    def holds(self, value: Any) -> bool:
        """Whether `value`, as YAML gives it, is of this type; a whole number is a number too, true is neither."""
        return any(_holds(kind, value) for kind in self._kinds)

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return get_args(self.kind) if get_origin(self.kind) in (Union, UnionType) else (self.kind,)

    @property
    def _literal(self) -> bool:
        return get_origin(self._kinds[0]) is Literal


def _told(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    told = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Mapping: "a mapping"}
    return [told[plain]] if (plain := get_origin(kind) or kind) in told else []


def _holds(kind: Any, value: Any) -> bool:
    if kind is type(None):
        return value is None
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


MODEL = (Parameter("model", str | None, None), Parameter("template", Literal["tulu", "grape"], "tulu"))
GRADIENT = (
    Parameter("model", str | None, None),
    Parameter("dimensions", int, 8192),
    Parameter("warmup", float, 0.05),
    Parameter("checkpoints", int, 4),
)
FILLED: dict[str, tuple[Parameter, ...]] = {
    "representation": (),
    "instructions": (),
    "tokenizer": (),
    "length": (),
    "repetition": (),
    "response": MODEL,
    "response_alone": MODEL,
    "scores": (Parameter("complexity", str | None, None), Parameter("quality", str | None, None)),
    "gradient": GRADIENT,
    "target_gradient": GRADIENT,
    "degradation": (Parameter("damaged", str | None, None), Parameter("whole", str | None, None)),
}
"""Fields that the run fills in, and the parameters of a recipe that say how: the models that measure the signal."""

REVERSE = Parameter("reverse", bool, False)
"""A parameter of every method: the control that takes what the method would take last."""

Fill = Callable[[str, Mapping[str, Any]], Any]
"""Makes the value of a field of `FILLED` from the values of its parameters, by name."""


def parameters(name: str) -> dict[str, Parameter]:
    """The parameters of method `name` that a recipe may give, by name. Raises `InputError` for an unknown method."""
    fields, kinds = _fields(name), get_type_hints(METHODS[name])
    own = [Parameter(field, kinds[field], fields[field].default) for field in fields if field not in FILLED]
    return {each.name: each for each in (*own, *_of_signals(name))}


def _of_signals(name: str) -> list[Parameter]:
    return [each for field in _fields(name) for each in FILLED.get(field, ())]


def build(name: str, params: Mapping[str, Any], fill: Fill) -> Method:
    """Method `name` with a recipe's `params`; `fill` is asked for every field that is the run's to give.

    Raises `InputError` for an unknown method or parameter or a value of the wrong type.
    """
    known = parameters(name) | {REVERSE.name: REVERSE}
    for param, value in params.items():
        _check(name, param, value, known)
    signals = {each.name: params.get(each.name, each.default) for each in _of_signals(name)}
    filled = {field: fill(field, signals) for field in _fields(name) if field in FILLED}
    own = {param: value for param, value in params.items() if param not in signals and param != REVERSE.name}
    method = METHODS[name](**own, **filled)
    return Reverse(method) if params.get(REVERSE.name) else method


def _fields(name: str) -> Mapping[str, inspect.Parameter]:
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known methods: {', '.join(METHODS)}")
    return inspect.signature(METHODS[name]).parameters


def _check(name: str, param: str, value: Any, known: Mapping[str, Parameter]) -> None:
    if param not in known:
        listed = ", ".join(f"{each.name} ({each.default})" for each in known.values())
        raise InputError(f"method {name!r} has no parameter {param!r}; known, with defaults: {listed}")
    if not known[param].holds(value):
        raise InputError(f"method {name!r}: {param} must be {known[param].expected}, found {value!r}")

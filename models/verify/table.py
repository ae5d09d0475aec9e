"""The table of verifiers. A new one is one file and one line here; a judge is asked by `models.verify.checked`."""

from typing import ClassVar, Protocol

from models.protocol import Verifier
from models.verify.mathematics import Mathematics
from models.verify.numeric import Numeric
from models.verify.text import Choice, Exact
from models.verify.trace import Traced
from models.verify.unit_test import UnitTest


class Listed(Verifier, Protocol):
    """A verifier that says why it can find a reply not right."""

    reasons: ClassVar[frozenset[str]]


VERIFIERS: dict[str, type[Listed]] = {
    "exact": Exact,
    "numeric": Numeric,
    "math": Mathematics,
    "choice": Choice,
    "unit_test": UnitTest,
    "trace": Traced,
}

"""The table of synthesizers. A new one is one file and one line here."""

from collections.abc import Callable

from synthesis.protocol import Synthesizer
from synthesis.tint import Tint
from synthesis.world import World

SYNTHESIZERS: dict[str, Callable[..., Synthesizer]] = {"tint": Tint, "world": World}

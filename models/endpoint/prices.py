"""What tokens cost: exact decimals, from the user's own table."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from warehouse.errors import InputError

MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one try used. `cached` are of the `prompt` tokens, `reasoning` of the `completion` tokens."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per million tokens; `cached_input` defaults to `input`, `reasoning` to `output`.

    `batch_factor` multiplies the whole (0.5 where a tariff halves all prices). Give numbers as text or decimals where
    they must be exact: a float counts as it prints.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    reasoning: Decimal | None = None
    batch_factor: Decimal = Decimal(1)

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input", "reasoning", "batch_factor"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, amount(value, f"price {name}"))

    def cost(self, tokens: Tokens) -> Decimal:
        """USD for `tokens`, exact."""
        cached = self.input if self.cached_input is None else self.cached_input
        reasoning = self.output if self.reasoning is None else self.reasoning
        million = (
            (tokens.prompt - tokens.cached) * self.input
            + tokens.cached * cached
            + (tokens.completion - tokens.reasoning) * self.output
            + tokens.reasoning * reasoning
        )
        return million * self.batch_factor / MILLION

    def most(self, prompt: int, completion: int) -> Decimal:
        """USD that `prompt` and `completion` tokens can cost at most, whatever of them is cached or reasoning."""
        dear_input = max(self.input, self.cached_input or self.input)
        dear_output = max(self.output, self.reasoning or self.output)
        return (prompt * dear_input + completion * dear_output) * self.batch_factor / MILLION


def amount(value: object, name: str) -> Decimal:
    """`value` as a finite decimal of at least 0; raises `InputError` for anything else."""
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        found = Decimal("NaN")
    if isinstance(value, bool) or not found.is_finite() or found < 0:
        raise InputError(f"{name} is {value!r}; give a number of at least 0, such as 0.15")
    return found

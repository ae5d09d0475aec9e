"""How replies are drawn: the check of what users write about it."""

from warehouse.errors import InputError


def check_drawing(temperature: float, top_p: float) -> None:
    """Raises `InputError` unless `temperature` is 0 or more and 0 < `top_p` <= 1."""
    if not (temperature >= 0 and 0 < top_p <= 1):
        raise InputError(
            f"temperature is {temperature} and top_p {top_p}; expected a temperature of at least 0 and a top_p above 0 "
            "and at most 1"
        )

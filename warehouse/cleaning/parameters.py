"""Checks of the thresholds that users write."""

from collections.abc import Sequence

from warehouse.errors import InputError


def check_count(name: str, value: int | None, lowest: int = 0) -> None:
    """Raises `InputError` unless `value` is None or a whole number from `lowest` on."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name} is {value!r}; it must be a whole number, at least {lowest}")


def check_range(low_name: str, low: int, high_name: str, high: int | None) -> None:
    """Raises `InputError` unless both are counts (None: no upper limit) and low ≤ high."""
    check_count(low_name, low)
    check_count(high_name, high)
    if high is not None and low > high:
        raise InputError(f"{low_name} is {low}, above {high_name}, which is {high}: no row could pass")


def check_share(name: str, value: float) -> None:
    """Raises `InputError` unless 0 ≤ `value` ≤ 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} is {value!r}; it must be a share from 0 to 1")


def check_switch(name: str, value: bool) -> None:
    """Raises `InputError` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it must be true or false")


def check_texts(name: str, values: Sequence[str], known: Sequence[str] = ()) -> None:
    """Raises `InputError` unless `values` is a list of texts, none of them blank, all `known` where that is given."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InputError(f"{name} is {values!r}; it must be a list of texts")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            hint = "; YAML reads a bare no as false: write it in quotes" if isinstance(value, bool) else ""
            raise InputError(f"{name} holds {value!r}; it must be a list of texts{hint}")
        if known and value not in known:
            raise InputError(f"{name} holds {value!r}; known: {', '.join(known)}")

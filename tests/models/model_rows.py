"""Rows that this room's tests share."""

from warehouse.records import Message, Messages


def said(*turns: str) -> Messages:
    """User and assistant turns by turns."""
    return tuple(Message("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns))


ROWS: tuple[Messages, ...] = (
    (Message("system", "Be terse."), *said("What is 1+2? 🎉", "The answer is 3.", "Sure?", "Yes.")),
    *(said("Reverse the word river. " * k, "The answer is revir. " * (k % 4 + 1)) for k in range(1, 9)),
    said("No reply here"),
    said("x", "y"),
)

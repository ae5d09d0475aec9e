"""The tasks by name: each is given the test examples and its parameters.

A new one is a class in `eval/tasks.py` (or a file of its own), a line here, a line in the contract test and a part of
docs/evaluation.md.
"""

from collections.abc import Callable

from eval import tasks
from eval.protocol import Task

TASKS: dict[str, Callable[..., Task]] = {
    "exact_match": tasks.ExactMatch,
    "numeric_match": tasks.NumericMatch,
    "held_out_loss": tasks.HeldOutLoss,
}

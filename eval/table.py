"""The tasks by name: each is given the test examples and its parameters.

A new one is a class in a file of its own, a line here, a line in the contract test and a part of docs/evaluation.md.
"""

from collections.abc import Callable

from eval import choice, refusing, tasks
from eval.instructions.task import Instructions
from eval.pairwise import Pairwise
from eval.programs import Code
from eval.protocol import Task
from eval.rouge import RougeL

TASKS: dict[str, Callable[..., Task]] = {
    "exact_match": tasks.ExactMatch,
    "numeric_match": tasks.NumericMatch,
    "held_out_loss": tasks.HeldOutLoss,
    "choice": choice.Choice,
    "lowest_perplexity": choice.LowestPerplexity,
    "rouge_l": RougeL,
    "code": Code,
    "instructions": Instructions,
    "pairwise": Pairwise,
    "refusal": refusing.Refusal,
    "sureness": refusing.Sureness,
}

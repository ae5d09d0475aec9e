"""`grape`: of several replies to an instruction, the one that the model to be tuned finds most likely (GRAPE, 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.answer import HIGHER, NONE, selection
from selection.gumbel import gumbel
from selection.histogram import histogram
from selection.problem import Problem
from selection.replies import CUT, FIT, LOWER, NO_REPLY, WHY, Replies, counted, replies_of
from warehouse.errors import InputError
from warehouse.records import Floats, Rows, Selection, Spec

Order = Literal["best", "reverse", "random"]
DIRECTIONS: dict[Order, str] = {"best": HIGHER, "reverse": LOWER, "random": NONE}
SHORT, LONG, REPETITIVE, DUPLICATE = range(len(WHY) + 1, len(WHY) + 5)
REASONS = {DUPLICATE: "duplicate", LONG: "long", SHORT: "short", REPETITIVE: "repetitive", **WHY}
"""Why a reply is not ranked, in the order in which such rows come after all others."""


@dataclass(frozen=True, slots=True)
class Grape:
    """Round 1 takes the best reply to every instruction, round 2 the second best, and so on.

    response        the signal: mean NLL of the reply under the base model that will be tuned
    repetition      the signal: the share of the reply's word 4-grams that came before in it
    order           `best`: the highest mean log-probability first; `reverse` and `random` are the controls
    only_choices    whether instructions with a single reply to choose from come after all others (the paper left them
                    out), marked `filled=only_reply`
    max_repetition  replies that repeat themselves more are not ranked
    min_tokens, max_tokens  shorter and longer replies are not ranked

    Rows with the same key are one reply. Ties go to the shorter reply, then the lower key. Instructions take turns in
    a drawn order. Replies that are not ranked, were cut to the model's length or are empty come after all others,
    with score 0. Scores are mean log-probabilities in nats per token, "higher is better" for `best`, "lower is better"
    for `reverse`; for `random` they are 0, direction "none". Raises `InputError` where the pool has no instructions or
    a signal is not finite.
    """

    compares: ClassVar[bool] = False

    response: Spec
    repetition: Spec
    order: Order = "best"
    only_choices: bool = True
    max_repetition: float = 0.3
    min_tokens: int = 1
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise InputError(f"order is {self.order!r}; give one of {', '.join(get_args(Order))}")
        if not 0 <= self.max_repetition <= 1:
            raise InputError(f"max_repetition is {self.max_repetition}; give a share from 0 to 1")
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise InputError(
                f"min_tokens is {self.min_tokens} and max_tokens {self.max_tokens}; "
                "give at least 1, and at least as many for the second"
            )

    @property
    def reads(self) -> Mapping[str, Spec]:
        return {"response": self.response, "repetition": self.repetition}

    def __call__(self, problem: Problem, rng: np.random.Generator) -> Selection:
        if "instruction" not in problem.groups:
            raise InputError("grape chooses among the replies to an instruction, but the pool's rows have none")
        _, instruction = np.unique(problem.groups["instruction"], return_inverse=True)
        replies = replies_of(problem, "response")
        state = self._state(problem, replies, instruction)
        turn = turns_of(instruction, problem.keys, rng)
        fit = state == FIT
        rounds = ranks(
            np.flatnonzero(fit), instruction, (self._worse(problem, replies, rng), replies.tokens, problem.keys)
        )
        per_instruction = np.bincount(instruction[fit], minlength=len(turn))
        choices = per_instruction[instruction]
        alone = fit & (choices == 1) & self.only_choices
        place, tier = np.where(fit, turn[instruction], 0), np.argsort([FIT, *REASONS])[state]
        rows = np.lexsort((problem.keys, place, rounds, alone, tier))[: problem.budget]
        scores = np.where(fit & (self.order != "random"), -replies.nll, 0.0)
        kept = scores[rows][fit[rows]]
        worst = kept.max if self.order == "reverse" else kept.min
        facts: dict[str, Any] = {
            "order": self.order,
            "instructions": len(turn),
            "instructions_with_a_choice": int((per_instruction > 1).sum()),
            "rounds": int(rounds[rows].max()),
            "filled": {"only_reply": int(alone[rows].sum()), **counted(state[rows], REASONS)},
            "not_ranked": counted(state, REASONS),
            "mean_score": float(kept.mean()) if len(kept) else None,
            "cut_off": float(worst()) if len(kept) else None,
            "pool_scores": histogram(-replies.nll[fit]),
        }
        reasons = [
            f"instruction={label} replies={choices[row]} logprob={-replies.nll[row]:.4g} tokens={replies.tokens[row]} "
            + _place(int(state[row]), int(rounds[row]), bool(alone[row]))
            for row, label in zip(rows.tolist(), problem.groups["instruction"][rows].tolist(), strict=True)
        ]
        return selection(rows, scores[rows], reasons, DIRECTIONS[self.order], **facts)

    def _state(self, problem: Problem, replies: Replies, instruction: Rows) -> NDArray[np.int8]:
        """(n,) FIT, or why a reply is not ranked."""
        repeated = _repetition(problem)
        short, long = replies.tokens < self.min_tokens, replies.tokens > self.max_tokens
        found = [replies.state == CUT, replies.state == NO_REPLY, short, long, repeated > self.max_repetition]
        state = np.select(found, [CUT, NO_REPLY, SHORT, LONG, REPETITIVE], FIT).astype(np.int8)
        fit = np.flatnonzero(state == FIT)
        order = fit[np.lexsort((problem.keys[fit], instruction[fit]))]
        first, second = order[:-1], order[1:]
        again = (problem.keys[first] == problem.keys[second]) & (instruction[first] == instruction[second])
        state[second[again]] = DUPLICATE
        return state

    def _worse(self, problem: Problem, replies: Replies, rng: np.random.Generator) -> Floats:
        """(n,) what ranks the replies to an instruction, the least first."""
        if self.order == "random":
            return np.asarray(gumbel(problem, rng)[0])
        return np.asarray(replies.nll if self.order == "best" else -replies.nll)


def turns_of(group: Rows, keys: NDArray[np.uint64], rng: np.random.Generator) -> Rows:
    """(g,) the drawn turn of each group, for the `group` (n,) from 0 of each row.

    A group is known by its lowest key, so that neither its number nor the order of the rows changes its turn.
    """
    lowest = np.full(group.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, group, keys)
    turns = np.empty(len(lowest), np.int64)
    turns[np.argsort(lowest, kind="stable")] = rng.permutation(len(lowest))
    return turns


def ranks(rows: Rows, group: Rows, by: tuple[NDArray[Any], ...]) -> Rows:
    """(n,) the place, from 1, of each of `rows` among those of its `group` (n,), by the least of `by`; 0 elsewhere."""
    order = rows[np.lexsort((*(values[rows] for values in reversed(by)), group[rows]))]
    places = np.zeros(len(group), np.int64)
    ordered = group[order]
    places[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered) + 1
    return places


def _place(state: int, turn: int, alone: bool) -> str:
    if state != FIT:
        return f"filled={REASONS[state]}"
    return f"round={turn} filled=only_reply" if alone else f"round={turn}"


def _repetition(problem: Problem) -> NDArray[Any]:
    shares: NDArray[Any] = np.asarray(problem.candidates["repetition"][0 : problem.n])
    if len(broken := np.flatnonzero(~np.isfinite(shares))):
        raise InputError(
            f"{len(broken)} of {problem.n} rows have a share of repetition that is NaN or infinite, "
            f"the first is row {broken[0]}: measure them again"
        )
    return shares

"""`grape`: of several replies to an instruction, the one that the model to be tuned finds most likely (GRAPE, 2025)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from selection.answer import HIGHER, LOWER, NONE, selection, summary
from selection.gumbel import gumbel
from selection.histogram import histogram
from selection.problem import Problem
from selection.replies import CUT, FIT, NO_REPLY, WHY, Replies, counted, replies_of
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
        placed = self._placed(problem, replies, state, instruction, rng)
        rows = placed.order(turn[instruction], problem.keys)[: problem.budget]
        scores = np.where(placed.fit & (self.order != "random"), -replies.nll, 0.0)[rows]
        direction = DIRECTIONS[self.order]
        facts: dict[str, Any] = {
            "order": self.order,
            "instructions": len(turn),
            **placed.facts(rows),
            **summary(scores[placed.fit[rows]], direction),
            "pool_scores": histogram(-replies.nll[placed.fit]),
        }
        reasons = placed.reasons(rows, problem.groups["instruction"][rows], replies)
        return selection(rows, scores, reasons, direction, **facts)

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

    def _placed(
        self, problem: Problem, replies: Replies, state: NDArray[np.int8], instruction: Rows, rng: np.random.Generator
    ) -> "Placed":
        fit = state == FIT
        by = (self._worse(problem, replies, rng), replies.tokens, problem.keys)
        rounds = ranks(np.flatnonzero(fit), instruction, by)
        choices = np.bincount(instruction[fit], minlength=instruction.max() + 1)[instruction]
        return Placed(state, rounds, choices, fit & (choices == 1) & self.only_choices)

    def _worse(self, problem: Problem, replies: Replies, rng: np.random.Generator) -> Floats:
        """(n,) what ranks the replies to an instruction, the least first."""
        if self.order == "random":
            return np.asarray(gumbel(problem, rng)[0])
        return np.asarray(replies.nll if self.order == "best" else -replies.nll)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where n replies stand among those to their instruction.

    state    (n,) FIT, or why a reply is not ranked
    rounds   (n,) its place, from 1, among the ranked replies; 0 where it is not one of them
    choices  (n,) how many ranked replies its instruction has
    alone    (n,) whether it is put last because there is no other
    """

    state: NDArray[np.int8]
    rounds: Rows
    choices: Rows
    alone: NDArray[np.bool_]

    @property
    def fit(self) -> NDArray[np.bool_]:
        return np.asarray(self.state == FIT)

    def order(self, turn: Rows, keys: NDArray[np.uint64]) -> Rows:
        """All rows (n,), by round and in it by the `turn` (n,) of their instructions."""
        tier = np.argsort([FIT, *REASONS])[self.state]
        return np.lexsort((keys, np.where(self.fit, turn, 0), self.rounds, self.alone, tier))

    def facts(self, rows: Rows) -> dict[str, Any]:
        """What is told of all replies and of those on `rows` (k,), the chosen."""
        return {
            "instructions_with_a_choice": int((self.rounds == 2).sum()),  # each has one reply of the second round
            "rounds": int(self.rounds[rows].max()),
            "filled": {"only_reply": int(self.alone[rows].sum()), **counted(self.state[rows], REASONS)},
            "not_ranked": counted(self.state, REASONS),
        }

    def reasons(self, rows: Rows, labels: NDArray[Any], replies: Replies) -> list[str]:
        """(k,) of `rows`, whose instructions are `labels` (k,)."""
        per_token, tokens, replied = -replies.nll, replies.tokens, self.choices
        return [
            f"instruction={label} replies={replied[i]} logprob={per_token[i]:.4g} tokens={tokens[i]} {self._place(i)}"
            for i, label in zip(rows.tolist(), labels.tolist(), strict=True)
        ]

    def _place(self, row: int) -> str:
        if self.state[row] != FIT:
            return f"filled={REASONS[self.state[row]]}"
        return f"round={self.rounds[row]} filled=only_reply" if self.alone[row] else f"round={self.rounds[row]}"


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


def _repetition(problem: Problem) -> NDArray[Any]:
    shares: NDArray[Any] = np.asarray(problem.candidates["repetition"][0 : problem.n])
    if len(broken := np.flatnonzero(~np.isfinite(shares))):
        raise InputError(
            f"{len(broken)} of {problem.n} rows have a share of repetition that is NaN or infinite, "
            f"the first is row {broken[0]}: measure them again"
        )
    return shares

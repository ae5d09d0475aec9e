"""What is read off the hidden states of a batch: representations, log-probabilities of replies, logits of choices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.chat import Tokens
from models.forward import Ids, pool, unit
from models.head import Head
from models.protocol import Measures, Want


@dataclass(frozen=True, slots=True)
class Probe:
    """One sequence of a forward pass: the first `body` tokens are the row's own, the first `prompt` its prompt,

    `reply` marks its reply tokens, and with `asks` the logits after its last token answer the row's CHOICE_LOGITS.
    """

    row: int
    ids: Ids
    body: int
    prompt: int
    reply: NDArray[np.bool_]
    asks: bool


Read = list[tuple[Probe, torch.Tensor]]  # the sequences of one batch, each with its hidden states (length, d)


def probes(bodies: Sequence[Tokens] | None, asked: Sequence[Tokens] | None) -> Iterator[Probe]:
    """The sequences to run: one per row where the row is the beginning of the row that asks, else one for each."""
    n = len(bodies if bodies is not None else asked or [])
    for row in range(n):
        body = bodies[row] if bodies is not None else None
        ask = asked[row] if asked is not None else None
        if body is not None and ask is not None and np.array_equal(ask.ids[: len(body.ids)], body.ids):
            yield Probe(row, ask.ids, len(body.ids), body.prompt, ask.reply, asks=True)
            continue
        if body is not None:
            yield Probe(row, body.ids, len(body.ids), body.prompt, body.reply, asks=False)
        if ask is not None:
            yield Probe(row, ask.ids, 0, 0, np.zeros(len(ask.ids), np.bool_), asks=True)


@dataclass(slots=True)
class Readings:
    """The arrays that batches write into; None where not wanted."""

    representation: NDArray[np.float32] | None
    prompts: NDArray[np.float32] | None
    logprobs: list[NDArray[np.float32]] | None
    choice_logits: NDArray[np.float32] | None
    choices: Sequence[int]

    @classmethod
    def empty(cls, n: int, d: int, wants: frozenset[Want], choices: Sequence[int]) -> "Readings":
        """Raises `ValueError` where nothing is wanted, or CHOICE_LOGITS without choices."""
        if not wants:
            raise ValueError("measure was asked for nothing: `wants` is empty")
        if Want.CHOICE_LOGITS in wants and not choices:
            raise ValueError("CHOICE_LOGITS need the token ids to choose from: `choices` is empty")
        return cls(
            np.zeros((n, d), np.float32) if Want.REPRESENTATION in wants else None,
            np.zeros((n, d), np.float32) if Want.PROMPT_REPRESENTATION in wants else None,
            [np.zeros(0, np.float32)] * n if Want.RESPONSE_LOGPROBS in wants else None,
            np.zeros((n, len(choices)), np.float32) if Want.CHOICE_LOGITS in wants else None,
            choices,
        )

    def take(self, states: Read, head: Head | None) -> None:
        """Read what is wanted off one batch; `head` is needed for all but representations."""
        with torch.inference_mode():
            if self.representation is not None:
                _pool([(p.row, h[: p.body]) for p, h in states], self.representation)
            if self.prompts is not None:
                _pool([(p.row, h[: p.prompt]) for p, h in states], self.prompts)
            if self.logprobs is not None and head is not None:
                self._take_logprobs(states, head, self.logprobs)
            if self.choice_logits is not None and head is not None and (asking := [s for s in states if s[0].asks]):
                last = torch.stack([h[-1] for _, h in asking])
                tokens = torch.tensor(self.choices, device=last.device)
                self.choice_logits[[p.row for p, _ in asking]] = head.logits(last, tokens).cpu().numpy()

    def _take_logprobs(self, states: Read, head: Head, into: list[NDArray[np.float32]]) -> None:
        rows = [(p, h) for p, h in states if p.body]
        found = reply_logprobs(head, [(h, p.ids, p.reply) for p, h in rows])
        for (p, _), part in zip(rows, found, strict=True):
            into[p.row] = part

    def measures(self, rows: Sequence[Tokens]) -> Measures:
        return replace(
            measures(rows, self.logprobs),
            representation=None if self.representation is None else unit(self.representation),
            prompt_representation=None if self.prompts is None else unit(self.prompts),
            choice_logits=self.choice_logits,
        )


def measures(rows: Sequence[Tokens], logprobs: Sequence[NDArray[np.float32]] | None) -> Measures:
    """What is known of rows and of their replies' log-probabilities alone."""
    return Measures(
        tokens=np.array([len(t.ids) for t in rows], np.int64),
        truncated=np.array([t.truncated for t in rows], np.bool_),
        response_logprobs=logprobs,
    )


def _pool(parts: Sequence[tuple[int, torch.Tensor]], into: NDArray[np.float32]) -> None:
    present = [(row, pool(states)) for row, states in parts if len(states)]
    if present:
        into[[row for row, _ in present]] = torch.stack([pooled for _, pooled in present]).cpu().numpy()


def reply_logprobs(
    head: Head, rows: Sequence[tuple[torch.Tensor, Ids, NDArray[np.bool_]]]
) -> list[NDArray[np.float32]]:
    """Natural log-probability of each reply token of rows (hidden states, ids, reply mask), in one call of the head.

    A row's first token has nothing before it and is left out.
    """
    if not rows:
        return []
    spots = [np.flatnonzero(reply[1:]) for _, _, reply in rows]  # token t + 1 is foretold at t
    pairs = zip(rows, spots, strict=True)
    before = torch.cat([states[torch.from_numpy(at).to(states.device)] for (states, _, _), at in pairs])
    targets = np.concatenate([ids[1:][at] for (_, ids, _), at in zip(rows, spots, strict=True)]).astype(np.int64)
    found = head.logprobs(before, torch.from_numpy(targets).to(before.device)).cpu().numpy()
    return np.split(found, np.cumsum([len(at) for at in spots])[:-1])

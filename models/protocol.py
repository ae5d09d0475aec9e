"""What every language model answers to: complete prompts, and measure rows in one forward pass."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from warehouse.records import Example, Messages

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends before the reply, and how the reply is drawn.

    `temperature` 0 is greedy. `seed` fixes the draw of this prompt alone, whatever it is batched with. A reply ends at
    the model's end token, at the first of `stop` (not part of the text), or after `max_tokens`. `draw` tells apart
    independent draws of one prompt. `presence_penalty` is taken off the logits of tokens that the reply has already.
    `schema` is a JSON schema, as canonical JSON, that the reply is asked to meet; whether it does, the caller checks.
    """

    messages: Messages
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    draw: int = 0
    presence_penalty: float = 0.0
    schema: str | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError("a prompt needs at least one message")
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"a prompt needs max_tokens >= 1, temperature >= 0 and 0 < top_p <= 1; got {self.max_tokens}, "
                f"{self.temperature}, {self.top_p}"
            )
        if "" in self.stop:
            raise ValueError("an empty stop string would end every reply before it starts")


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


Failure: TypeAlias = Literal["", "too_long", "bad_request", "unreachable", "over_budget", "filtered", "empty"]
UNANSWERED: frozenset[Failure] = frozenset({"too_long", "bad_request", "unreachable", "over_budget"})
"""Failures that left no reply: the same prompt is sent again when it is asked again."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply. `finish_reason` is "stop", "length" or "error"; `logprobs` holds a natural logarithm per token of it.

    `truncated` says that the prompt did not fit the model's context and lost its beginning. `failure` says why there is
    no text to use, `detail` what the endpoint said; `key` finds the reply in the response store, where there is one,
    `earlier` are the keys of replies that were paid for and not used, because they were cut.
    """

    text: str
    finish_reason: str
    usage: Usage
    logprobs: tuple[float, ...] = ()
    truncated: bool = False
    failure: Failure = ""
    detail: str = ""
    key: str = ""
    earlier: tuple[str, ...] = ()


class Want(Enum):
    """What `measure` can take from one forward pass."""

    REPRESENTATION = "representation"
    RESPONSE_LOGPROBS = "response_logprobs"
    CHOICE_LOGITS = "choice_logits"
    PROMPT_REPRESENTATION = "prompt_representation"


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured, aligned with the rows given; what was not wanted is None.

    representation     (n, d) float32, unit length: position-weighted mean of the last hidden states (RDS+)
    response_logprobs  n arrays, natural log-probability of each assistant token that the loss would see
    choice_logits      (n, c) float32, logits of the next token after the row for each of the c choice ids
    prompt_representation  (n, d) float32, `representation` over the tokens before the first reply alone
    tokens             (n,) int64, tokens of each row after truncation
    truncated          (n,) bool, whether the row was cut to the model's maximum length
    """

    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    representation: Vectors | None = None
    response_logprobs: Sequence[NDArray[np.float32]] | None = None
    choice_logits: Vectors | None = None
    prompt_representation: Vectors | None = None


class LanguageModel(Protocol):
    """A local model, an endpoint, or canned replies in a test."""

    @property
    def fingerprint(self) -> str:
        """Identifies weights, tokenizer and template by content; part of every cache key."""

    def complete(self, prompts: Sequence[Prompt]) -> Sequence[Completion]: ...

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        """One forward pass for all that is wanted. `choices` are the token ids of CHOICE_LOGITS."""


@runtime_checkable
class Submits(Protocol):
    """A language model that takes prompts one by one and answers each when it is ready: an endpoint."""

    def submit(self, prompt: Prompt) -> "Future[Completion]": ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a reply is right, what was taken for its answer, and a reason from the verifier's closed list if not."""

    right: bool
    answer: str = ""
    reason: str = ""
    detail: str = ""


class Verifier(Protocol):
    """Tells right replies from wrong ones without a model."""

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes a verdict: name, version, parameters."""

    def verify(self, asked: Sequence[tuple[str, Example]]) -> Sequence[Verdict]:
        """A verdict on each reply to an item; a reply that cannot be judged in time is not right, with a reason."""


class Encoder(Protocol):
    """Embeds texts: returns (n, d) float32 of unit length."""

    @property
    def fingerprint(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Vectors: ...

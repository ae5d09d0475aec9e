"""A model and an encoder that play back: whole suites run without weights, and the same way every time."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.chat import before_reply
from models.protocol import Completion, Measures, Prompt, Usage, Want
from warehouse.errors import InputError
from warehouse.records import Messages, canonical, digest

Replies = Mapping[str, str] | Callable[[Prompt], str] | Sequence[str]
DIMENSION = 16


@dataclass(slots=True)
class CannedModel:
    """Implements `LanguageModel` with prepared replies, and measures that are a hash of the row.

    `replies` is a mapping from the content of the prompt's last turn, a function of the prompt, or a sequence that is
    handed out in the order of the prompts. `prompts` keeps what was asked. Tokens are words. Raises `InputError` for a
    prompt that no reply was prepared for.
    """

    replies: Replies
    prompts: list[Prompt] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        if callable(self.replies):
            return digest(f"canned {self.replies.__module__}.{self.replies.__qualname__}")
        known = dict(self.replies) if isinstance(self.replies, Mapping) else list(self.replies)
        return digest(canonical({"canned": known}))

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        return [self._complete(prompt) for prompt in prompts]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        return Measures(
            tokens=np.array([sum(_words(m.content) for m in row) for row in rows], np.int64),
            truncated=np.zeros(len(rows), np.bool_),
            representation=_unit_vectors([_text(row) for row in rows]) if Want.REPRESENTATION in wants else None,
            response_logprobs=[_logprobs(row) for row in rows] if Want.RESPONSE_LOGPROBS in wants else None,
            choice_logits=_choice_logits(rows, choices) if Want.CHOICE_LOGITS in wants else None,
            prompt_representation=_unit_vectors([_text(before_reply(row)) for row in rows])
            if Want.PROMPT_REPRESENTATION in wants
            else None,
        )

    def _complete(self, prompt: Prompt) -> Completion:
        text = self._reply(prompt)
        self.prompts.append(prompt)
        cut = min((at for stop in prompt.stop if (at := text.find(stop)) >= 0), default=len(text))
        words = text[:cut].split(" ")
        reason = "length" if len(words) > prompt.max_tokens else "stop"
        kept = " ".join(words[: prompt.max_tokens])
        usage = Usage(sum(_words(m.content) for m in prompt.messages), _words(kept))
        return Completion(kept, reason, usage, tuple((-_uniforms(kept, usage.completion_tokens)).tolist()))

    def _reply(self, prompt: Prompt) -> str:
        if callable(self.replies):
            return self.replies(prompt)
        if isinstance(self.replies, Mapping):
            asked = prompt.messages[-1].content
            if asked not in self.replies:
                raise InputError(f"no canned reply for {asked!r}; prepared: {', '.join(map(repr, self.replies))}")
            return self.replies[asked]
        if len(self.prompts) >= len(self.replies):
            raise InputError(f"the {len(self.replies)} canned replies are used up")
        return self.replies[len(self.prompts)]


@dataclass(frozen=True, slots=True)
class CannedEncoder:
    """Implements `Encoder`: a vector of unit length, (16,) float32, from a hash of the text."""

    @property
    def fingerprint(self) -> str:
        return digest("canned encoder")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return _unit_vectors(texts)


def _text(row: Messages) -> str:
    return canonical([[m.role, m.content] for m in row])


def _words(text: str) -> int:
    return len(text.split())


def _uniforms(text: str, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) that are a function of `text`."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return np.random.default_rng(seed).random(count)


def _unit_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    vectors = np.array([_uniforms(text, DIMENSION) - 0.5 for text in texts], np.float32).reshape(-1, DIMENSION)
    norms: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms)


def _logprobs(row: Messages) -> NDArray[np.float32]:
    """One per word of each reply and one for each reply's end token, in [-1, 0]."""
    count = sum(_words(m.content) + 1 for m in row if m.role == "assistant")
    return -_uniforms(_text(row), count).astype(np.float32)


def _choice_logits(rows: Sequence[Messages], choices: Sequence[int]) -> NDArray[np.float32]:
    logits = [[_uniforms(f"{choice} {_text(row)}", 1)[0] for choice in choices] for row in rows]
    return np.array(logits, np.float32).reshape(len(rows), len(choices))

"""The models that a dialogue talks to: local ones on the workers, each batch spread over them, or endpoints."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from flows.entries import make
from flows.recipes import Named
from flows.workers import Workers
from models.endpoint.spec import EndpointSpec
from models.fingerprint import fetch
from models.fingerprint import fingerprint as of_model
from models.protocol import Completion, Encoder, LanguageModel, Measures, Prompt, Usage, Vectors, Want
from models.tokens import load_tokenizer
from warehouse.errors import InputError
from warehouse.records import Messages, canonical, digest

T = TypeVar("T")
CHUNK = 64  # prompts or rows of one call to a worker
LOADED = 2  # models a worker keeps


@dataclass(frozen=True, slots=True)
class Local:
    """A language model of this machine by path or hub name, and how it is asked; `adapter` is merged into it."""

    name: str
    template: str = "own"
    max_length: int = 2048
    dtype: str = "float32"
    revision: str = "main"
    trust_remote_code: bool = False
    adapter: str | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with whatever changes a reply: weights, format, length, precision."""
        model = of_model(self.name, self.template, self._adapter, self.revision)
        return digest(canonical({"model": model, "max_length": self.max_length, "dtype": self.dtype}))

    def check(self) -> None:
        """Raises `InputError` for a model that is not there or has no such format."""
        load_tokenizer(fetch(self.name, self.revision, self.trust_remote_code), self.template)

    def load(self) -> LanguageModel:
        from models.local import LocalModel

        return LocalModel.load(
            self.name,
            template=self.template,
            max_length=self.max_length,
            dtype=self.dtype,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            adapter=self._adapter,
        )

    def loaded(self) -> LanguageModel:
        """The model in this process: loaded once for all that ask it, and known by the fingerprint of this voice."""
        model: LanguageModel = Known(_loaded(self), self.fingerprint)
        return model

    @property
    def _adapter(self) -> Path | None:
        return Path(self.adapter) if self.adapter else None


@dataclass(frozen=True, slots=True)
class Known:
    """A language model under the fingerprint of how it is asked: length and precision are a part of it."""

    model: LanguageModel
    fingerprint: str

    def complete(self, prompts: Sequence[Prompt]) -> Sequence[Completion]:
        return self.model.complete(prompts)

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        return self.model.measure(rows, wants, choices)


@dataclass(frozen=True, slots=True)
class Here:
    """A language model that is loaded in this process already, under a name."""

    name: str
    model: LanguageModel

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def check(self) -> None:
        """It is there."""


Voice: TypeAlias = Local | Here | EndpointSpec


def name_of(voice: Voice) -> str:
    """What a person calls the model."""
    return voice.model if isinstance(voice, EndpointSpec) else voice.name


def voice_of(entry: Named, endpoints: Mapping[str, EndpointSpec]) -> Voice:
    """The model that a recipe names: one of its endpoints, else one of this machine. Raises `InputError` for a setting
    that such a model does not have."""
    if entry.name not in endpoints:
        return make("model", {entry.name: Local}, entry.name, {"name": entry.name} | entry.params)
    if entry.params:
        raise InputError(
            f"endpoint {entry.name!r} has its settings under `endpoints`; unknown here: {', '.join(entry.params)}"
        )
    return endpoints[entry.name]


@dataclass(frozen=True, slots=True)
class Absent:
    """A language model that answers nothing, in the place of one that shall not be asked now."""

    fingerprint: str

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        return [Completion("", "error", Usage(0, 0), failure="unreachable", detail="not asked") for _ in prompts]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        raise NotAsked("a dialogue that scores text cannot be looked through without its model")


class NotAsked(Exception):
    """A model was to measure that shall not be asked now."""


@dataclass(frozen=True, slots=True)
class Space:
    """A sentence encoder of this machine by path or hub name."""

    name: str

    @property
    def fingerprint(self) -> str:
        return self.load().fingerprint

    def check(self) -> None:
        """Raises `InputError` for an encoder that is not there."""
        self.load()

    def load(self) -> Encoder:
        from models.encoder import SentenceEncoder

        return SentenceEncoder(self.name)


@dataclass(frozen=True, slots=True)
class OnWorkers:
    """A `Local` model that the workers load and ask. Implements `LanguageModel`; batches do not change an answer."""

    local: Local
    workers: Workers

    @property
    def fingerprint(self) -> str:
        return self.local.fingerprint

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        return [reply for part in self._spread(_complete, prompts) for reply in part]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        return _joined(self._spread(_measure, rows, wants, tuple(choices)))

    def _spread(self, ask: Callable[..., T], items: Sequence[Any], *given: Any) -> list[T]:
        parts = [items[at : at + CHUNK] for at in range(0, len(items), CHUNK)] or [items]
        with ThreadPoolExecutor(self.workers.width) as threads:
            return list(threads.map(lambda part: self.workers.call(ask, self.local, part, *given), parts))


@dataclass(frozen=True, slots=True)
class SpaceOnWorkers:
    """A `Space` that a worker loads and asks. Implements `Encoder`."""

    space: Space
    workers: Workers

    @property
    def fingerprint(self) -> str:
        return self.space.fingerprint

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self.workers.call(_embed, self.space, list(texts))


def _complete(local: Local, prompts: Sequence[Prompt]) -> Sequence[Completion]:
    replies: Sequence[Completion] = _loaded(local).complete(prompts)
    return replies


def _measure(local: Local, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int]) -> Measures:
    measures: Measures = _loaded(local).measure(rows, wants, choices)
    return measures


def _embed(space: Space, texts: Sequence[str]) -> Vectors:
    vectors: Vectors = _loaded(space).embed(texts)
    return vectors


_models: dict[Any, Any] = {}


def _loaded(voice: Local | Space) -> Any:
    """The model of `voice` in this process: a worker loads it once, not once a batch."""
    if voice not in _models:
        while len(_models) >= LOADED:
            _models.pop(next(iter(_models)))
        _models[voice] = voice.load()
    return _models[voice]


def _joined(parts: Sequence[Measures]) -> Measures:
    first = parts[0]

    def stacked(name: str) -> Vectors | None:
        return None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])

    logprobs = None
    if first.response_logprobs is not None:
        logprobs = [each for part in parts for each in part.response_logprobs or ()]
    return replace(
        first,
        tokens=np.concatenate([part.tokens for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
        representation=stacked("representation"),
        response_logprobs=logprobs,
        choice_logits=stacked("choice_logits"),
        prompt_representation=stacked("prompt_representation"),
    )

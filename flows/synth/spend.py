"""What a synthesis asks models through: kept replies, one budget for all endpoints of a run, and the bill."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from flows.recipes import Spend
from flows.synth.bill import Bill, bill_of, write_bill
from flows.voices import Absent, Local, OnWorkers, Space, Voice, name_of
from flows.workers import Workers
from models.endpoint.budget import Budget
from models.endpoint.client import EndpointModel
from models.endpoint.progress import Progress
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.endpoint.stored import Stored
from models.protocol import LanguageModel
from warehouse.errors import InputError

STORE = "responses.sqlite"
Caching: TypeAlias = Literal["use", "only"]


def check_voices(voices: Iterable[Voice | Space], spend: Spend) -> None:
    """Raise `InputError` for a model or an encoder that is not there or may not be asked."""
    for voice in voices:
        if isinstance(voice, EndpointSpec):
            _check_endpoint(voice, spend)
        else:
            voice.check()


def _check_endpoint(spec: EndpointSpec, spend: Spend) -> None:
    """Raise `InputError` where the key is not in the environment, or dollars are limited but prices are not known."""
    if spec.api_key_env and not os.environ.get(spec.api_key_env):
        raise InputError(
            f"endpoint {spec.name!r} takes its key from the environment variable {spec.api_key_env}, which is not set"
        )
    if spend.usd is not None and spec.prices is None:
        raise InputError(
            f"`spend.usd` is {spend.usd} but endpoint {spec.name!r} has no prices: give "
            f"`endpoints.{spec.name}.prices`, `{{input: USD, output: USD}}` per million tokens, or limit "
            "`spend.tokens` or `spend.requests` instead"
        )


@dataclass(frozen=True, slots=True)
class Purse:
    """What all syntheses of a run may spend together."""

    budget: Budget

    @classmethod
    def of(cls, spend: Spend) -> "Purse":
        return cls(Budget(spend.usd, spend.tokens, spend.requests, spend.seconds))

    @contextmanager
    def open(self, home: Path, workers: Workers, caching: Caching = "use") -> Iterator["Till"]:
        """Models whose replies are kept in `home`; closed in order, with all that was answered on disk."""
        with ExitStack() as stack:
            yield Till(home / STORE, self.budget, workers, caching, stack)


@dataclass(slots=True)
class Till:
    """The models of one synthesis, each made once, by the fingerprint of what speaks."""

    path: Path
    budget: Budget
    workers: Workers
    caching: Caching
    stack: ExitStack
    models: dict[str, LanguageModel] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _store: ResponseStore | None = None

    @property
    def store(self) -> ResponseStore:
        if self._store is None:
            self._store = self.stack.enter_context(ResponseStore(self.path))
        return self._store

    def model(self, voice: Voice) -> LanguageModel:
        identity = voice.fingerprint
        if identity not in self.models:
            self.models[identity] = self._made(voice)
            self.names[identity] = name_of(voice)
        return self.models[identity]

    def _made(self, voice: Voice) -> LanguageModel:
        if isinstance(voice, EndpointSpec):
            return self.stack.enter_context(EndpointModel(voice, self.store, self.budget, caching=self.caching))
        if self.caching == "only":
            return Stored(Absent(voice.fingerprint), self.store)
        return Stored(OnWorkers(voice, self.workers) if isinstance(voice, Local) else voice.model, self.store)

    def progress(self) -> list[Progress]:
        return [model.progress() for model in self.models.values() if isinstance(model, EndpointModel)]

    def note(self, part: float) -> str:
        """Requests, tokens and dollars so far; with `part` of the work done, what they will come to."""
        told = self.progress()
        if not told:
            return ""
        sent, cached = sum(each.requests for each in told), sum(each.cached for each in told)
        tokens = sum(each.prompt_tokens + each.completion_tokens for each in told)
        cost = sum((each.cost for each in told if each.cost is not None), Decimal(0))
        text = f"; {sent:,} requests, {cached:,} kept replies, {tokens:,} tokens"
        if cost:
            text += f", {cost:.4f} USD" + (f" of about {cost / Decimal(part):.4f}" if part else "")
        return text

    def cost(self, keys: set[str]) -> tuple[float, float, float, float]:
        """Tries, prompt tokens, completion tokens and USD of the requests `keys`."""
        bill = bill_of(self.store, keys)
        return bill.requests, bill.prompt_tokens, bill.completion_tokens, float(bill.cost_usd or 0)

    def write(self, folder: Path, generation: str, heard: set[str]) -> dict[str, Any]:
        """The replies that were heard and every try to get them, as tables in `folder`; their sums."""
        if not self.models:
            return Bill().facts()
        probed = [key for model in self.models.values() if isinstance(model, EndpointModel) for key in model.probed()]
        return write_bill(folder, generation, self.store, heard.union(probed), self.names).facts()

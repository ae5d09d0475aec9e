"""The response store around a model on this machine: an interrupted job asks it nothing twice."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from models.endpoint import ledger
from models.endpoint.answers import as_json, from_json
from models.endpoint.prices import Tokens
from models.endpoint.store import ResponseStore
from models.endpoint.wire import VERSION, key_of, spelled
from models.protocol import UNANSWERED, Completion, LanguageModel, Measures, Prompt, Want
from warehouse.records import Messages

PARSER = "local"


@dataclass(frozen=True, slots=True)
class Stored:
    """Implements `LanguageModel`: `model`, whose completions are kept under its fingerprint and the prompt.

    Only prompts without an answer are given to the model, at most `chunk` at once: what an interrupted job loses.
    """

    model: LanguageModel
    store: ResponseStore
    chunk: int = 256
    _owner: str = field(default_factory=ledger.new_owner, init=False)

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; at least one prompt must be asked at once")

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        identity = self.model.fingerprint  # reads the model's files: once, not once a prompt
        requests = [_request(identity, prompt) for prompt in prompts]
        asked = dict(zip(requests, prompts, strict=True))
        found = {request: kept for request in asked if (kept := self._kept(request)) is not None}
        missing = [request for request in asked if request not in found]
        for start in range(0, len(missing), self.chunk):
            chunk = missing[start : start + self.chunk]
            found |= self._asked(chunk, [asked[request] for request in chunk])
        return [found[request] for request in requests]

    def measure(self, rows: Sequence[Messages], wants: frozenset[Want], choices: Sequence[int] = ()) -> Measures:
        return self.model.measure(rows, wants, choices)

    def _kept(self, request: str) -> Completion | None:
        key = key_of(request)
        kept = self.store.find(key, PARSER, VERSION)
        return None if kept is None else from_json(kept.body.decode(), key)

    def _asked(self, requests: Sequence[str], prompts: Sequence[Prompt]) -> dict[str, Completion]:
        """What the model answers; kept before it is handed on, unless it is no answer."""
        started, began = time.time(), time.monotonic()
        completions = self.model.complete(prompts)
        each = (time.monotonic() - began) / len(prompts)
        fresh = [replace(one, key=key_of(request)) for request, one in zip(requests, completions, strict=True)]
        pairs = list(zip(requests, fresh, strict=True))
        answered = [(request, one) for request, one in pairs if one.failure not in UNANSWERED]
        tries = [
            ledger.Try(one.key, request, 1, self._owner, started, each, 200, {}, as_json(one).encode())
            for request, one in answered
        ]
        self.store.write(lambda connection: _keep(connection, tries, [one for _, one in answered])).result()
        return dict(pairs)


def _request(identity: str, prompt: Prompt) -> str:
    """The canonical request: all of the prompt, and what identifies the model."""
    return spelled({"schema_version": VERSION, "local": identity, "prompt": asdict(prompt)})


def _keep(connection: sqlite3.Connection, tries: Sequence[ledger.Try], completions: Sequence[Completion]) -> None:
    for tried, completion in zip(tries, completions, strict=True):
        tokens = Tokens(completion.usage.prompt_tokens, completion.usage.completion_tokens)
        attempt = ledger.receive(connection, tried)
        ledger.settle(connection, attempt, ledger.Judged("ok", completion.detail, tokens=tokens))
        ledger.answer(connection, tried.key, attempt)

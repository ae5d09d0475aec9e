"""What can go wrong with an answer: each fault by name, as a change of the answer that the server gave."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any, Literal, TypeAlias

Json: TypeAlias = dict[str, Any]

PAUSE = 0.02  # seconds between the pieces of a slow answer
SLOW = 0.3  # seconds before the first byte of a slow answer
CONTENT = re.compile(rb'("content":\s*")')


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes over the wire.

    `declared` is the Content-Length that is claimed, -1 for a body in chunks without an end. `wait` seconds go by
    before the first byte and `PAUSE` after every `piece` bytes (0: all at once). `copies` says how often it is sent.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    declared: int | None = None
    wait: float = 0.0
    piece: int = 0
    copies: int = 1
    ending: Literal["open", "closed", "reset"] = "open"

    @property
    def usage(self) -> tuple[int, int] | None:
        """Tokens of prompt and completion, where this answer says them to whoever reads it."""
        if self.declared is not None or not self.copies:
            return None
        try:
            said = json.loads(self.body.decode("utf-8", "replace"))["usage"]
        except (ValueError, KeyError, TypeError):
            return None
        counts = (said["prompt_tokens"], said["completion_tokens"]) if isinstance(said, dict) else ()
        return counts if all(type(count) is int for count in counts) and counts else None


@dataclass(frozen=True, slots=True)
class Fault:
    """Changes the server's answer, or stands in for it where the server is not asked."""

    bend: Callable[[Answer], Answer]
    forwards: bool = True


def _error(status: int, message: str, code: str = "", headers: Callable[[], Mapping[str, str]] | None = None) -> Fault:
    """An error in OpenAI's form, in place of the server's answer."""
    body = json.dumps({"error": {"message": message, "type": code or "server_error", "code": code or None}}).encode()
    return Fault(lambda _: Answer(body, status, tuple(headers().items()) if headers else ()), forwards=False)


def _throttled(headers: Callable[[], Mapping[str, str]]) -> Fault:
    return _error(429, "Rate limit reached", "rate_limit_exceeded", headers)


def _bent(change: Callable[[Json], object]) -> Fault:
    """The server's reply, changed in place."""

    def bend(answer: Answer) -> Answer:
        reply = json.loads(answer.body)
        change(reply)
        return replace(answer, body=json.dumps(reply).encode())

    return Fault(bend)


def _content(content: object) -> Fault:
    """A reply that has ended by itself with this content."""

    def change(reply: Json) -> None:
        reply["choices"][0]["message"].update(content=content)
        reply["choices"][0].update(finish_reason="stop")

    return _bent(change)


def _finished(reason: str) -> Fault:
    return _bent(lambda reply: reply["choices"][0].update(finish_reason=reason))


def _filtered(reply: Json) -> None:
    reply["choices"][0].update(finish_reason="content_filter")
    reply["choices"][0]["message"].update(content=None)


def _wire(**changes: Any) -> Fault:
    return Fault(lambda answer: replace(answer, **changes))


def _cut(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2], declared=len(answer.body), ending="closed")


def _mistyped(reply: Json) -> None:
    reply["choices"] = {"0": reply["choices"][0]}
    reply["usage"] = [7, "tokens"]


FAULTS: Mapping[str, Fault] = {
    "throttled_seconds": _throttled(lambda: {"Retry-After": "7"}),
    "throttled_date": _throttled(lambda: {"Retry-After": formatdate(time.time() + 9, usegmt=True)}),
    "throttled_ms": _throttled(lambda: {"Retry-After-Ms": "150"}),
    "throttled_reset": _throttled(lambda: {"X-RateLimit-Reset-Requests": "1m2.5s"}),
    "throttled": _throttled(dict),
    "no_quota": _error(429, "You exceeded your current quota", "insufficient_quota"),
    "error_500": _error(500, "The server had an error"),
    "error_503": _error(503, "Overloaded"),
    "error_529": _error(529, "Overloaded", "overloaded_error"),
    "unauthorized": _error(401, "Incorrect API key provided", "invalid_api_key"),
    "forbidden": _error(403, "Country not supported", "unsupported_country"),
    "no_model": _error(404, "The model `nobody` does not exist", "model_not_found"),
    "too_long": _error(400, "This model's maximum context length is 512 tokens", "context_length_exceeded"),
    "bad_request": _error(400, "'messages' must alternate", "invalid_request_error"),
    "unprocessable": _error(422, "Unexpected fields in the request: {'stop'}"),
    "reset": Fault(lambda _: Answer(copies=0, ending="reset"), forwards=False),
    "reset_late": _wire(copies=0, ending="reset"),
    "closed": Fault(lambda _: Answer(copies=0, ending="closed"), forwards=False),
    "cut": Fault(_cut),
    "slow_start": _wire(wait=SLOW),
    "slow_drip": _wire(piece=40),
    "endless": Fault(lambda _: Answer(b'{"id": "1",', declared=-1, ending="closed"), forwards=False),
    "endless_drip": Fault(lambda _: Answer(b'{"id": "1",', declared=-1, piece=4, ending="closed"), forwards=False),
    "twice": _wire(copies=2),
    "html": Fault(
        lambda _: Answer(b"<html><body>Bad gateway</body></html>", 200, (("Content-Type", "text/html"),)),
        forwards=False,
    ),
    "body_no_json": Fault(lambda answer: replace(answer, body=answer.body[:-2] + b",}")),
    "body_doubled": Fault(lambda answer: replace(answer, body=answer.body * 2)),
    "body_no_utf8": Fault(lambda answer: replace(answer, body=CONTENT.sub(b"\\1\xff\xfe", answer.body))),
    "no_choices": _bent(lambda reply: reply.update(choices=[])),
    "null_content": _content(None),
    "empty_content": _content(""),
    "json": _content('{"answer": 4}'),
    "no_json": _content('{"answer": "4'),
    "mistyped": _bent(_mistyped),
    "no_usage": _bent(lambda reply: reply.pop("usage")),
    "length": _finished("length"),
    "content_filter": _bent(_filtered),
    "other_model": _bent(lambda reply: reply.update(model="somebody-else-7b")),
    "surrogates": _content("half a \ud83d pair \udc00"),
    "nul": _content("zero\x00width"),
}

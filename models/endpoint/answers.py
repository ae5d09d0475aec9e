"""Replies as completions: what a caller is given, and the JSON in which the store keeps it."""

import json

from models.endpoint.outcomes import Outcome
from models.endpoint.prices import Tokens
from models.endpoint.wire import TYPICAL_BYTES, WireRequest
from models.protocol import Completion, Failure, Usage

PARSER = "completion"
VERSION = 1  # of how a body becomes a completion; a new number reads all bodies again and asks nobody


def completed(outcome: Outcome, tokens: Tokens, key: str) -> Completion:
    """The completion of a try that is final: "ok", "length", "filtered", or an anomaly that came twice."""
    reply, usage = outcome.reply, Usage(tokens.prompt, tokens.completion)
    if outcome.kind == "filtered":
        return failed("filtered", outcome.detail, key, usage)
    if reply is None or outcome.kind == "anomaly":
        return failed("empty", outcome.detail, key, usage)
    reason = "length" if outcome.kind == "length" else "stop"
    return Completion(reply.text, reason, usage, reply.logprobs, detail=outcome.detail, key=key)


def failed(failure: Failure, detail: str, key: str, usage: Usage | None = None) -> Completion:
    """A completion without a text to use."""
    return Completion("", "error", usage or Usage(0, 0), failure=failure, detail=detail, key=key)


def spent(request: WireRequest, outcome: Outcome) -> tuple[Tokens, tuple[str, ...]]:
    """The tokens of a try, and what is odd about its reply; where the server does not say, an estimate from lengths."""
    reply = outcome.reply
    if reply is None:
        return Tokens(), ()
    named = reply.served_model
    other = ("other_model",) if named and not named.startswith(request.model) else ()
    if reply.tokens is not None:
        return reply.tokens, (*reply.flags, *other)
    if not reply.finish_reason:  # no reply was made, as far as anybody can tell
        return Tokens(), (*reply.flags, *other)
    written = round(len(reply.text.encode("utf-8", "replace")) / TYPICAL_BYTES)
    return Tokens(request.likely_prompt_tokens, written), (*reply.flags, *other, "usage_estimated")


def as_json(completion: Completion) -> str:
    """What `from_json` reads back; the key is kept beside it."""
    return json.dumps(
        {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "usage": [completion.usage.prompt_tokens, completion.usage.completion_tokens],
            "logprobs": completion.logprobs,
            "truncated": completion.truncated,
            "failure": completion.failure,
            "detail": completion.detail,
        }
    )


def from_json(text: str, key: str) -> Completion:
    kept = json.loads(text)
    return Completion(
        kept["text"],
        kept["finish_reason"],
        Usage(*kept["usage"]),
        tuple(kept["logprobs"]),
        kept["truncated"],
        kept["failure"],
        kept["detail"],
        key,
    )

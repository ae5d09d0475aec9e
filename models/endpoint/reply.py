"""What a server sent back, read with suspicion: every body gives a reply or says what is wrong with it."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.endpoint.prices import Tokens

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # text that UTF-8 or a database cannot hold
REPLACEMENT = "\ufffd"
SHOWN = 300  # characters of a server's own words in messages


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as it was read. `tokens` is None where the server states no usable numbers.

    `fault` says why there is no text to use; `flags` what was odd about the body but did no harm. `logprobs` are
    natural logarithms, one per token. A `foreign` body does not even begin like a JSON object: a page of a proxy or
    of a login, and no model was paid for it.
    """

    text: str = ""
    finish_reason: str = ""
    tokens: Tokens | None = None
    logprobs: tuple[float, ...] = ()
    served_model: str = ""
    fault: str = ""
    refusal: str = ""
    flags: tuple[str, ...] = ()
    foreign: bool = False


def read_reply(body: bytes) -> Reply:
    """The first choice of a chat completion. Never raises: what cannot be read is a `fault`."""
    value, flags = loaded(body)
    if not isinstance(value, dict):
        return Reply(fault=f"the body is no JSON object: {shown(body)}", flags=flags, foreign=_foreign(body))
    served = value.get("model")
    tokens = _tokens(value.get("usage"))
    model = mended(served) if isinstance(served, str) else ""
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply(tokens=tokens, served_model=model, fault=f"the body holds no choice: {shown(body)}", flags=flags)
    raw = _content(message.get("content"))
    text = mended(raw)
    finish = choice.get("finish_reason")
    refusal = message.get("refusal")
    odd = [
        *flags,
        *(["replaced_characters"] if text != raw and "replaced_characters" not in flags else []),
        *([] if isinstance(finish, str) else ["no_finish_reason"]),
    ]
    return Reply(
        text,
        finish if isinstance(finish, str) else "stop",
        tokens,
        _logprobs(choice.get("logprobs")),
        model,
        "" if text.strip() else "the reply has no text",
        mended(refusal) if isinstance(refusal, str) else "",
        tuple(odd),
    )


def loaded(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """The JSON value of `body` (None for what is none) and what was odd about it; the last of equal keys wins."""
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.append("duplicate_keys")
        return found

    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None, ()
    wrong = ["replaced_characters"] if REPLACEMENT in text and REPLACEMENT.encode() not in body else []
    return value, (*twice[:1], *wrong)


def _foreign(body: bytes) -> bool:
    return not body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def mended(text: str) -> str:
    """`text` with lone surrogates and NUL replaced: no file or database takes them."""
    return UNSTORABLE.sub(REPLACEMENT, text)


def shown(body: bytes) -> str:
    """The beginning of a body on one line."""
    text = " ".join(mended(body[: 4 * SHOWN].decode("utf-8", "replace")).split())
    return text[:SHOWN] or "(nothing)"


def _content(content: object) -> str:
    """The text of a message: a string, or a list of parts that have texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _tokens(usage: object) -> Tokens | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _part(usage.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _part(usage.get("completion_tokens_details"), "reasoning_tokens")
    return Tokens(prompt, completion, min(cached, prompt), min(reasoning, completion))


def _part(details: object, name: str) -> int:
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _logprobs(stated: object) -> tuple[float, ...]:
    """One number per token, or none at all: a list with a gap is aligned to nothing."""
    content = stated.get("content") if isinstance(stated, dict) else None
    if not isinstance(content, Sequence) or isinstance(content, str):
        return ()
    found = [entry.get("logprob") for entry in content if isinstance(entry, dict)]
    numbers = [float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool)]
    return tuple(numbers) if len(numbers) == len(content) and all(map(math.isfinite, numbers)) else ()

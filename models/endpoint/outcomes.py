"""What became of one try: a closed list of classes, told from what came back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from models.endpoint.reply import SHOWN, Reply, loaded, mended, read_reply, shown
from models.endpoint.retries import stated_wait
from warehouse.errors import InputError

Kind: TypeAlias = Literal[
    "ok", "length", "filtered", "anomaly", "foreign", "transient", "throttle", "fatal", "too_long", "bad_request"
]
FINAL: frozenset[Kind] = frozenset({"ok", "length", "filtered"})
TRANSIENT = frozenset({408, 409, 425, *range(500, 600)})
ROW_FAULTS = frozenset({400, 413, 422})
TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|prompt|input|sequence)"
    r"|(prompt|input|request)\b.{0,40}\btoo (long|large)|too many (input |prompt )?tokens"
    r"|max_model_len|exceeds?\b.{0,40}\bcontext",
    re.IGNORECASE,
)
NO_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing_hard_limit", re.IGNORECASE)
FILTERED = re.compile(r"content_filter|content_policy_violation|ResponsibleAIPolicyViolation", re.IGNORECASE)
CHECK = {
    401: "check the key in the variable that api_key_env names",
    402: "the account has no credit; add some, then run again",
    403: "the key may not use this model; check its rights",
    404: "check `model` and `base_url` (it usually ends in /v1)",
    429: "the quota of the account is used up; raise it, then run again",
}


class EndpointDown(InputError):
    """An endpoint that will answer nobody before a person changes something. What was answered before is kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The class of one try; `detail` is what the server said, `wait` the seconds it asks for, `reply` what was read."""

    kind: Kind
    detail: str = ""
    wait: float | None = None
    reply: Reply | None = None


def classify(status: int | None, headers: Mapping[str, str], body: bytes, error: str = "", now: float = 0.0) -> Outcome:
    """The one class of a try. Never raises.

    `status` is None where no whole reply came: `error` then says why. Names of `headers` are in lower case; `now` is
    the wall clock in seconds, against which a date in Retry-After is read.
    """
    if status is None:
        return Outcome("transient", error or "no reply came")
    if 200 <= status < 300:
        return _answered(headers, body, now)
    said, code = server_says(body)
    said = said or f"HTTP {status}"
    detail = f"HTTP {status}: {said}" if not said.startswith("HTTP ") else said
    wait = stated_wait(headers, now)
    if FILTERED.search(code) and status in ROW_FAULTS | {403}:
        return Outcome("filtered", detail)
    if status == 429:
        quota = NO_QUOTA.search(f"{code} {said}")
        return Outcome("fatal" if quota else "throttle", _checked(429, detail) if quota else detail, wait)
    if status in TRANSIENT:
        return Outcome("transient", detail, wait)
    if status in ROW_FAULTS:
        long = status == 413 or "context_length" in code or TOO_LONG.search(said)
        return Outcome("too_long" if long else "bad_request", detail)
    if 300 <= status < 400:
        return Outcome("fatal", f"{detail}: it redirects to {headers.get('location', 'nowhere')}; give that address")
    return Outcome("fatal", _checked(status, detail))


def server_says(body: bytes) -> tuple[str, str]:
    """The message and the codes of an error body, in any of the usual forms; the bare text where it is none of them."""
    value, _ = loaded(body)
    if not isinstance(value, dict):
        return (shown(body) if body.strip() else ""), ""
    error = value.get("error", value)
    if isinstance(error, str):
        return mended(error)[:SHOWN], ""
    if not isinstance(error, dict):
        return shown(body), ""
    message = error.get("message", error.get("detail"))
    text = message if isinstance(message, str) else shown(body)
    inner = error.get("innererror")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    return " ".join(mended(text).split())[:SHOWN], " ".join(str(code) for code in codes if code is not None)


def _answered(headers: Mapping[str, str], body: bytes, now: float) -> Outcome:
    reply = read_reply(body)
    if reply.fault and (inner := _error_inside(body)):
        return classify(inner, headers, body, "", now)
    if reply.finish_reason == "content_filter" or (reply.refusal and reply.fault):
        return Outcome("filtered", reply.refusal[:SHOWN] or "the server's content filter", None, reply)
    if reply.finish_reason == "length":
        return Outcome("length", reply.fault, None, reply)
    if reply.foreign:
        return Outcome("foreign", reply.fault, None, reply)
    return Outcome("anomaly", reply.fault, None, reply) if reply.fault else Outcome("ok", "", None, reply)


def _error_inside(body: bytes) -> int | None:
    """The status that a body states although it came with 200: gateways pass on the errors of others so."""
    value: Any = loaded(body)[0]
    error = value.get("error") if isinstance(value, dict) and not value.get("choices") else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else None


def _checked(status: int, detail: str) -> str:
    return f"{detail}; {CHECK.get(status, 'check `base_url` and what the server expects')}"

"""What is sent: a prompt as the body of a request, and the key under which its answer is kept."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from models.endpoint.spec import EndpointSpec
from models.protocol import Prompt

Mode: TypeAlias = Literal["", "json_schema", "json_object", "prompt"]
VERSION = 1  # of the canonical request; a change of its spelling makes new keys
SEEDS = 2**31
TURN_TOKENS = 16  # what a chat template may add around a turn, at most
TYPICAL_BYTES = 3.5  # bytes of text per token, for estimates that need not be safe


@dataclass(frozen=True)
class WireRequest:
    """One request to one model: `body` is the JSON that is sent; all of it, and all else here, makes the key.

    `seed` and `draw` are the prompt's: two draws stay two requests where a server is sent no seed. `max_tokens` is in
    the body too.
    """

    at: str
    model: str
    revision: str
    mode: Mode
    seed: int
    draw: int
    max_tokens: int
    body: dict[str, Any]

    @cached_property
    def canonical(self) -> str:
        """The whole request as JSON in one spelling: sorted names, ASCII (a lone surrogate stays an escape)."""
        whole = {
            "schema_version": VERSION,
            "kind": "chat",
            "at": self.at,
            "model": self.model,
            "revision": self.revision,
            "mode": self.mode,
            "seed": self.seed,
            "draw": self.draw,
            "body": self.body,
        }
        return spelled(whole)

    @cached_property
    def key(self) -> str:
        return key_of(self.canonical)

    @property
    def payload(self) -> bytes:
        return json.dumps(self.body, separators=(",", ":")).encode()

    @cached_property
    def text_bytes(self) -> int:
        """Bytes of all messages and of the schema, as UTF-8."""
        texts = [str(message["content"]) for message in self.body["messages"]]
        schema = self.body.get("response_format")
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + (len(str(schema)) if schema else 0)

    @property
    def most_prompt_tokens(self) -> int:
        """No tokenizer makes more: a token is at least a byte, and templates add little around a turn."""
        return self.text_bytes + TURN_TOKENS * (len(self.body["messages"]) + 1)

    @property
    def likely_prompt_tokens(self) -> int:
        return 1 + round(self.text_bytes / TYPICAL_BYTES) + 4 * len(self.body["messages"])


def spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(canonical: str) -> str:
    """SHA-256 of a canonical request, 64 hexadecimal digits."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def wire_request(spec: EndpointSpec, prompt: Prompt, mode: Mode = "", logprobs: bool = False) -> WireRequest:
    """The request for `prompt`. `mode` says how its schema is sent; "" and "prompt" send none.

    Fields that say what a server does anyway (top_p 1, no stop) are left out, because some servers refuse fields they
    do not know.
    """
    body: dict[str, Any] = {
        "model": spec.model,
        "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "temperature": float(prompt.temperature),
        spec.token_limit_field: prompt.max_tokens,
        "seed": wire_seed(prompt.seed, prompt.draw),
    }
    optional: dict[str, Any] = {
        "top_p": float(prompt.top_p) if prompt.top_p != 1 else None,
        "stop": list(prompt.stop) or None,
        "presence_penalty": float(prompt.presence_penalty) or None,
        "logprobs": logprobs or None,
        "response_format": response_format(prompt.schema, mode) if prompt.schema else None,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    body |= spec.extra_body
    sent = {name: value for name, value in body.items() if value is not None}
    return WireRequest(spec.at, spec.model, spec.revision, mode, prompt.seed, prompt.draw, prompt.max_tokens, sent)


def wire_seed(seed: int, draw: int) -> int:
    """The seed of the `draw`-th draw, in [0, 2³¹): the prompt's own for the first, a hash of both for the others."""
    if draw == 0 and 0 <= seed < SEEDS:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {draw}".encode()).digest()[:8], "big") % SEEDS


def response_format(schema: str, mode: Mode) -> dict[str, Any] | None:
    """What a server is told about `schema` (JSON)."""
    if mode == "json_schema":
        wanted = json.loads(schema)
        return {
            "type": "json_schema",
            "json_schema": {"name": "reply", "schema": wanted, "strict": all(map(_closed, _objects(wanted)))},
        }
    return {"type": "json_object"} if mode == "json_object" else None


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All object types inside a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) or schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from _objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _objects(part)


def _closed(schema: dict[str, Any]) -> bool:
    """Whether an object type meets what servers demand of strict schemas: all keys required, no others."""
    named = set(schema.get("properties", {}))
    return schema.get("additionalProperties") is False and set(schema.get("required", ())) == named

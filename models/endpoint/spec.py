"""What a user says about an endpoint: where it is, what it is called, how fast it may be asked, what it costs."""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.endpoint.prices import Prices
from warehouse.errors import InputError
from warehouse.records import canonical, digest

Length: TypeAlias = Literal["accept", "grow", "drop"]
Structure: TypeAlias = Literal["auto", "json_schema", "json_object", "prompt"]
PORTS = {"http": 80, "https": 443}
OURS = ("model", "messages", "stream", "n", "max_tokens", "max_completion_tokens")  # set by the client alone


class EndpointSpec(BaseModel):
    """One OpenAI-compatible server and one model of it. All times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="what messages call it")
    base_url: str = Field(description="the address before /chat/completions, usually ending in /v1")
    model: str = Field(min_length=1, description="the model's name on the server")
    revision: str = Field("", description="which version of the model it is, where the name does not say; part of keys")
    namespace: str = Field("", description="stands for base_url in keys, so that two addresses share replies")
    api_key_env: str = Field("", description="the environment variable that holds the key, never the key itself")
    max_concurrency: int = Field(16, ge=1, le=4096, description="requests at once, at most")
    min_concurrency: int = Field(1, ge=1, description="requests at once that throttling does not go below")
    requests_per_minute: int | None = Field(None, ge=1, description="requests a minute")
    tokens_per_minute: int | None = Field(None, ge=1, description="tokens a minute, prompts and replies")
    timeout: float = Field(300.0, gt=0, description="seconds for one try, until the last byte of its reply")
    prices: Prices | None = Field(None, description="USD per million tokens")
    length: Length = Field("accept", description="what to do with a reply that max_tokens cut")
    length_cap: int = Field(8192, ge=1, description="where `length: grow` stops doubling max_tokens")
    structured: Structure = Field("auto", description="how a schema is sent; auto asks the capability probe")
    logprobs: bool = Field(False, description="ask for the log-probabilities of replies")
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the limit of a reply"
    )
    extra_body: Mapping[str, Any] = Field(
        default_factory=dict, description="fields added to every request; null removes a field"
    )

    @field_validator("base_url")
    @classmethod
    def _normalised(cls, url: str) -> str:
        return normalised(url)

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("give the name of an environment variable such as OPENAI_API_KEY, not the key itself")
        return name

    @field_validator("extra_body")
    @classmethod
    def _adds_no_field_of_ours(cls, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(set(body) & set(OURS)):
            raise ValueError(
                f"{', '.join(taken)} cannot be set here; the prompt and other fields of the endpoint say them"
            )
        canonical(dict(body))  # what JSON cannot hold has no key
        return body

    @model_validator(mode="after")
    def _agrees(self) -> "EndpointSpec":
        if self.min_concurrency > self.max_concurrency:
            raise ValueError(f"min_concurrency {self.min_concurrency} is above max_concurrency {self.max_concurrency}")
        return self

    @property
    def at(self) -> str:
        """What stands for the place in keys."""
        return self.namespace or self.base_url

    @property
    def fingerprint(self) -> str:
        """Changes with whatever may change an answer: place, model, revision, how it is asked."""
        return digest(
            canonical(
                {
                    "endpoint": self.at,
                    "model": self.model,
                    "revision": self.revision,
                    "length": [self.length, self.length_cap if self.length == "grow" else None],
                    "structured": self.structured,
                    "logprobs": self.logprobs,
                    "extra_body": dict(self.extra_body),
                }
            )
        )


def normalised(url: str) -> str:
    """`url` in the one spelling used for keys: lower-case scheme and host, no default port, no slash at the end.

    Raises `ValueError` for what is no http address, and for one that holds a password or a query: it would be kept.
    """
    parts = urlsplit(url.strip())
    if parts.scheme.lower() not in PORTS or not parts.hostname:
        raise ValueError("give an address such as http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address may hold no user, password, query or fragment; name the key in api_key_env")
    scheme, host = parts.scheme.lower(), parts.hostname
    place = f"[{host}]" if ":" in host else host
    port = "" if parts.port in (None, PORTS[scheme]) else f":{parts.port}"
    path = re.sub(r"/+", "/", parts.path).rstrip("/").removesuffix("/chat/completions")
    return f"{scheme}://{place}{port}{path}"


def load_endpoints(path: Path) -> dict[str, EndpointSpec]:
    """The endpoints of a TOML file, by name: one table `[NAME]` each, prices in `[NAME.prices]`.

    Raises `InputError` for a file that cannot be read and for the first field that is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"endpoints file {path} cannot be read: {error}") from error
    return {name: _endpoint(path, name, table) for name, table in tables.items()}


def _endpoint(path: Path, name: str, table: object) -> EndpointSpec:
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} is {table!r}; give one table per endpoint, such as [{name}]")
    try:
        return EndpointSpec(**{"name": name, **_plain(table)})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (name, *first["loc"])))
        raise InputError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from error


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    """Decimals stay decimals in prices, where cents count, and become floats everywhere else."""
    return {name: value if name == "prices" else _floats(value) for name, value in table.items()}


def _floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_floats(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value

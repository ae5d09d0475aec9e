"""The connection to one server: bytes out, bytes back, with a limit on time and size."""

import os
import select
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from models.endpoint.outcomes import EndpointDown
from models.endpoint.spec import EndpointSpec

CONNECT_S = 30.0  # until a connection stands
LARGEST = 16 * 2**20  # bytes of a body that are read; no reply is as long
LEAST_SECRET = 12  # characters of a key that is one
KEPT_OF_TOO_LARGE = 2**16  # bytes of a larger body that are kept: it is no reply
HEADERS = frozenset(
    {"content-type", "date", "location", "request-id", "retry-after", "retry-after-ms", "server", "x-request-id"}
)


@dataclass(frozen=True, slots=True)
class Came:
    """What came back. `status` is None where no whole reply came: `error` says why, `unmet` that nobody was there."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    error: str = ""
    unmet: bool = False
    late: bool = False


class Connector(aiohttp.TCPConnector):
    """Drops a kept connection on which something came that nobody asked for: it would be the next row's answer."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (found := await super()._get(key, traces)) is not None:
            if found.protocol is not None and not found.protocol.should_close and not _unread(found):
                return found
            found.close()
        return None


class Transport:
    """Sends requests to one endpoint. Belongs to one event loop; makes no connection before the first request."""

    def __init__(self, spec: EndpointSpec) -> None:
        self.spec = spec
        self._session: aiohttp.ClientSession | None = None
        self._spelled: frozenset[bytes] = frozenset()
        self._proxy = _proxy(spec.base_url)

    async def post(self, payload: bytes) -> Came:
        """One try to complete a chat. Raises `EndpointDown` where the key's variable is not set."""
        return await self._send("POST", "/chat/completions", payload)

    async def get(self, path: str) -> Came:
        return await self._send("GET", path, None)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _send(self, method: str, path: str, payload: bytes | None) -> Came:
        session = self._session = self._session or self._opened()
        try:
            async with session.request(
                method, self.spec.base_url + path, data=payload, proxy=self._proxy, allow_redirects=False
            ) as response:
                body = await _body(response)
                refused = response.status >= 400
                return Came(response.status, self._without_key(_headers(response.headers)), self._masked(body, refused))
        except aiohttp.ConnectionTimeoutError:
            return Came(error=f"no connection within {min(CONNECT_S, self.spec.timeout):g} s", unmet=True)
        except TimeoutError:
            return Came(error=f"no whole reply within {self.spec.timeout:g} s", late=True)
        except aiohttp.ClientConnectorError as error:
            return Came(error=f"no connection ({error})", unmet=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Came(error=f"the connection broke ({type(error).__name__}: {error})")

    def _opened(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if name := self.spec.api_key_env:
            secret = os.environ.get(name, "").strip()
            if not secret:
                raise EndpointDown(f"endpoint {self.spec.name}: set {name}, which api_key_env names, to its key")
            headers["Authorization"] = f"Bearer {secret}"
            self._spelled = _spellings(secret)
        return aiohttp.ClientSession(
            connector=Connector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.spec.timeout, sock_connect=CONNECT_S),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _without_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self._masked(value.encode("utf-8", "replace")).decode() for name, value in headers.items()}

    def _masked(self, body: bytes, refused: bool = True) -> bytes:
        """Servers repeat a key that they refuse, plainly, with escaped slashes, in addresses; it is not kept.

        Of a reply only a key is taken out that is no word ("EMPTY"): words are what replies are made of.
        """
        for spelled in self._spelled:
            if refused or len(spelled) >= LEAST_SECRET:
                body = body.replace(spelled, b"***")
        return body


def _spellings(secret: str) -> frozenset[bytes]:
    """How a server may repeat a key."""
    spelled = (secret, secret.replace("/", "\\/"), quote(secret), quote(secret, safe=""))
    return frozenset(each.encode() for each in spelled)


def _unread(connection: Connection) -> bool:
    """Whether bytes, or the other side's end, wait in a connection's socket."""
    socket = connection.transport.get_extra_info("socket") if connection.transport else None
    if socket is None:
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, or the beginning of one that is larger than any reply."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            response.close()
            return b"".join(parts)[:KEPT_OF_TOO_LARGE]
    return b"".join(parts)


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that say who answered, when, and how fast more may be asked; names in lower case."""
    named = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in named.items() if name in HEADERS or name.startswith("x-ratelimit-")}


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for `url`."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)

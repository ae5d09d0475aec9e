"""A proxy that misbehaves on purpose, between a client and any OpenAI-compatible server.

Bytes are read and written by hand, because most of what goes wrong on a wire (a reset before the headers, a body that
is cut or never ends, an answer sent twice) is nothing that an ASGI server lets an app say. Which fault an answer has is
a function of the request's body and of how often that body came before, so tests count exactly.
"""

import asyncio
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import aiohttp
from faults import FAULTS, PAUSE, Answer, Fault, Json

Behind: TypeAlias = str | Callable[[Json], Json]
"""The server behind: its address ("http://127.0.0.1:8000"), or a function from request to reply."""

ENDLESS_SECONDS = 20.0  # an answer without end stops here, lest a client that waits for it hang a test


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: `attempt` counts the equal bodies that came before it, `number` all requests before it."""

    body: bytes
    attempt: int
    number: int
    path: str = "/v1/chat/completions"
    authorization: str = ""

    @property
    def request(self) -> Json:
        found: Json = json.loads(self.body)
        return found

    @property
    def said(self) -> str:
        """The content of the last turn."""
        return str(self.request["messages"][-1]["content"])


@dataclass(frozen=True, slots=True)
class Logged:
    """A request and its answer: `usage` is what the answer told, `spent` what the server behind said it cost."""

    asked: Asked
    fault: str
    answer: Answer
    spent: tuple[int, int] | None

    @property
    def usage(self) -> tuple[int, int] | None:
        return self.answer.usage


Plan: TypeAlias = Callable[[Asked], str]
"""Names the fault of an answer; "" for none."""


def clean(asked: Asked) -> str:
    return ""


def scripted(faults: Mapping[str, Sequence[str]]) -> Plan:
    """By a word in the last turn: the fault of the first attempt, of the second, ...; none once the list has ended."""

    def plan(asked: Asked) -> str:
        found = next((faults[word] for word in faults if word in asked.said), ())
        return found[asked.attempt] if asked.attempt < len(found) else ""

    return plan


def always(fault: str, after: int = 0) -> Plan:
    """The same fault for every request but the first `after`."""
    return lambda asked: fault if asked.number >= after else ""


def hashed(faults: Sequence[str], share: float, seed: int = 0) -> Plan:
    """A fault for about `share` of the answers, drawn from the hash of the body and the attempt.

    The model's name does not count: it is a folder that each run of the tests makes anew.
    """

    def plan(asked: Asked) -> str:
        text = json.dumps([seed, asked.attempt, asked.request | {"model": ""}], sort_keys=True)
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        return faults[draw % len(faults)] if draw / 2**64 < share else ""

    return plan


@dataclass(slots=True)
class FaultProxy:
    """Serves at `url` while entered; `log` holds every answer in the order of the requests' ends.

    `most` is the largest number of requests that were open at once.
    """

    behind: Behind
    plan: Plan = clean
    log: list[Logged] = field(default_factory=list)
    most: int = 0
    url: str = ""
    _open: int = 0
    _seen: Counter[bytes] = field(default_factory=Counter)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _session: aiohttp.ClientSession | None = None
    _errors: list[Json] = field(default_factory=list)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._loop.set_exception_handler(lambda _, context: self._errors.append(context))
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(60), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        self._loop.close()
        assert not self._errors, f"the proxy itself failed: {self._errors}"

    @property
    def busy(self) -> bool:
        return self._open > 0

    @property
    def calls(self) -> int:
        return len(self.log)

    def forget(self) -> None:
        """Start anew: no request was ever seen."""
        self.log.clear()
        self._seen.clear()
        self.most = 0

    def usage(self) -> tuple[int, int]:
        """Tokens of prompt and completion over all answers that told them."""
        told = [logged.usage for logged in self.log if logged.usage]
        return sum(prompt for prompt, _ in told), sum(completion for _, completion in told)

    async def _serve(self, ready: threading.Event) -> None:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as self._session:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            await self._stop.wait()
            server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (found := await _read(reader)) and await self._answer(*found, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled at the end of the test: asyncio's streams would report it as an error of theirs
        finally:
            writer.close()

    async def _answer(self, path: str, headers: Mapping[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        asked = Asked(body, self._seen[body], self._seen.total(), path, headers.get("authorization", ""))
        self._seen[body] += 1
        self._open += 1
        self.most = max(self.most, self._open)
        try:
            name = self.plan(asked)
            fault = FAULTS[name] if name else Fault(lambda answer: answer)
            real = await self._ask(asked) if fault.forwards else Answer()
            answer = fault.bend(real)
            self.log.append(Logged(asked, name, answer, real.usage))
            await _write(writer, answer)
        finally:
            self._open -= 1
        return answer.ending == "open"

    async def _ask(self, asked: Asked) -> Answer:
        if not isinstance(self.behind, str):
            return Answer(json.dumps(self.behind(asked.request)).encode())
        assert self._session is not None
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self.behind + asked.path, data=asked.body, headers=headers) as reply:
            return Answer(await reply.read(), reply.status)


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes] | None:
    """Path, headers by lower-case name, and body of the next request; None where the client has closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return first.split(" ")[1], headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    await asyncio.sleep(answer.wait)
    if answer.ending == "reset":
        _reset(writer)
        return
    for copy in range(answer.copies):
        await asyncio.sleep(PAUSE if copy else 0)
        writer.write(_head(answer))
        for piece in _pieces(answer):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(PAUSE if answer.piece else 0)
    if answer.declared == -1:
        await _go_on(writer, answer)


def _head(answer: Answer) -> bytes:
    length = len(answer.body) if answer.declared is None else answer.declared
    framing = ("Transfer-Encoding", "chunked") if length < 0 else ("Content-Length", str(length))
    headers = {"Content-Type": "application/json", framing[0]: framing[1], **dict(answer.headers)}
    lines = [f"HTTP/1.1 {answer.status} {'OK' if answer.status == 200 else 'Fault'}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def _pieces(answer: Answer) -> list[bytes]:
    size = answer.piece or max(len(answer.body), 1)
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    return [_chunk(piece) for piece in pieces] if answer.declared == -1 else pieces


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(piece), piece)


async def _go_on(writer: asyncio.StreamWriter, answer: Answer) -> None:
    """White space without an end: a byte at a time where the answer is slow, else as fast as it is taken."""
    until = time.monotonic() + ENDLESS_SECONDS
    while time.monotonic() < until:
        writer.write(_chunk(b" " * (1 if answer.piece else 65536)))
        await writer.drain()
        await asyncio.sleep(PAUSE if answer.piece else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the client's side sees a reset, not an end."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

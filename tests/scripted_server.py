"""A server for the client's tests: answers as a script says, and keeps what it was asked."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

from models.endpoint.spec import EndpointSpec
from models.protocol import Prompt
from warehouse.records import Message

Body: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class Says:
    """One answer: a status, a body (an object, or bytes as they are), headers, seconds to wait before it.

    `cut` closes the connection in the middle of the body, `drip` never ends it.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    cut: bool = False
    drip: bool = False


Script: TypeAlias = Callable[[Body, int], Says]


@dataclass(slots=True)
class Asked:
    """`url` of a running server, the bodies it was sent, their Authorization headers, and how many it had at once."""

    url: str
    bodies: list[Body] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0

    def texts(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def spec(self, **given: Any) -> EndpointSpec:
        return EndpointSpec(**{"name": "scripted", "base_url": self.url, "model": "m", **given})


def reply(text: Any, finish: Any = "stop", prompt: int = 7, completion: int = 3, **more: Any) -> Body:
    """A chat completion as servers send it."""
    return {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
        **more,
    }


def echo(body: Body, number: int) -> Says:
    """Every prompt answered at once with its last turn, in capitals."""
    return Says(reply(body["messages"][-1]["content"].upper()))


def ask(text: str = "hello", **given: Any) -> Prompt:
    return Prompt((Message("user", text),), **given)


@contextmanager
def serving(script: Script = echo) -> Iterator[Asked]:
    """A server on a free port, in a thread. `script` is given the body and how often that body has come before."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    asked = Asked("")

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/v1/chat/completions", lambda request: _handled(request, script, asked))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        asked.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    def run() -> None:
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _handled(request: web.Request, script: Script, asked: Asked) -> web.StreamResponse:
    text = await request.text()
    body = json.loads(text)
    number = sum(body == earlier for earlier in asked.bodies)
    asked.bodies.append(body)
    asked.keys.append(request.headers.get("Authorization", ""))
    asked.now += 1
    asked.most = max(asked.most, asked.now)
    try:
        said = script(body, number)
        await asyncio.sleep(said.after)
        data = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        headers = {"Content-Type": "application/json", "Server": "scripted/1", **said.headers}
        if not (said.cut or said.drip):
            return web.Response(body=data, status=said.status, headers=headers)
        response = web.StreamResponse(status=said.status, headers=headers)
        response.content_length = len(data) + 10 if said.cut else None
        await response.prepare(request)
        await response.write(data)
        while said.drip:
            await response.write(b" ")
            await asyncio.sleep(0.005)
        assert request.transport is not None
        request.transport.close()
        return response
    finally:
        asked.now -= 1

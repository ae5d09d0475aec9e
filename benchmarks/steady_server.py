"""A chat server that answers every request after the same time, and costs next to nothing.

python benchmarks/steady_server.py SECONDS: prints its port, serves until its standard input closes.
"""

import asyncio
import json
import statistics
import sys

REPLY = json.dumps(
    {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 1,
        "model": "steady",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A steady answer. " * 12}}
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 48, "total_tokens": 88},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(REPLY), REPLY)
LENGTH = b"content-length:"


class Steady(asyncio.Protocol):
    """One connection: keeps what has come of a request, answers each whole one `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.waiting = seconds, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (size := whole(self.waiting)) is not None:
            self.waiting = self.waiting[size:]
            self.loop.call_later(self.seconds, self.transport.write, ANSWER)


def whole(data: bytes) -> int | None:
    """Bytes of the first request in `data`, None while it has not come wholly."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = data[:end].lower()
    start = head.find(LENGTH)
    size = end + (int(head[start + len(LENGTH) : head.find(b"\r", start)]) if start >= 0 else 0)
    return size if len(data) >= size else None


async def lateness(seconds: float) -> float:
    """How much later than asked this loop's timers fire: half a millisecond and more, as epoll counts whole ones."""
    loop = asyncio.get_running_loop()
    found = []
    for _ in range(11):
        start = loop.time()
        await asyncio.sleep(seconds)
        found.append(loop.time() - start - seconds)
    return statistics.median(found)


async def serve(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    timer = seconds - await lateness(seconds)
    server = await loop.create_server(lambda: Steady(timer), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))

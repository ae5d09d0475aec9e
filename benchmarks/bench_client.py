"""The endpoint client against a server that answers in 50 ms: requests a second, processor time a request, peak memory.

The ideal is concurrency / 0.05 s; bare sockets show how much of it the server itself allows. The peer is
`openai.AsyncOpenAI(max_retries=0)` behind a semaphore, in the same process, in turns; it keeps nothing on disk.

python benchmarks/bench_client.py [--json]
"""

import asyncio
import itertools
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.frame import Row, run
from models.endpoint.client import EndpointModel
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.protocol import Completion, Prompt
from warehouse.records import Message

SECONDS = 0.05  # the server takes this long for each answer
REQUESTS = {64: 5000, 16: 1600}  # by concurrency: 4 and 5 seconds at the ideal
ROUNDS = 3
SIZES = (500, 5_000, 20_000)
TOPIC = "Write one exercise that a careful teacher would give a class of beginners, then answer it step by step. "


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: wall-clock and processor seconds, all threads of this process."""

    wall: float
    processor: float
    requests: int

    def share(self, concurrency: int) -> float:
        """Of the requests a second that `concurrency` could have at best."""
        return self.requests / self.wall / (concurrency / SECONDS)

    @property
    def overhead(self) -> float:
        """Milliseconds of processor time a request."""
        return 1000 * self.processor / self.requests


@contextmanager
def steady_server() -> Iterator[int]:
    """Its port; the server runs in a process of its own."""
    script = Path(__file__).with_name("steady_server.py")
    command = [sys.executable, str(script), str(SECONDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.communicate()


def asked(number: int) -> str:
    return f"{TOPIC * 2}Exercise {number}."


def timed(requests: int, work: Callable[[], object]) -> Cost:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - processor, requests)


def by_openai(port: int, concurrency: int, requests: int) -> None:
    """Every request at once behind a semaphore, as openai's cookbook has it."""
    from openai import AsyncOpenAI

    async def ask_all() -> None:
        limit = asyncio.Semaphore(concurrency)
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:

            async def ask(number: int) -> str | None:
                async with limit:
                    reply = await client.chat.completions.create(
                        model="steady",
                        messages=[{"role": "user", "content": asked(number)}],
                        max_tokens=64,
                        temperature=1.0,
                        seed=number,
                    )
                    return reply.choices[0].message.content

            found = await asyncio.gather(*map(ask, range(requests)))
            assert all(found)

    asyncio.run(ask_all())


def by_sockets(port: int, concurrency: int, requests: int) -> None:
    """The same bytes by bare connections: what the server and the loop allow at most."""
    body = f'{{"model": "steady", "messages": [{{"role": "user", "content": "{asked(0)}"}}]}}'.encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def ask_all() -> None:
        left = itertools.repeat(None, requests)

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in left:
                writer.write(head + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(answer.rpartition(b":")[2]))
            writer.close()

        await asyncio.gather(*(one() for _ in range(concurrency)))

    asyncio.run(ask_all())


def by_winnow(port: int, concurrency: int, requests: int, store: Path) -> None:
    """Every reply is on disk before it is handed out; no more than four times `concurrency` are asked ahead."""
    spec = EndpointSpec(
        name="steady", base_url=f"http://127.0.0.1:{port}/v1", model="steady", max_concurrency=concurrency
    )
    with ResponseStore(store) as kept, EndpointModel(spec, kept) as model:
        ahead: deque[Future[Completion]] = deque()
        for number in range(requests):
            if len(ahead) == 4 * concurrency:
                assert not ahead.popleft().result().failure
            ahead.append(model.submit(Prompt((Message("user", asked(number)),), 64, 1.0, seed=number)))
        assert not any(future.result().failure for future in ahead)


def peaks(port: int, sizes: tuple[int, ...], store: Path) -> list[float]:
    """MiB of memory at the most, after each number of requests by this process."""
    found = []
    for size in sizes:
        by_winnow(port, 64, size, store.with_name(f"{size}.sqlite"))
        found.append(peak())
    return found


def peak() -> float:
    """MiB of this program; `ru_maxrss` would count what started it too."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def races(port: int, concurrency: int, folder: Path) -> tuple[list[Cost], list[Cost], list[Cost]]:
    """Costs of bare sockets, of ours and of openai's, in turns."""
    n = REQUESTS[concurrency]
    sockets, ours, theirs = [], [], []
    for number in range(ROUNDS):
        store = folder / f"{concurrency}-{number}.sqlite"
        sockets.append(timed(n, lambda: by_sockets(port, concurrency, n)))
        ours.append(timed(n, lambda store=store: by_winnow(port, concurrency, n, store)))  # type: ignore[misc]
        theirs.append(timed(n, lambda: by_openai(port, concurrency, n)))
    return sockets, ours, theirs


def speed(port: int, folder: Path) -> Iterator[Row]:
    for concurrency in REQUESTS:
        sockets, ours, theirs = races(port, concurrency, folder)
        share = [max(cost.share(concurrency) for cost in costs) for costs in (sockets, ours, theirs)]
        yield Row(f"{concurrency} at once: bare sockets, of the ideal", share[0], "share", 0.95, more_is_better=True)
        yield Row(
            f"{concurrency} at once: requests a second, of the ideal", share[1], "share", 0.9, more_is_better=True
        )
        yield Row(f"{concurrency} at once: beside openai", share[1], "share", 1, share[2], more_is_better=True)
        middle = [statistics.median(cost.overhead for cost in costs) for costs in (ours, theirs)]
        yield Row(f"{concurrency} at once: processor time a request", middle[0], "ms", 1 / 1.2, middle[1])


def memory(port: int, folder: Path) -> Iterator[Row]:
    """In a process of its own, whose peak nothing before has raised."""
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        found = fresh.apply(peaks, (port, SIZES, folder / "memory.sqlite"))
    for (before, least), (after, most) in itertools.pairwise(zip(SIZES, found, strict=True)):
        yield Row(f"peak memory of {after} requests, more than of {before}", most - least, "MiB", 16)


def measured() -> Iterator[Row]:
    with steady_server() as port, tempfile.TemporaryDirectory() as folder:
        yield from speed(port, Path(folder))
        yield from memory(port, Path(folder))


if __name__ == "__main__":
    sys.exit(run(measured))

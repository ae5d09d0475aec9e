"""An endpoint client as tests ask it: quick retries, exact prices, one store per test.

python tests/models/asking.py URL MODEL STORE ROWS CONCURRENCY: asks the first ROWS prompts in a process of its own,
which a test can kill; prints the replies as JSON.
"""

import asyncio
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from models.endpoint.client import EndpointModel
from models.endpoint.life import Clock
from models.endpoint.prices import Prices
from models.endpoint.retries import Retry
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.protocol import Prompt
from warehouse.records import Message

QUICK = Retry(tries=6, seconds=600.0, base=0.002, cap=0.01)
PRICES = Prices(input="0.15", output="0.60")  # type: ignore[arg-type]  # text stays exact


def unhurried(waits: list[float]) -> Clock:
    """A clock whose sleeps take no time; `waits` collects how long each should have been."""

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    return Clock(sleep=sleep)


def echo(request: dict[str, Any]) -> dict[str, Any]:
    """A reply that is a function of the whole request, with a usage of its own."""
    text = json.dumps(request, sort_keys=True)
    word = hashlib.sha256(text.encode()).hexdigest()[:12]
    usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 1 + len(request["messages"][-1]["content"]) % 7}
    return {
        "id": word,
        "object": "chat.completion",
        "model": request["model"],
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"reply {word}"}}
        ],
        "usage": usage,
    }


def spec_of(url: str, model: str, **changes: Any) -> EndpointSpec:
    """The endpoint at `url`; its replies are shared by every address that says the same namespace."""
    settings: dict[str, Any] = {
        "name": "tiny",
        "base_url": f"{url}/v1",
        "model": model,
        "namespace": "tiny",
        "timeout": 60.0,
    }
    return EndpointSpec(**settings | {"max_concurrency": 4, "prices": PRICES} | changes)


def prompt(said: str, **changes: Any) -> Prompt:
    return Prompt((Message("user", said),), **{"max_tokens": 4} | changes)


def prompts(n: int, **changes: Any) -> list[Prompt]:
    return [prompt(f"Say number {number:03d}.", **changes) for number in range(n)]


@contextmanager
def asking(spec: EndpointSpec, store: Path, **settings: Any) -> Iterator[EndpointModel]:
    with ResponseStore(store) as kept, EndpointModel(spec, kept, **{"retry": QUICK} | settings) as model:
        yield model


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"still not so after {seconds:g} s"
        time.sleep(0.002)


def rows(store: Path, query: str) -> list[dict[str, Any]]:
    """What a query of the store's own tables gives."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(query)]


def attempts(store: Path) -> list[dict[str, Any]]:
    return rows(store, "SELECT * FROM attempts ORDER BY id")


def main(url: str, model: str, store: str, n: str, concurrency: str) -> None:
    with asking(spec_of(url, model, max_concurrency=int(concurrency)), Path(store)) as client:
        replies = client.complete(prompts(int(n)))
    json.dump([[reply.text, reply.failure] for reply in replies], sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

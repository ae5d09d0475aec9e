"""`transformers serve`, the real one, on the small random model that the rooms' tests share.

It needs fastapi and uvicorn (the extra `transformers[serving]`). Its answers are gibberish, which is all that counting,
retrying and keeping need.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = """\
{% for message in messages %}<|{{ message['role'] }}|>
{{ message['content'] }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
START_SECONDS = 300
TRIES = 3  # another program may take the port before the server does


@dataclass(frozen=True, slots=True)
class TinyServer:
    """Where the server listens, and the only model it answers for."""

    url: str
    model: str


def chat_model(weights: Path, folder: Path) -> Path:
    """A copy of the model with a chat template that draws its replies.

    The server samples only where `generation_config.json` says so, whatever temperature a request has; temperature 0
    still turns it off.
    """
    shutil.copytree(weights, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_sample": True}))
    return folder


@contextmanager
def tiny_server(model: Path, log: Path) -> Iterator[TinyServer]:
    """Runs until the end of the block; raises with the server's own words where it does not start."""
    for _ in range(TRIES):
        port = _free_port()
        server = _start(model, port, log)
        try:
            if _answers(f"http://127.0.0.1:{port}", server):
                yield TinyServer(f"http://127.0.0.1:{port}", str(model))
                return
        finally:
            server.kill()
            server.wait()
    raise AssertionError(f"transformers serve did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _start(model: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(model), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(log.parent / "hub")}
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str, server: "subprocess.Popen[bytes]") -> bool:
    """Whether `/health` answers in time; `/v1/models` fails where there is no folder of downloaded models."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return server.poll() is None
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    return False

"""Flow runs that died with their process: they told Prefect nothing, so the next run or `winnow serve` does.

Every flow run locks a file of its name under `<home>/running`; the kernel lets go of it when the process dies.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID


@contextlib.contextmanager
def noted(home: Path, flow_run: str) -> Iterator[None]:
    """Note that `flow_run` goes on in this process until the block ends."""
    note = home / "running" / flow_run
    note.parent.mkdir(parents=True, exist_ok=True)
    with note.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def settle(home: Path, *, run_again: bool = False) -> int:
    """Give every flow run whose process died the state Crashed; how many there were.

    With `run_again` those of a deployment become due again instead, and go on from their finished stages.
    """
    dead = [note for note in (home / "running").glob("*") if _let_go(note)]
    for note in dead:
        _tell(UUID(note.name), run_again)
        note.unlink(missing_ok=True)
    return len(dead)


def _let_go(note: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), note.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    return False


def _tell(flow_run: UUID, run_again: bool) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.states import AwaitingRetry, Crashed

    with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
        found = client.read_flow_run(flow_run)
        if found.state is None or found.state.is_final():
            return
        client.set_flow_run_state(flow_run, Crashed(message="its process died; finished stages are kept"), force=True)
        if run_again and found.deployment_id is not None:
            client.set_flow_run_state(flow_run, AwaitingRetry(message="its process died; it goes on"), force=True)

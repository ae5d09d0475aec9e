"""What a person sees on stderr: one line per stage, live progress on a terminal, plain lines without one."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from warehouse.runs import StageRecord

PLAIN_EVERY_S = 10.0  # without a terminal a line this often is enough to see that work goes on


@dataclass(slots=True)
class ConsoleListener:
    """Writes to stderr, so that stdout holds only results. Use as a context manager."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    _bar: Progress | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _clocks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __enter__(self) -> "ConsoleListener":
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)

    def stage(self, record: StageRecord) -> None:
        self.say(line(record))
        if self._bar is not None and record.name in self._tasks:
            self._bar.remove_task(self._tasks.pop(record.name))

    def progress(self, name: str, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        begun, told = self._clocks.setdefault(name, (now, now))
        rate = done / (now - begun) if now > begun else 0.0
        if self._bar is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(escape(name), total=total, rate="")
            self._bar.update(self._tasks[name], completed=done, total=total, rate=note or f"{rate:,.0f}/s")
        elif now - told >= PLAIN_EVERY_S:
            self._clocks[name] = (begun, now)
            left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
            more = f"; {note}" if note else ""
            self.say(f"  {name}: {done:,}{f' of {total:,}' if total else ''} ({rate:,.0f}/s{left}){more}")


def line(record: StageRecord) -> str:
    """What happened in a stage: computed or cached, its name, its key, its funnel."""
    state = f"computed in {record.seconds:6.1f} s" if record.computed else "cached           "
    dropped = "".join(f", {n:,} {reason}" for reason, n in sorted(record.dropped.items()))
    rows = f"{record.rows_in:,} → {record.rows_out:,} rows{dropped}"
    return f"{state}  {record.name:<34} {record.key[:12]}  {rows}"

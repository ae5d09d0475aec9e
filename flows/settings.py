"""Settings of one machine: environment variables `WINNOW_*`, overridden by command-line options.

Every verb reads them, so this is plain Python: importing pydantic-settings alone costs a tenth of a second.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from warehouse.errors import InputError

CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"

# Nothing calls home unless the user asks for it, and no library fills the console. A value the user has set wins.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # the pages of runs and tasks have their logs; on the console an error is told once, by the command that had it
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
    CONSOLE: "CRITICAL",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def _number(name: str, low: int, high: int) -> int | None:
    """A whole number in the environment; None where it is not set. Raises `InputError` for anything else."""
    text = os.environ.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise InputError(f"{name} is {text!r}; give a whole number from {low} to {high}, or unset it")
    return int(text)


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from machine to machine and belongs in no recipe; an empty variable counts as not set."""

    home: Path = field(default_factory=lambda: Path(os.environ.get("WINNOW_HOME") or "winnow-home"))
    prefect_port: int | None = field(default_factory=partial(_number, "WINNOW_PREFECT_PORT", 1, 65535))
    ray_address: str | None = field(default_factory=lambda: os.environ.get("WINNOW_RAY_ADDRESS") or None)
    workers: int | None = field(default_factory=partial(_number, "WINNOW_WORKERS", 1, 4096))


def be_quiet() -> None:
    """Set `QUIET` in this process and so in all it starts."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)

"""Settings of one machine: environment variables `WINNOW_*`, overridden by command-line options."""

import os
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

# Nothing calls home unless the user asks for it, and no library fills the console. A value the user has set wins.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
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


class Settings(BaseSettings):
    """What differs from machine to machine and belongs in no recipe."""

    model_config = SettingsConfigDict(env_prefix="WINNOW_")

    home: Path = Path("winnow-home")
    prefect_port: int | None = None
    ray_address: str | None = None
    workers: int | None = None


def be_quiet() -> None:
    """Set `QUIET` in this process and so in all it starts."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)

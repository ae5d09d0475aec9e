"""Runs without the libraries' bars, advice and calls."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import datasets
import transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and only errors from transformers and trl, which warn about what is meant here."""
    bars: Any = transformers.utils.logging
    shown, shown_by_datasets = bars.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    loggers = [logging.getLogger(name) for name in ("transformers", "trl")]
    levels = [logger.level for logger in loggers]
    datasets.disable_progress_bars()
    bars.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # trl sets options that transformers renames
            warnings.filterwarnings("ignore", "lora with eva init", UserWarning)  # the weights are in memory anyway
            warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)  # what peft leaves off for SHiRA
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown_by_datasets:
            datasets.enable_progress_bars()
        if shown:
            bars.enable_progress_bar()

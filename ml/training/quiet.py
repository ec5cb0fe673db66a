"""Keeps Lightning's advertisements, and its advice that does not apply here, out of the log."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = (
    "lightning.pytorch",
    "lightning.fabric",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.distributed",
)
_WARNINGS = (
    # Lightning's own use of torch.
    ".*LeafSpec.*",
    # Small sets.
    ".*logging interval.*",
    # Loaders for which workers would only compete with the training for the cores.
    ".*does not have many workers.*",
)


def silence() -> None:
    """Quieten this process for good, for those that a training spawns."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Quieten this process for a while."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            silence()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Entry point of a worker: light, so that a worker that runs out of memory can still report it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from typing import Any


def start(lifeline: Connection) -> None:
    """Quiet a new worker, and let it end when its parent is killed or drops it.

    Args:
        lifeline: closed by the parent when the worker is to end.
    """
    logging.basicConfig(level=logging.ERROR)
    # Ctrl-C reaches the whole process group; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    ends: list[Any] = [lifeline, *([] if parent is None else [parent.sentinel])]
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()


def run(task: bytes) -> Any:
    """Run a task; errors of its imports are raised like its own.

    Args:
        task: a pickled `ShardTask`, ours.

    Returns:
        Its report.
    """
    return pickle.loads(task).run()


def _end_with(ends: Sequence[Any]) -> None:
    """Wait for the parent's end, or its word; a worker left alone would wait for work forever."""
    wait_for_any(ends)
    os._exit(1)

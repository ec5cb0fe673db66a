"""Durations of calls, and the hardware they ran on."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

Clock = Callable[[], float]
_FEWEST_CALLS, _CALLS_A_TURN = 5, 3


def hardware() -> str:
    """Return the processor, as the system names it, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0] if names else platform.processor()} ({len(names) or '?'} logical cores)"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor}, {gpu}"


def milliseconds(
    functions: Sequence[Callable[[], object]], seconds: float, clock: Clock = time.perf_counter
) -> list[float]:
    """Return the median time of a call of each function, ms.

    The functions alternate, so that other load on the machine affects all of them; the first call
    of a turn is not counted, so that none pays for the caches that another one filled.

    Args:
        functions: what is timed.
        seconds: per function; at least five calls are made.
        clock: seconds, of the wall or of the processor.
    """
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end or len(times[0]) < _FEWEST_CALLS:
        for function, found in zip(functions, times, strict=True):
            function()
            for _ in range(_CALLS_A_TURN):
                begin = clock()
                function()
                found.append(clock() - begin)
    return [1000.0 * statistics.median(found) for found in times]

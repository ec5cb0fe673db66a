"""What all benchmarks share: what their metrics belong to, and how calls are timed by turns."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

Clock = Callable[[], float]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a benchmark's docstring, line by line."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def start(threads: int | None = None) -> None:
    """Fix threads and seed, and print what the metrics belong to.

    Args:
        threads: of torch; left as they are if none.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    print(f"hardware: {hardware()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"date:     {datetime.now(UTC):%Y-%m-%d}")
    print(f"commit:   {commit()}")
    print(f"command:  python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}")


def hardware() -> str:
    """Return processor, as the system names it, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0] if names else platform.processor()} ({len(names) or '?'} logical cores)"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor}, {gpu}"


def commit() -> str:
    """Return short hash of the checked-out commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "none"


def milliseconds(
    functions: Sequence[Callable[[], object]], seconds: float, clock: Clock
) -> list[float]:
    """Return the median time of a call of each.

    They take turns, so that other work on the machine hits all of them; the first call of a turn is
    not counted, so that none pays for what another left in the caches.
    """
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end or len(times[0]) < 5:
        for function, found in zip(functions, times, strict=True):
            function()
            for _ in range(3):
                begin = clock()
                function()
                found.append(clock() - begin)
    return [1000.0 * statistics.median(found) for found in times]

"""What all benchmarks share: what their metrics belong to, and how calls are timed by turns."""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from ml.benchmarks.timing import hardware


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


def commit() -> str:
    """Return short hash of the checked-out commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "none"

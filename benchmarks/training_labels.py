"""Memory and time of a training's labels, by the number of heads: what grows with the dataset.

python -m benchmarks.training_labels [heads ...]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.report import parser_of, start
from ml.training_data.labels import LabelRows, LabelTable

PART = 16384
HEADS_PER_IMAGE = 1.3


def main() -> int:
    """Measure each number of heads in a separate process."""
    parser = parser_of(__doc__)
    parser.add_argument("heads", nargs="*", type=int, default=[20_000, 100_000, 500_000])
    parser.add_argument("--one", type=int, help="measure this number in this process")
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return 0
    start(threads=1)
    print("\n| heads | MB resident beyond imports | bytes a head | build, s | first image, ms |")
    print("|---|---|---|---|---|", flush=True)
    for heads in options.heads:
        command = [sys.executable, "-m", "benchmarks.training_labels", "--one", str(heads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
    return 0


def one(heads: int) -> None:
    """Build the labels of so many heads, and look at an image."""
    with tempfile.TemporaryDirectory() as folder:
        before = resident()
        started = time.perf_counter()
        table = LabelTable(RandomHeads(heads), project, Path(folder) / "labels.flame")
        built = time.perf_counter() - started
        grown = resident() - before
        started = time.perf_counter()
        table[next(iter(table))]
        first = 1000 * (time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {heads:,} | {grown / 2**20:.0f} (peak {peak:.0f} in all) | {grown / heads:.0f} | "
            f"{built:.1f} | {first:.0f} |",
            flush=True,
        )


class RandomHeads:
    """Random heads, part by part, as the tables give them."""

    def __init__(self, heads: int) -> None:
        """Remember their number."""
        self._heads = heads

    def __len__(self) -> int:
        return -(-self._heads // PART)

    def rows(self, part: int) -> LabelRows:
        """Return ids, boxes and flags."""
        first, count, rng = self._place(part)
        low = rng.uniform(0, 400, (count, 2)).astype(np.float32)
        boxes = np.concatenate([low, low + rng.uniform(20, 80, (count, 2)).astype(np.float32)], 1)
        numbers = (np.arange(first, first + count) / HEADS_PER_IMAGE).astype(int)
        ids = np.array([f"image-{i // 1000:05d}-{i % 1000:05d}" for i in numbers], object)
        true = np.ones(count, bool)
        return LabelRows(ids, boxes, true, ~true)

    def flame(self, part: int) -> np.ndarray:
        """Return parameters."""
        _, count, rng = self._place(part)
        return rng.random((count, 413), np.float32)

    def _place(self, part: int) -> tuple[int, int, np.random.Generator]:
        first = part * PART
        return first, min(PART, self._heads - first), np.random.default_rng(part)


def project(flame: np.ndarray) -> np.ndarray:
    """Return meshes as large as a head's."""
    rng = np.random.default_rng(1)
    return rng.uniform(0, 480, (len(flame), 2609, 3)).astype(np.float32)


def resident() -> int:
    """Return bytes of this process in memory, mapped files left out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon")


if __name__ == "__main__":
    sys.exit(main())

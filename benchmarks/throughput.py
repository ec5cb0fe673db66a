"""Images per second, from letterboxed pixels to heads in image pixels, by size and batch.

    python -m benchmarks.throughput                # S, M, L on the GPU; without one the rows say so
    python -m benchmarks.throughput --device cpu --sizes nano --batches 1 8

What is timed is `HeadDetector`'s torch runtime in float32: copy to the device, network,
suppression, FLAME branches at about ten kept heads an image. Meshes are not made.
"""

from __future__ import annotations

import itertools
import time

import numpy as np
import torch

from benchmarks.inference import crowded, picture
from benchmarks.report import milliseconds, parser_of, start
from ml.imaging.letterbox import letterbox_image
from ml.inference.runtimes import TorchRuntime, pick_device
from ml.model.config import ModelSize

HEADS = 10


def images_per_second(size: ModelSize, batches: list[int], device: str, seconds: float) -> str:
    """A row of the table for each batch."""
    network, config = crowded(size, HEADS)
    side = network.config.image_size
    runtime = TorchRuntime(network, pick_device(device))
    square, letterbox = letterbox_image(picture(), side)
    rows = []
    for batch in batches:
        pixels = np.ascontiguousarray(np.repeat(square.transpose(2, 0, 1)[None], batch, axis=0))

        def find(pixels: np.ndarray = pixels, batch: int = batch) -> None:
            runtime(pixels, [letterbox] * batch, config)
            if device.startswith("cuda"):
                torch.cuda.synchronize()

        (each,) = milliseconds([find], seconds, time.perf_counter)
        rows.append(f"| {size} | {side} | {batch} | {1000 * batch / each:.1f} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", default=["S", "M", "L"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, default=None, help="torch threads")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each figure")
    arguments = parser.parse_args()
    start(arguments.threads)
    print("\n| size | side px | batch | images/s |")
    print("|---|---|---|---|")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        for size, batch in itertools.product(arguments.sizes, arguments.batches):
            print(f"| {size} | | {batch} | not measured: no GPU |")
        return
    for size in arguments.sizes:
        rows = images_per_second(size, arguments.batches, arguments.device, arguments.seconds)
        print(rows, flush=True)


if __name__ == "__main__":
    main()

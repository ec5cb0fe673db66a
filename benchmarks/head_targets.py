"""Head targets a second: a batch's on the device, against head by head as the published loader.

    python -m benchmarks.head_targets --threads 2

A target is what the loss compares: unrotated vertices, rotation and projected vertices. The
published code runs the whole head model for every head in the data loader, one by one (here
through smplx.lbs); ours runs it for all heads of the batch, for the compared vertices.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor

from benchmarks.flame_layer import Smplx
from benchmarks.report import parser_of, start
from ml.benchmarks.timing import milliseconds
from ml.flame.layer import FlameLayer
from ml.flame.open_head import build_open_head
from ml.flame.params import split
from ml.flame.projection import project, project_xy
from ml.flame.rotation import matrix_from_6d
from ml.model.losses import spread


def some_heads(count: int) -> Tensor:
    """Return (count, 413) plausible parameters."""
    flame = torch.randn(count, 413)
    flame[:, 400:403] *= 0.2
    flame[:, 409:412] = 300 + 100 * torch.randn(count, 3)
    flame[:, 412] = 200 + 1000 * torch.rand(count)
    return flame


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each metric")
    parser.add_argument("--heads", type=int, nargs="+", default=[16, 128, 512])
    arguments = parser.parse_args()
    start(arguments.threads)
    head_model = build_open_head(0)
    region = torch.as_tensor(head_model.region("head"))
    everything = Smplx(head_model, None)

    def one_by_one(flame: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        targets = []
        for row in flame:
            parts = split(row[None])
            vertices = everything(parts.shape, parts.expression, parts.jaw)
            rotation = matrix_from_6d(parts.rotation)
            points = project(vertices, rotation, parts.translation, parts.scale)
            targets.append((vertices[:, region], rotation, points[:, region, :2]))
        return targets

    print("\n| heads | vertices | one by one, heads/s | batched, heads/s | faster |")
    print("|---|---|---|---|---|")
    for count in (None, 400):  # all vertices, and as many as the demo compares
        layer = FlameLayer(head_model, spread(region, count).numpy())
        for heads in arguments.heads:
            flame = some_heads(heads)

            def batched(flame: Tensor = flame, layer: FlameLayer = layer) -> tuple[Tensor, ...]:
                parts = split(flame)
                vertices = layer(parts.shape, parts.expression, parts.jaw)
                rotation = matrix_from_6d(parts.rotation)
                points = project_xy(vertices, rotation, parts.translation, parts.scale)
                return vertices, rotation, points

            with torch.inference_mode():
                theirs, ours = milliseconds(
                    [partial(one_by_one, flame), batched], arguments.seconds, time.perf_counter
                )
            print(
                f"| {heads} | {layer.num_vertices} | {1000 * heads / theirs:.0f} "
                f"| {1000 * heads / ours:.0f} | {theirs / ours:.1f}x |",
                flush=True,
            )


if __name__ == "__main__":
    main()

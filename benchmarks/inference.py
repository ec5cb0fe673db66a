"""From image to meshes: the plain way, fused torch, and onnxruntime; and the suppression alone.

    python -m benchmarks.inference --size L

The plain way is what the official package does: the unfused network, every anchor decoded, a greedy
loop of suppression, then FLAME (smplx.lbs) head by head. The rows take turns, so that other work on
the machine hits all of them; all rows must give the same vertices. On a machine that does other
work too, `--cpu-time --threads 1` counts processor time instead of the clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.flame_layer import Smplx
from benchmarks.report import parser_of, start
from ml.benchmarks.architectures import crowded, sample_image
from ml.benchmarks.timing import Clock
from ml.flame.frames import network_to_image
from ml.flame.head_model import HeadModel
from ml.flame.open_head import build_open_head
from ml.flame.params import split
from ml.flame.projection import project_flame
from ml.imaging.boxes import nms_mask
from ml.imaging.letterbox import letterbox_image
from ml.inference.heads import DetectedHeads, HeadShapes
from ml.inference.predictor import HeadPredictor
from ml.inference.runtimes import OnnxRuntime, Runtime, TorchRuntime
from ml.model.building import ModelSize
from ml.model.decode import decode
from ml.model.detector import HeadDetectorNetwork
from ml.model.export import onnx_model
from ml.model.postprocess import PostprocessConfig

TOLERANCE = 1e-3
"""Largest difference of vertices between the rows, as a fraction of the heads' size."""


class PlainWay:
    """Unfused, all anchors decoded, heads one by one."""

    def __init__(
        self, network: HeadDetectorNetwork, head_model: HeadModel, config: PostprocessConfig
    ) -> None:
        """Keep the network, and the head model for smplx."""
        self.network, self.config = network, config
        self.size = network.config.image_size
        self.smplx = Smplx(head_model, None)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return vertices (N, 5023, 3), image px."""
        square, letterbox = letterbox_image(image, self.size)
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255
        found = decode(self.network(pixels))
        boxes, scores, flame = found.boxes_xyxy[0], found.scores[0], found.flame[0]
        sure = (scores >= self.config.score_threshold).nonzero()[:, 0]
        rows = sure[greedy(boxes[sure], scores[sure], self.config)]
        meshes = [self.mesh(network_to_image(flame[row][None], letterbox)) for row in rows]
        return np.stack(meshes) if meshes else np.zeros((0, 5023, 3), np.float32)

    def mesh(self, flame: torch.Tensor) -> np.ndarray:
        """Return one head's vertices."""
        parts = split(flame)
        vertices = self.smplx(parts.shape, parts.expression, parts.jaw)
        return project_flame(vertices, flame)[0].numpy()


def greedy(boxes: torch.Tensor, scores: torch.Tensor, config: PostprocessConfig) -> torch.Tensor:
    """Suppress in the usual way: take the best, drop overlapping ones, repeat."""
    left = scores.argsort(descending=True, stable=True)[: config.max_candidates]
    kept: list[int] = []
    while len(left) and len(kept) < config.max_heads:
        best = boxes[left[0]]
        kept.append(int(left[0]))
        low = torch.maximum(boxes[left, :2], best[:2])
        high = torch.minimum(boxes[left, 2:], best[2:])
        common = (high - low).clamp(min=0).prod(1)
        areas = (boxes[left, 2:] - boxes[left, :2]).prod(1)
        left = left[common / (areas + areas[0] - common) <= config.iou_threshold]
    return torch.tensor(kept, dtype=torch.int64)


class OurWay:
    """Letterbox, network, suppression, then all kept heads through the FLAME layer at once."""

    def __init__(
        self, runtime: Runtime, shapes: HeadShapes, size: int, config: PostprocessConfig
    ) -> None:
        """Keep the parts."""
        self.predictor = HeadPredictor(runtime, size, config)
        self.shapes = shapes

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return vertices (N, 5023, 3), image px."""
        (heads,) = self.predictor.predict([image])
        return DetectedHeads(heads, self.shapes).vertices_px


def times(
    rows: dict[str, Callable[[], object]], rounds: int, clock: Clock
) -> dict[str, list[float]]:
    """Return milliseconds of each row, taking turns."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for function in rows.values():
        function()
    for _ in range(rounds):
        for name, function in rows.items():
            begin = clock()
            function()
            found[name].append(1000 * (clock() - begin))
    return found


def print_table(title: str, found: dict[str, list[float]]) -> None:
    """Print medians, minima, and how many times faster than the first row."""
    print(f"\n| {title} | median ms | least ms | faster (medians) | faster (least) |")
    print("|---|---|---|---|---|")
    first = next(iter(found.values()))
    for name, values in found.items():
        middle, least = statistics.median(values), min(values)
        print(
            f"| {name} | {middle:.1f} | {least:.1f} | {statistics.median(first) / middle:.2f}x "
            f"| {min(first) / least:.2f}x |",
            flush=True,
        )


def end_to_end(size: ModelSize, heads: int, rounds: int, clock: Clock) -> None:
    """Measure the three ways on one image."""
    network, config = crowded(size, heads)
    head_model = build_open_head(0)
    shapes, side = HeadShapes(head_model), network.config.image_size
    exported = onnx_model(network, side, config).SerializeToString()
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "torch, unfused, head by head": PlainWay(network, head_model, config),
        "torch, fused, heads at once": OurWay(TorchRuntime(network), shapes, side, config),
        "onnxruntime, heads at once": OurWay(OnnxRuntime(exported), shapes, side, config),
    }
    image = sample_image()
    results = {name: way(image) for name, way in ways.items()}
    reference = next(iter(results.values()))
    extent = float(np.ptp(reference, axis=1).max())
    for name, vertices in results.items():
        if vertices.shape != reference.shape:
            raise SystemExit(f"{name}: {len(vertices)} heads, not {len(reference)}")
        difference = float(np.abs(vertices - reference).max()) / extent
        print(f"{name}: {len(vertices)} heads, vertices differ by {difference:.1e} of their size")
        if difference > TOLERANCE:
            raise SystemExit("the ways do not agree")
    rows: dict[str, Callable[[], object]] = {
        name: partial(way, image) for name, way in ways.items()
    }
    print_table(f"{size}, {side} px, image to meshes", times(rows, rounds, clock))


def suppression(rounds: int, clock: Clock) -> None:
    """Measure the suppression of 16 images at once against the loop over images and boxes."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(16, 1000, 2, generator=generator) * 560
    side = torch.rand(16, 1000, 2, generator=generator) * 60 + 20
    boxes, scores = (
        torch.cat([corner, corner + side], -1),
        torch.rand(16, 1000, generator=generator),
    )
    config = PostprocessConfig(max_heads=1000)
    kept = nms_mask(boxes, scores, config.iou_threshold)
    for index in range(16):
        rows = greedy(boxes[index], scores[index], config).sort().values
        if not torch.equal(rows, kept[index].nonzero()[:, 0]):
            raise SystemExit("the suppressions do not agree")
    rows_to_time: dict[str, Callable[[], object]] = {
        "greedy loop": lambda: [greedy(b, s, config) for b, s in zip(boxes, scores, strict=True)],
        "ml.imaging.boxes.nms_mask": lambda: nms_mask(boxes, scores, config.iou_threshold),
    }
    print_table("suppression, 16 images of 1,000 boxes", times(rows_to_time, rounds, clock))


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch and onnxruntime")
    parser.add_argument("--size", default="L", choices=("nano", "S", "M", "L"))
    parser.add_argument("--heads", type=int, default=10, help="heads in the image")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each row")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, not the clock")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    start(arguments.threads)
    end_to_end(arguments.size, arguments.heads, arguments.rounds, clock)
    suppression(arguments.rounds, clock)


if __name__ == "__main__":
    main()

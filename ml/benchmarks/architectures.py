"""Costs of detectors (paper, table 8): parameters, multiply-accumulates, images per second.

What is timed is `HeadDetector`'s runtime from letterboxed pixels to heads in image pixels: copy to
the device, network, suppression, FLAME branches at about ten kept heads per image. Meshes are not
made. Lower precisions are torch's autocast; the export holds float32, so onnxruntime has no other.
Parameters and multiply-accumulates are those of the partly fused network, as in the paper.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from ml.benchmarks.timing import hardware, milliseconds
from ml.imaging.boxes import nms
from ml.imaging.letterbox import letterbox_image
from ml.inference.loading import read_detector
from ml.inference.runtimes import OnnxRuntime, Runtime, TorchRuntime
from ml.model.building import ModelSize, build_detector, model_config
from ml.model.decode import decode
from ml.model.detector import HeadDetectorNetwork
from ml.model.export import onnx_model
from ml.model.fusing import count_conv_macs, count_parameters, fuse
from ml.model.postprocess import PostprocessConfig
from ml.records.models import choose_device

BENCHMARK, PROTOCOL = "architecture", "cost"
PUBLISHED_SIZES: tuple[ModelSize, ...] = ("L", "M", "S")
Precision = Literal["fp32", "bf16", "fp16"]
RuntimeName = Literal["torch", "onnxruntime"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
_DTYPES: Mapping[Precision, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
HEADS = 10
#: The default way to run a detector; its speed is shown in the paper's column.
USUAL = ("torch", "fp32", 1)
Speeds = Mapping[tuple[str, str, int], "float | None"]


@dataclass(frozen=True)
class Architecture:
    """A detector to be measured.

    Attributes:
        name: in the table.
        network: its network, on the CPU.
        config: thresholds that leave about `HEADS` heads per image.
        parameters: of the partly fused network.
        gmacs: 1e9 multiply-accumulates of its convolutions for an image.
    """

    name: str
    network: HeadDetectorNetwork
    config: PostprocessConfig
    parameters: int
    gmacs: float

    @property
    def side(self) -> int:
        """Side of the input, px."""
        return self.network.config.image_size


def published_name(size: ModelSize) -> str:
    """Return the paper's name of a size; sizes that are not in the paper keep theirs.

    Args:
        size: of the network.
    """
    return f"VGGHeads-{size}" if size in PUBLISHED_SIZES else size


def architecture(
    name: str, network: HeadDetectorNetwork, config: PostprocessConfig | None = None
) -> Architecture:
    """Count a network's parameters and multiply-accumulates, without running it.

    Args:
        name: in the table.
        network: the network.
        config: thresholds; the defaults are enough for counting.
    """
    partial = fuse(network, "partial")
    bare = copy.deepcopy(partial).to("meta")
    macs = count_conv_macs(bare, network.config.image_size)
    used = config or PostprocessConfig()
    return Architecture(name, network, used, count_parameters(partial), macs / 1e9)


def of_size(size: ModelSize, timed: bool = True) -> Architecture:
    """Build a network of a size with random weights.

    Args:
        size: of the network.
        timed: whether it will be run; its scores then leave about `HEADS` heads.
    """
    if not timed:
        return _counted(size)
    return architecture(published_name(size), *crowded(size, HEADS))


@cache
def _counted(size: ModelSize) -> Architecture:
    """Count without weights: on `meta` no memory is filled with random numbers."""
    with torch.device("meta"):
        network = build_detector(model_config(size))
    return architecture(published_name(size), network)


def of_file(name: str, path: Path, timed: bool = True) -> Architecture:
    """Read a detector from disk.

    Args:
        name: in the table.
        path: its folder, or an official .pth or .trcd file.
        timed: whether it will be run; its threshold then keeps as many heads as in other rows.
    """
    network = read_detector(path).network.eval()
    if not timed:
        return architecture(name, network)
    square, _ = letterbox_image(sample_image(), network.config.image_size)
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
    return architecture(name, network, leaving(network, pixels, HEADS))


def finder(
    model: Architecture, runtime: RuntimeName, precision: Precision, device: str
) -> Callable[[int], Any]:
    """Make a function that finds the heads of a batch.

    Args:
        model: the detector.
        runtime: what runs it.
        precision: of torch's autocast; the export holds fp32.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        Number of images to their heads.
    """
    chosen = choose_device(device)
    made: Runtime
    if runtime == "torch":
        made = TorchRuntime(model.network, chosen)
    else:
        exported = onnx_model(model.network, model.side, model.config).SerializeToString()
        made = OnnxRuntime(exported, chosen)
    square, letterbox = letterbox_image(sample_image(), model.side)
    dtype, kind = _DTYPES[precision], torch.device(chosen).type

    def find(batch: int) -> Any:
        pixels = np.ascontiguousarray(np.repeat(square.transpose(2, 0, 1)[None], batch, axis=0))
        with nullcontext() if dtype is None else torch.autocast(kind, dtype):
            heads = made(pixels, [letterbox] * batch, model.config)
        if kind == "cuda":
            torch.cuda.synchronize()
        return heads

    return find


def unmeasured(runtime: str, precision: str, device: str) -> str:
    """Return why a combination cannot be timed on this machine; empty if it can.

    Args:
        runtime: what runs it.
        precision: of the network.
        device: where.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        return "no GPU"
    return "the export holds float32" if runtime != "torch" and precision != "fp32" else ""


def speeds(
    model: Architecture,
    runtimes: Sequence[RuntimeName],
    precisions: Sequence[Precision],
    batches: Sequence[int],
    device: str,
    seconds: float,
) -> Iterator[tuple[RuntimeName, Precision, int, float | None]]:
    """Time every combination.

    Args:
        model: the detector.
        runtimes: what runs it.
        precisions: of the network.
        batches: images at once.
        device: where.
        seconds: for each combination.

    Yields:
        Runtime, precision, batch, and images per second; None where nothing can be measured.
    """
    for runtime, precision in itertools.product(runtimes, precisions):
        possible = not unmeasured(runtime, precision, device)
        find = finder(model, runtime, precision, device) if possible else None
        for batch in batches:
            value = None
            if find is not None:
                call = (lambda find=find, batch=batch: find(batch),)
                value = 1000 * batch / milliseconds(call, seconds)[0]
            yield runtime, precision, batch, value


def cost_scores(model: Architecture, found: Speeds, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return a score file, as `ml.benchmarks.tables` reads it.

    Args:
        model: the detector.
        found: runtime, precision and batch -> images per second.
        notes: conditions of the measurement in addition to the hardware.
    """
    timed = {
        f"images_per_second_{runtime}_{precision}_{batch}": value
        for (runtime, precision, batch), value in found.items()
    }
    measured_on = [f"{hardware()}, {torch.get_num_threads()} threads"] if timed else []
    return {
        "set": BENCHMARK,
        "protocol": PROTOCOL,
        "model": model.name,
        "num_parameters": model.parameters,
        "gmacs": model.gmacs,
        **({"images_per_second": found.get(USUAL)} if timed else {}),
        **timed,
        "notes": [*measured_on, *notes],
    }


# ------------------------------------------------------------------ networks worth timing
def crowded(size: ModelSize, heads: int) -> tuple[HeadDetectorNetwork, PostprocessConfig]:
    """Return a random network whose scores differ, and a threshold that leaves `heads` heads.

    Args:
        size: of the network.
        heads: about how many are left of `sample_image`.
    """
    torch.manual_seed(0)
    network = build_detector(model_config(size))
    side = network.config.image_size
    square = torch.from_numpy(letterbox_image(sample_image(), side)[0]).permute(2, 0, 1)[None]
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        # Normalised by the image's own statistics the layers see as much as in a trained network;
        # else neighbouring anchors are all but equal and rounding decides between them.
        for norm in norms:
            norm.momentum = 1.0
        network(square)
        network.eval()
        spread = float(network(square).score_logits.std())
        for head in (network.heads.head1, network.heads.head2, network.heads.head3):
            head.cls_pred.weight.mul_(3 / spread)
    return network, leaving(network, square, heads)


def leaving(network: HeadDetectorNetwork, square: torch.Tensor, heads: int) -> PostprocessConfig:
    """Return a threshold that leaves about `heads` heads of an image.

    Args:
        network: in evaluation mode.
        square: (1, 3, H, W) uint8 image.
        heads: number of heads.
    """
    with torch.no_grad():
        found = decode(network(square))
    scores, boxes = found.scores[0], found.boxes_xyxy[0]
    kept = nms(boxes, scores, 0.5, max_output=heads + 1)
    threshold = float(scores[kept[-2:]].mean()) if len(kept) > heads else 0.0
    return PostprocessConfig(score_threshold=threshold)


def sample_image() -> np.ndarray:
    """Return (720, 1280, 3) uint8 smooth noise: the time does not depend on the content."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.uniform(0, 255, (1, 3, 45, 80)).astype(np.float32))
    large = torch.nn.functional.interpolate(small, (720, 1280), mode="bicubic")
    return large[0].clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()

"""Parameters, multiply-accumulates and images per second of detectors: the paper's table 8.

    python -m benchmarks.throughput                # S, M, L on the GPU; without one the rows say so
    python -m benchmarks.throughput --device cpu --sizes nano --batches 1 8
    python -m benchmarks.throughput --precisions fp32 bf16 fp16 --runtimes torch onnxruntime
    python -m benchmarks.throughput --sizes --checkpoints data/trained_model --json scores

What is timed is `HeadDetector`'s runtime from letterboxed pixels to heads in image pixels: copy to
the device, network, suppression, FLAME branches at about ten kept heads an image. Meshes are not
made. Lower precisions are torch's autocast; the export holds float32, so onnxruntime has no other.
Parameters and multiply-accumulates are those of the partly fused network, as in the paper. `--json`
writes a score file a model, which `ml.benchmarks.tables` lays beside the paper's numbers.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.inference import crowded, leaving, sample_image
from benchmarks.report import commit, hardware, milliseconds, parser_of, start
from ml.imaging.letterbox import letterbox_image
from ml.inference.loading import read_detector
from ml.inference.runtimes import OnnxRuntime, Runtime, TorchRuntime
from ml.model.building import build_detector, model_config
from ml.model.detector import HeadDetectorNetwork
from ml.model.export import onnx_model
from ml.model.fusing import count_conv_macs, count_parameters, fuse
from ml.model.postprocess import PostprocessConfig
from ml.records.atomic import write_json
from ml.records.models import choose_device

HEADS = 10
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
RUNTIMES = ("torch", "onnxruntime")
#: The one that stands in table 8: what `HeadDetector` does by default.
USUAL = ("torch", "fp32", 1)


@dataclass(frozen=True)
class Model:
    """A detector to be measured: its name, network, thresholds and costs."""

    name: str
    network: HeadDetectorNetwork
    config: PostprocessConfig
    parameters: int
    gmacs: float

    @property
    def side(self) -> int:
        """Side of the input, px."""
        return self.network.config.image_size


def model_of(name: str, network: HeadDetectorNetwork, config: PostprocessConfig) -> Model:
    """Count what a network costs; nothing is computed for it."""
    partial = fuse(network, "partial")
    bare = copy.deepcopy(partial).to("meta")
    macs = count_conv_macs(bare, network.config.image_size)
    return Model(name, network, config, count_parameters(partial), macs / 1e9)


def stored(path: Path) -> Model:
    """Write a detector with a threshold that leaves as many heads as in the other rows."""
    network = read_detector(path).network.eval()
    square, _ = letterbox_image(sample_image(), network.config.image_size)
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None]
    return model_of(path.name, network, leaving(network, pixels, HEADS))


def runner(model: Model, runtime: str, precision: str, device: str) -> Callable[[int], object]:
    """Return a function that finds the heads of a batch of so many images."""
    made: Runtime
    if runtime == "torch":
        made = TorchRuntime(model.network, choose_device(device))
    else:
        exported = onnx_model(model.network, model.side, model.config).SerializeToString()
        made = OnnxRuntime(exported, choose_device(device))
    square, letterbox = letterbox_image(sample_image(), model.side)
    dtype = PRECISIONS[precision]

    def find(batch: int) -> object:
        pixels = np.ascontiguousarray(np.repeat(square.transpose(2, 0, 1)[None], batch, axis=0))
        kind = torch.device(device).type
        with nullcontext() if dtype is None else torch.autocast(kind, dtype):
            heads = made(pixels, [letterbox] * batch, model.config)
        if kind == "cuda":
            torch.cuda.synchronize()
        return heads

    return find


def lacks_gpu(device: str) -> bool:
    """Return whether a GPU is asked for and there is none."""
    return device.startswith("cuda") and not torch.cuda.is_available()


def measured(
    model: Model, arguments: argparse.Namespace, say: Callable[[str], None]
) -> dict[tuple[str, str, int], float | None]:
    """Return images per second of each runtime, precision and batch.

    None where nothing was measured.
    """
    found: dict[tuple[str, str, int], float | None] = {}
    no_gpu = lacks_gpu(arguments.device)
    for runtime, precision in itertools.product(arguments.runtimes, arguments.precisions):
        reason = "no GPU" if no_gpu else ""
        if not reason and runtime != "torch" and precision != "fp32":
            reason = "the export holds float32"
        find = None if reason else runner(model, runtime, precision, arguments.device)
        for batch in arguments.batches:
            value = None
            if find is not None:
                call = (lambda find=find, batch=batch: find(batch),)
                (each,) = milliseconds(call, arguments.seconds, time.perf_counter)
                value = 1000 * batch / each
            found[runtime, precision, batch] = value
            text = f"{value:.1f}" if value is not None else f"not measured: {reason}"
            say(
                f"| {model.name} | {model.side} | {model.parameters:,} | {model.gmacs:.2f} "
                f"| {runtime} | {precision} | {batch} | {text} |"
            )
    return found


def score_file(model: Model, found: dict[tuple[str, str, int], float | None]) -> dict[str, object]:
    """Return what `ml.benchmarks.tables` reads."""
    return {
        "set": "architecture",
        "protocol": "cost",
        "model": model.name,
        "num_parameters": model.parameters,
        "gmacs": model.gmacs,
        "images_per_second": found.get(USUAL),
        **{
            f"images_per_second_{runtime}_{precision}_{batch}": value
            for (runtime, precision, batch), value in found.items()
        },
        "notes": [f"{hardware()}, {torch.get_num_threads()} threads, commit {commit()}"],
    }


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="*", default=["S", "M", "L"])
    parser.add_argument("--checkpoints", nargs="*", type=Path, default=[], help="models on disk")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=["torch"])
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), default=["fp32"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--threads", type=int, default=None, help="torch threads")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each metric")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="for a score file a model")
    arguments = parser.parse_args()
    start(arguments.threads)
    print("\n| model | side px | parameters | GMACs | runtime | precision | batch | images/s |")
    print("|---|---|---|---|---|---|---|---|")
    for size_or_path in [*arguments.sizes, *arguments.checkpoints]:
        if isinstance(size_or_path, Path):
            model = stored(size_or_path)
        else:
            # heads are wanted only where something can be timed
            made = (
                (build_detector(model_config(size_or_path)), PostprocessConfig())
                if lacks_gpu(arguments.device)
                else crowded(size_or_path, HEADS)
            )
            model = model_of(size_or_path, *made)
        found = measured(model, arguments, lambda line: print(line, flush=True))
        if arguments.json:
            write_json(arguments.json / f"{model.name}.json", score_file(model, found))


if __name__ == "__main__":
    main()

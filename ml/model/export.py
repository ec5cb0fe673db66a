"""The detector in formats that need none of our code: ONNX and TorchScript.

Exports are fused and give the results of `ml.model.postprocess`; the tests compare them.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ml.flame.params import join
from ml.model.decode import decode, decode_boxes, decode_flame
from ml.model.detector import HeadDetectorNetwork
from ml.model.flame_branches import STRIDES
from ml.model.fusing import fuse
from ml.model.kept import KeptHeadsNetwork
from ml.model.outputs import Anchors, RawOutputs
from ml.model.postprocess import PostprocessConfig
from ml.records.atomic import atomic_write

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "vggheads"
"""Under this key an exported file carries its description, as JSON."""
OFFICIAL_CANDIDATES = 1000
"""This many best anchors per image come out of the official TorchScript file."""
ONNX_OPSET = 20
ONNX_INPUT = "images"
ONNX_OUTPUTS = ("boxes", "scores", "flame", "image_index")


class _DenseOnnx(nn.Module):
    """First part of the ONNX graph: candidates of uint8 images, and the second part's inputs."""

    def __init__(self, network: KeptHeadsNetwork, image_size: int, count: int) -> None:
        super().__init__()
        self.network = network
        self.anchors = network.anchors(image_size, image_size, torch.device("cpu"))
        self.count = min(count, len(self.anchors.strides))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        dense = self.network.dense(images.float() / 255)
        scores, rows = dense.score_logits.topk(self.count, dim=1)
        shape = dense.box_logits.shape[2:]
        sides = dense.box_logits.gather(1, rows[..., None, None].expand(-1, -1, *shape))
        boxes = decode_boxes(sides, self.anchors.centres_px[rows], self.anchors.strides[rows])
        return boxes, scores.sigmoid(), rows, *dense.pose_maps


class _KeptOnnx(nn.Module):
    """Second part: parameters of the chosen anchors."""

    def __init__(self, first: _DenseOnnx) -> None:
        super().__init__()
        self.network, self.anchors = first.network, first.anchors

    def forward(
        self, p3: Tensor, p4: Tensor, p5: Tensor, image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        raw = self.network.flame_at((p3, p4, p5), image_index, anchor_index)
        centres = self.anchors.centres_px[anchor_index]
        strides = self.anchors.strides[anchor_index]
        return join(decode_flame(raw, centres, strides, self.network.config.head))


class _Official(nn.Module):
    """The official file's computation: the best anchors of each image, decoded, best first."""

    def __init__(self, network: HeadDetectorNetwork, image_size: int, count: int) -> None:
        super().__init__()
        self.model = network
        sizes = [(image_size // stride, image_size // stride) for stride in STRIDES]
        anchors = Anchors.of_maps(sizes, STRIDES, next(network.parameters()).device)
        # The names are those of the official file; importing leaves them out.
        self.register_buffer("anchor_points", anchors.centres_px)
        self.register_buffer("stride_tensor", anchors.strides)
        self.count = min(count, len(anchors.strides))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        scores, sides, flame = model.heads(model.neck(model.backbone(images)))
        anchors = Anchors(self.anchor_points, self.stride_tensor)  # type: ignore[arg-type]
        rows = scores.float().topk(self.count, dim=1).indices
        found = decode(RawOutputs(scores, sides, flame, anchors, model.config.head), rows)
        return found.boxes_xyxy, found.scores[..., None], found.flame


def export_torchscript(
    network: HeadDetectorNetwork,
    path: Path,
    image_size: int,
    description: dict[str, Any] | None = None,
) -> None:
    """Write a TorchScript file with the inputs and outputs of the official `vgg_heads_l.trcd`.

    Programs that load that file by its path continue to work. In: (B, 3, S, S) float in [0, 1],
    RGB.
    Out: boxes (B, K, 4) xyxy network px, scores (B, K, 1), parameters (B, K, 413), best first,
    not suppressed; K is 1000 or the number of anchors. The image size is fixed, the batch is not.
    Unlike the official file it is fused, and its weights still import under the published names.

    Args:
        network: the detector, fused or not; it is not changed.
        path: the file to write.
        image_size: side of the square input, px, a multiple of 32.
        description: kept in the file under `METADATA_KEY`; must be JSON.

    Source: the graph of the official export; Chu et al., QARepVGG (2022), for the fusion.
    """
    model = _Official(_partially_fused(network), image_size, OFFICIAL_CANDIDATES)
    example = torch.zeros(2, 3, image_size, image_size)
    extra = {METADATA_KEY: json.dumps(description or {}, sort_keys=True)}
    with _quiet(), torch.inference_mode():
        traced = torch.jit.trace(model.eval(), example, check_trace=False)
        with atomic_write(path) as temporary:
            torch.jit.save(traced, str(temporary), _extra_files=extra)


def onnx_model(
    network: HeadDetectorNetwork,
    image_size: int,
    postprocessing: PostprocessConfig | None = None,
    description: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """Return the detector as ONNX graph, decoding and non-maximum suppression included.

    In: `images` (B, 3, S, S) uint8 RGB, letterboxed; optional `score_threshold`, `iou_threshold`
    (1,) float32 and `max_heads` (1,) int64. Out, for all N heads of the batch, image by image, best
    first: `boxes` (N, 4) xyxy network px, `scores` (N,), `flame` (N, 413) network px,
    `image_index` (N,) int64.

    Args:
        network: the detector, fused or not; it is not changed.
        image_size: side of the square input, px, a multiple of 32.
        postprocessing: the values of the optional inputs where they are not given.
        description: kept in the file's metadata under `METADATA_KEY`; must be JSON.

    Returns:
        The checked model.

    Raises:
        ValueError: the package onnx is not installed.
    """
    try:
        import onnx

        from ml.model.export_nms import FIRST_OUTPUTS, SECOND_INPUTS, join_parts
    except ImportError as error:
        raise ValueError("exporting to ONNX needs the package onnx: pip install onnx") from error
    config = postprocessing or PostprocessConfig()
    parts = KeptHeadsNetwork(network).cpu().float()
    # ONNX has no channels-last weights.
    parts.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    first = _DenseOnnx(parts, image_size, config.max_candidates).eval()
    images = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    with torch.inference_mode():
        maps = first(images)[3:]
    # An anchor of each scale, so that the trace goes through all of them.
    _, p4_and_on, p5 = (int((first.anchors.strides < stride).sum()) for stride in STRIDES)
    chosen = torch.tensor([0, 1, 0]), torch.tensor([0, p4_and_on, p5])
    graph = join_parts(
        _traced(first, (images,), [ONNX_INPUT], FIRST_OUTPUTS, "batch"),
        _traced(_KeptOnnx(first).eval(), (*maps, *chosen), SECOND_INPUTS, ["flame"], "heads"),
        config,
    )
    graph.metadata_props.add(key=METADATA_KEY, value=json.dumps(description or {}, sort_keys=True))
    onnx.checker.check_model(graph)
    return graph


def _traced(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    outputs: Sequence[str],
    dimension: str,
) -> onnx.ModelProto:
    """Return a module as ONNX graph whose inputs and outputs have a free first dimension."""
    import onnx

    content = io.BytesIO()
    with _quiet(), torch.inference_mode():
        # The exporter that traces: the one by torch.export takes many times as long, too long for a
        # detector that is to start on onnxruntime. The network has no control flow that a trace
        # could miss.
        torch.onnx.export(
            module,
            inputs,
            content,  # type: ignore[arg-type]  # its stubs know only paths
            dynamo=False,
            input_names=list(names),
            output_names=list(outputs),
            opset_version=ONNX_OPSET,
            dynamic_axes={name: {0: dimension} for name in (*names, *outputs)},
        )
    return onnx.load_from_string(content.getvalue())


def export_onnx(
    network: HeadDetectorNetwork,
    path: Path,
    image_size: int,
    postprocessing: PostprocessConfig | None = None,
    description: dict[str, Any] | None = None,
) -> None:
    """Write `onnx_model` to one file; the arguments are those of `onnx_model`.

    Args:
        network: the detector.
        path: the file to write.
        image_size: side of the square input, px.
        postprocessing: thresholds where none are given.
        description: kept in the file's metadata.
    """
    model = onnx_model(network, image_size, postprocessing, description)
    with atomic_write(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _partially_fused(network: HeadDetectorNetwork) -> HeadDetectorNetwork:
    """Return a fused copy on the CPU with the published names, in a layout that tracing knows."""
    fused = fuse(network, "partial").cpu().float()
    return fused.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings: that sizes become fixed, as is wanted, and of the exporter's future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

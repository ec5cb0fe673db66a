"""From raw outputs to boxes, scores and FLAME parameters in network pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ml.flame.params import FlameParameters, join
from ml.model.config import HeadConfig
from ml.model.outputs import Anchors, RawOutputs, TrainingOutputs

COEFFICIENT_LIMIT = 3.0
"""Shape and expression coefficients lie within three standard deviations."""


class Decoded(NamedTuple):
    """Decoded predictions.

    Attributes:
        boxes_xyxy: (B, K, 4) float32, network pixels.
        scores: (B, K) float32 in [0, 1].
        flame: (B, K, 413) float32, network pixels: 300 shape, 100 expression, 3 jaw (axis-angle),
            6 rotation, 3 translation, 1 scale.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    flame: Tensor


def decode(outputs: RawOutputs, indices: Tensor | None = None) -> Decoded:
    """Decode the predictions of all anchors or of some, in float32.

    Args:
        outputs: what the network returned.
        indices: (B, K) int64 anchors to decode for each image; all of them if left out.

    Returns:
        The decoded predictions, in the order of `indices` or of the anchors.

    Source: paper 4.2; the published decoding.
    """
    scores, sides, flame = outputs.score_logits, outputs.box_logits, outputs.flame
    centres = outputs.anchors.centres_px.expand(scores.shape[0], -1, -1)  # (B, A, 2)
    strides = outputs.anchors.strides.expand(scores.shape[0], -1)  # (B, A)
    if indices is not None:
        scores = scores.gather(1, indices)  # (B, K)
        strides = strides.gather(1, indices)
        centres = centres.gather(1, indices[..., None].expand(-1, -1, 2))
        rows = indices[..., None, None].expand(-1, -1, *sides.shape[2:])  # (B, K, 4, bins)
        sides = sides.gather(1, rows)
        flame = flame.gather(1, indices[..., None].expand(-1, -1, flame.shape[-1]))
    boxes = decode_boxes(sides, centres, strides)
    values = decode_flame(flame, centres, strides, outputs.config)
    return Decoded(boxes, scores.float().sigmoid(), join(values))


def decode_all_boxes(outputs: TrainingOutputs) -> Tensor:
    """Return boxes of all anchors.

    Args:
        outputs: what the network returned.

    Returns:
        (B, A, 4) float32 xyxy, network pixels.
    """
    anchors: Anchors = outputs.anchors
    return decode_boxes(outputs.box_logits, anchors.centres_px, anchors.strides)


def decode_boxes(box_logits: Tensor, centres_px: Tensor, strides: Tensor) -> Tensor:
    """Return boxes from distributions over the distances of their sides.

    Args:
        box_logits: (..., 4, bins) for left, top, right, bottom.
        centres_px: (..., 2) anchor centres, network pixels.
        strides: (...) anchor strides, pixels.

    Returns:
        (..., 4) float32 xyxy, network pixels.

    Source: Li et al., Generalized Focal Loss (2020).
    """
    # A side's distance is the mean of its distribution over whole strides.
    bins = torch.arange(box_logits.shape[-1], device=box_logits.device, dtype=torch.float32)
    distances = (box_logits.float().softmax(dim=-1) @ bins) * strides[..., None]
    return torch.cat([centres_px - distances[..., :2], centres_px + distances[..., 2:]], dim=-1)


def decode_flame(
    raw: Tensor, centres_px: Tensor, strides: Tensor, config: HeadConfig
) -> FlameParameters:
    """Return FLAME parameters from the raw values of anchors.

    Args:
        raw: (..., K) raw values in the order of `RawOutputs.flame`.
        centres_px: (..., 2) anchor centres, network pixels.
        strides: (...) anchor strides, pixels.
        config: the heads' configuration.

    Returns:
        The parameters in network pixels, float32, with the predicted leading coefficients only.

    Source: paper 4.2; the published decoding.
    """
    sizes = [config.shape.out, config.expression.out, 3, 6, 3, 1]
    shape, expression, jaw, rotation, shift, zoom = raw.float().split(sizes, dim=-1)
    stride = strides[..., None]
    return FlameParameters(
        shape=COEFFICIENT_LIMIT * shape.tanh(),
        expression=COEFFICIENT_LIMIT * expression.tanh(),
        # Rotation and jaw stay raw: any 6D vector is a rotation after Gram-Schmidt.
        jaw=jaw,
        rotation=rotation,
        # px, not strides, as published: the offset to the anchor's centre is not scaled.
        translation=torch.cat([shift[..., :2] + centres_px, shift[..., 2:]], dim=-1),
        # A head of fixed size in strides at zero: each scale starts at the heads it is for.
        scale=config.scale_base_px_per_m * zoom.exp() * stride,
    )

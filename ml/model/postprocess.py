"""From raw outputs to the heads of each image, in that image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ml.flame.frames import network_to_image
from ml.imaging.boxes import nms_mask
from ml.imaging.letterbox import Letterbox
from ml.model.decode import decode
from ml.model.outputs import RawOutputs
from ml.records.config import StageConfig
from ml.records.heads import OPERATING_SCORE, Heads


class PostprocessConfig(StageConfig):
    """Which predictions become heads; defaults are those of the published detector."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    """Minimum score of a head."""
    iou_threshold: float = Field(default=0.5, ge=0, le=1)
    """IoU above which the weaker of two heads is suppressed."""
    max_candidates: int = Field(default=1000, ge=1, le=10**9)
    """Anchors with the highest scores that enter NMS, per image."""
    max_heads: int = Field(default=100, ge=1, le=10**9)
    """Maximum number of heads per image."""


def at_operating_score(config: PostprocessConfig) -> PostprocessConfig:
    """Return the thresholds for showing heads: the operating score, or the model's where higher.

    A model may store a far lower one, because average precision counts unsure heads too.

    Args:
        config: the model's thresholds.
    """
    score = max(OPERATING_SCORE, config.score_threshold)
    return config.model_copy(update={"score_threshold": score})


@torch.no_grad()
def postprocess(
    outputs: RawOutputs,
    letterboxes: Sequence[Letterbox],
    config: PostprocessConfig | None = None,
) -> list[Heads]:
    """Threshold, suppress and move the predictions to the frames of the original images.

    Only anchors that can become heads are decoded.

    Args:
        outputs: what the network returned for B images.
        letterboxes: how each of the B images was fitted into the network's input.
        config: thresholds.

    Returns:
        B containers, heads by falling score, image pixels. Boxes may reach over the image's border.

    Raises:
        ValueError: the number of letterboxes is not B.
    """
    config = config or PostprocessConfig()
    num_images = len(outputs.score_logits)
    if len(letterboxes) != num_images:
        raise ValueError(
            f"letterboxes: expected one for each of the {num_images} images, got {len(letterboxes)}"
        )
    _, indices = candidates(outputs.score_logits, config)
    decoded = decode(outputs, indices)  # (B, K, ...)
    kept = suppress(decoded.boxes_xyxy, decoded.scores, config)
    results = []
    for i, (letterbox, rows) in enumerate(zip(letterboxes, kept, strict=True)):
        results.append(
            Heads(
                letterbox.boxes_to_image(decoded.boxes_xyxy[i, rows]).cpu().numpy(),
                decoded.scores[i, rows].cpu().numpy(),
                network_to_image(decoded.flame[i, rows], letterbox).cpu().numpy(),
            )
        )
    return results


def candidates(score_logits: Tensor, config: PostprocessConfig) -> tuple[Tensor, Tensor]:
    """Return the anchors of each image that can become heads, best first.

    Args:
        score_logits: (B, A).
        config: thresholds.

    Returns:
        (B, K) scores and (B, K) int64 anchors; some of an image's K may be below the threshold.
    """
    logits = score_logits.float()
    count = min(config.max_candidates, logits.shape[1])
    # No image has more heads than its anchors above the threshold, so the batch's largest number
    # of those is enough.
    above = int((logits.sigmoid() >= config.score_threshold).sum(dim=1).max()) if len(logits) else 0
    # A stable sort of logits, not topk of scores: equal scores keep the anchors' order on every
    # device, and sigmoid makes far logits equal in float32.
    indices = torch.argsort(logits, dim=1, descending=True, stable=True)[:, : min(count, above)]
    return logits.gather(1, indices).sigmoid(), indices


def suppress(boxes_xyxy: Tensor, scores: Tensor, config: PostprocessConfig) -> list[Tensor]:
    """Return the candidates that become heads.

    Args:
        boxes_xyxy: (B, K, 4), best first.
        scores: (B, K).
        config: thresholds.

    Returns:
        Positions of the kept candidates of each image, best first, int64.
    """
    # (B, K)
    kept = nms_mask(boxes_xyxy, scores, config.iou_threshold) & (scores >= config.score_threshold)
    return [rows.nonzero()[: config.max_heads, 0] for rows in kept]


def exclusive_threshold(score: float) -> np.float32:
    """Return the threshold t' for which `score > t'` is `score >= t`.

    ONNX keeps what is above its threshold, `postprocess` what is at or above it.

    Args:
        score: the threshold of `PostprocessConfig`.

    Returns:
        The next smaller float32.
    """
    return np.nextafter(np.float32(score), np.float32(-1))


def suppression_inputs(config: PostprocessConfig) -> dict[str, np.ndarray]:
    """Return the optional inputs of an exported graph.

    Args:
        config: thresholds; `max_candidates` is fixed in the graph.

    Returns:
        Name to (1,) array.
    """
    return {
        "score_threshold": np.array([exclusive_threshold(config.score_threshold)], np.float32),
        "iou_threshold": np.array([config.iou_threshold], np.float32),
        "max_heads": np.array([config.max_heads], np.int64),
    }

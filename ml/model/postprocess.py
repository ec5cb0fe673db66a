"""From raw outputs to the heads of each image, in that image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

from ml.imaging.boxes import nms_mask
from ml.imaging.letterbox import Letterbox
from ml.model.decode import decode
from ml.model.outputs import RawOutputs
from ml.records.config import StageConfig
from ml.records.heads import Heads


class PostprocessConfig(StageConfig):
    """Which predictions become heads; defaults are those of the published detector."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    """Heads below this score are dropped."""
    iou_threshold: float = Field(default=0.5, ge=0, le=1)
    """Of two heads that overlap by more than this the better one stays."""
    max_candidates: int = Field(default=1000, ge=1)
    """So many best anchors an image enter the suppression."""
    max_heads: int = Field(default=100, ge=1)
    """At most so many heads an image."""


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
    num_images, num_anchors = outputs.score_logits.shape
    if len(letterboxes) != num_images:
        raise ValueError(
            f"letterboxes: expected one for each of the {num_images} images, got {len(letterboxes)}"
        )
    count = min(config.max_candidates, num_anchors)
    logits = outputs.score_logits.float()
    # No image has more heads than its anchors above the threshold, so the batch's largest number
    # of those is enough.
    above = int((logits.sigmoid() >= config.score_threshold).sum(dim=1).max()) if num_images else 0
    indices = torch.argsort(logits, dim=1, descending=True, stable=True)[:, : min(count, above)]
    decoded = decode(outputs, indices)
    kept = nms_mask(decoded.boxes_xyxy, decoded.scores, config.iou_threshold)
    kept &= decoded.scores >= config.score_threshold
    results = []
    for i, letterbox in enumerate(letterboxes):
        rows = kept[i].nonzero()[: config.max_heads, 0]
        results.append(
            Heads(
                letterbox.boxes_to_image(decoded.boxes_xyxy[i, rows]).cpu().numpy(),
                decoded.scores[i, rows].cpu().numpy(),
                letterbox.flame_to_image(decoded.flame[i, rows]).cpu().numpy(),
            )
        )
    return results

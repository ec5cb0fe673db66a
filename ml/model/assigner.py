"""Task-aligned assignment: which anchors learn which head, and towards which score."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ml.imaging.boxes import box_iou
from ml.model.outputs import Anchors
from ml.model.targets import HeadTargets
from ml.records.config import StageConfig


class AssignerConfig(StageConfig):
    """Task-aligned assignment; defaults are the published ones."""

    top_k: int = Field(default=13, ge=1, le=10**9)
    """Maximum number of anchors per head."""
    score_power: float = Field(default=1.0, ge=0, le=1e6)
    """Alignment = score^score_power * IoU^iou_power."""
    iou_power: float = Field(default=6.0, ge=0, le=1e6)
    """See `score_power`."""


class Assignment(NamedTuple):
    """Target of each anchor.

    Attributes:
        target: (B, A) int64 row of `HeadTargets`, -1 for background.
        score: (B, A) float32 score to learn, in [0, 1]; 0 for background.
        ignored: (B, A) bool: no classification loss; centre in a head that is to be ignored.
    """

    target: Tensor
    score: Tensor
    ignored: Tensor


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes_xyxy: Tensor,
    anchors: Anchors,
    targets: HeadTargets,
    config: AssignerConfig,
) -> Assignment:
    """Assign anchors to heads for a whole batch at once.

    A head's candidates are the anchors with their centre strictly inside its box; the best `top_k`
    of them by alignment are its own. An anchor claimed by several heads goes to the one it overlaps
    most. The score to learn is the alignment, scaled so that a head's best anchor learns the head's
    best IoU. Heads to be ignored claim nothing.

    Args:
        scores: (B, A) predicted scores.
        boxes_xyxy: (B, A, 4) predicted boxes, network pixels.
        anchors: the anchors.
        targets: the batch's heads, network pixels.
        config: powers and number of anchors.

    Returns:
        The assignment; all background for an image without heads.

    Source: Feng et al., TOOD (2021); the published configuration.
    """
    num_images, num_anchors = scores.shape
    rows = _rows_by_image(targets, num_images)  # (B, M), -1 where there is no head
    if rows.shape[1] == 0:
        background = torch.full_like(scores, -1, dtype=torch.int64)
        zeros = torch.zeros_like(scores, dtype=torch.float32)
        return Assignment(background, zeros, torch.zeros_like(scores, dtype=torch.bool))

    present = rows >= 0
    heads = targets.boxes_xyxy[rows.clamp(min=0)]  # (B, M, 4)
    inside = _centres_inside(anchors.centres_px, heads) & present[..., None]  # (B, M, A)
    ignored_heads = targets.ignore[rows.clamp(min=0)]
    # Anchors in a head to be ignored are neither: no loss says "head" or "background".
    in_ignored = (inside & ignored_heads[..., None]).any(dim=1)
    inside &= ~ignored_heads[..., None]

    iou = box_iou(heads, boxes_xyxy.float())  # (B, M, A)
    # s^alpha u^beta
    alignment = scores.float()[:, None].pow(config.score_power) * iou.pow(config.iou_power)
    alignment = alignment * inside
    # The mask again: with fewer than top_k candidates, the largest values include zeros outside.
    claimed = _top_k_mask(alignment, min(config.top_k, num_anchors)) & inside
    # Several claims on one anchor: the head with the largest overlap wins.
    owner = torch.where(claimed, iou, -1.0).argmax(dim=1, keepdim=True)  # (B, 1, A)
    own = torch.zeros_like(claimed).scatter(1, owner, True) & claimed  # (B, M, A)

    alignment = alignment * own
    best_alignment = alignment.amax(dim=2, keepdim=True)  # (B, M, 1)
    best_iou = (iou * own).amax(dim=2, keepdim=True)  # (B, M, 1)
    # A head's best anchor learns its best IoU, the others in proportion; the sum over M has one
    # term, as an anchor has one owner. The clamp is for heads that no prediction overlaps.
    score = (alignment / best_alignment.clamp(min=torch.finfo(torch.float32).tiny) * best_iou).sum(
        dim=1
    )
    positive = own.any(dim=1)
    target = torch.where(positive, rows.gather(1, owner[:, 0]), -1)  # (B, A)
    return Assignment(target, score, in_ignored & ~positive)


def _rows_by_image(targets: HeadTargets, num_images: int) -> Tensor:
    """Return (B, M) rows of the targets in each image, -1 where an image has fewer than M."""
    index = targets.image_index
    counts = torch.bincount(index, minlength=num_images)
    if len(counts) > num_images:
        raise ValueError(
            f"targets.image_index: expected values below {num_images}, the number of images, got "
            f"{len(counts) - 1}; collate the targets in the order of the images"
        )
    most = int(counts.max()) if len(targets) else 0
    rows = torch.full((num_images, most), -1, dtype=torch.int64, device=index.device)
    # A target's column is its place among those of its image: its place in the sorted list less
    # where the image begins there.
    order = torch.argsort(index, stable=True)
    starts = counts.cumsum(0) - counts  # (B,)
    sorted_index = index[order]
    column = torch.arange(len(order), device=index.device) - starts[sorted_index]
    rows[sorted_index, column] = order
    return rows


def _centres_inside(centres_px: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Return (A, 2) centres strictly inside (B, M, 4) boxes: (B, M, A) bool."""
    x, y = centres_px.unbind(-1)
    left, top, right, bottom = boxes_xyxy[..., None].unbind(-2)  # (B, M, 1) each
    return (x > left) & (y > top) & (x < right) & (y < bottom)


def _top_k_mask(values: Tensor, k: int) -> Tensor:
    """Return a mask, true at the k largest values of the last dimension."""
    best = values.topk(k, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, best, True)

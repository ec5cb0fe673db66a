"""Dense supervision of RT-DETR's encoder during training; nothing of it is left at inference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.imaging.boxes import box_area, box_iou_pairs
from ml.model.assigner import AssignerConfig, Assignment, assign
from ml.model.losses import LossConfig, classification_loss
from ml.model.outputs import Anchors
from ml.model.targets import HeadTargets
from ml.records.heads import NUM_FLAME_PARAMETERS

_START_SCORE = 0.02
_BOX_WEIGHT = 2.5
_LOSSES = LossConfig(classification="varifocal")
# Distances are predicted around two cells: heads are mostly two to eight cells wide.
_CELLS = 2.0


class DenseSupervision(nn.Module):
    """A score and a box for every cell of the encoder's maps, each head assigned to many cells.

    One-to-one matching supervises one query a head, so a network from scratch gets a few positive
    examples an image and needs epochs to see anything. This branch assigns every head to a dozen
    cells with the detector's own task-aligned assignment, which trains backbone and encoder; the
    decoder then only has to learn which of the cells to keep.

    Source: the auxiliary one-to-many branch of RT-DETRv3 (Wang et al., 2024), with one convolution
    a scale instead of a whole head.
    """

    def __init__(self, hidden_size: int, input_size: int, num_maps: int = 3) -> None:
        """Make one convolution a map.

        Args:
            hidden_size: channels of the maps.
            input_size: side of the network's input, px.
            num_maps: number of maps.
        """
        super().__init__()
        self._input_size = input_size
        self.predict = nn.ModuleList(
            [_started(nn.Conv2d(hidden_size, 5, 1)) for _ in range(num_maps)]
        )

    def forward(self, maps: Sequence[Tensor], labels: Sequence[dict[str, Tensor]]) -> Tensor:
        """Return the loss of the branch.

        Args:
            maps: (B, C, H, W) float32 each, finest first.
            labels: per image `boxes` (N, 4) cxcywh as fractions of the side.

        Returns:
            Scalar: varifocal loss of the scores and GIoU loss of the boxes, over the sum of the
            scores to learn.
        """
        rows = [
            predict(m).flatten(2).transpose(1, 2)
            for predict, m in zip(self.predict, maps, strict=True)
        ]
        predicted = torch.cat(rows, dim=1)  # (B, A, 5): score logit and four distances
        strides = tuple(self._input_size // m.shape[-1] for m in maps)
        anchors = Anchors.of_maps(
            [(m.shape[-2], m.shape[-1]) for m in maps], strides, predicted.device
        )
        logits = predicted[..., 0]  # (B, A)
        # (B, A, 4) px, > 0
        distances = functional.softplus(predicted[..., 1:]) * _CELLS * anchors.strides[:, None]
        boxes = torch.cat(
            [anchors.centres_px - distances[..., :2], anchors.centres_px + distances[..., 2:]], -1
        )
        targets = box_targets(labels, self._input_size)
        found = assign(logits.sigmoid(), boxes, anchors, targets, AssignerConfig())
        scores = classification_loss(logits, found, _LOSSES)
        total = scores + _BOX_WEIGHT * _box_loss(boxes, targets, found)
        return total / found.score.sum().clamp(min=1)


def _started(layer: nn.Conv2d) -> nn.Conv2d:
    """Start with low scores: nearly all cells are background."""
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.bias[0] = math.log(_START_SCORE / (1 - _START_SCORE))  # logit of the initial score
    return layer


def box_targets(labels: Sequence[dict[str, Tensor]], input_size: int) -> HeadTargets:
    """Return labels of boxes alone as the assigner takes them.

    Args:
        labels: per image `boxes` (N, 4) cxcywh as fractions of the side.
        input_size: side of the network's input, px.

    Returns:
        The heads of all images; none has FLAME parameters.
    """
    boxes = torch.cat([label["boxes"] for label in labels]) * input_size
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    counts = torch.tensor([len(label["boxes"]) for label in labels], device=boxes.device)
    nothing = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return HeadTargets(
        torch.cat([centre - half, centre + half], dim=1),
        torch.zeros(len(boxes), NUM_FLAME_PARAMETERS, device=boxes.device),
        nothing,
        nothing,
        torch.repeat_interleave(torch.arange(len(labels), device=boxes.device), counts),
    )


def _box_loss(boxes: Tensor, targets: HeadTargets, found: Assignment) -> Tensor:
    """Return GIoU loss of the assigned cells, weighted by the scores they learn."""
    assigned = found.target >= 0  # (B, A)
    predicted, true = boxes[assigned], targets.boxes_xyxy[found.target[assigned]]
    iou = box_iou_pairs(predicted, true)
    # iou = common / union and union = areas - common
    union = (box_area(predicted) + box_area(true)) / (1 + iou)
    # corners of the hull: min of the upper left, max of the lower right
    low, high = torch.minimum(predicted, true), torch.maximum(predicted, true)
    hull = box_area(torch.cat([low[:, :2], high[:, 2:]], dim=1))
    # the fraction of the hull that neither box covers
    giou = iou - (hull - union) / hull.clamp(min=1e-7)
    return ((1 - giou) * found.score[assigned]).sum()

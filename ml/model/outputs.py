"""Network outputs before decoding, and the layout of raw FLAME values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ml.model.config import HeadConfig


@dataclass(frozen=True)
class Anchors:
    """The cells that predict: all of stride 8 first, then 16, then 32, each row by row.

    Attributes:
        centres_px: (A, 2) float32, x and y of the cells' centres, network pixels.
        strides: (A,) float32, side of the cells, pixels.
    """

    centres_px: Tensor
    strides: Tensor

    @staticmethod
    def of_maps(
        sizes: list[tuple[int, int]], strides: tuple[int, ...], device: torch.device
    ) -> Anchors:
        """Return anchors of feature maps.

        Args:
            sizes: height and width of each map.
            strides: stride of each map, pixels.
            device: where the tensors are made.

        Returns:
            The anchors; the first centre of stride 8 is (4, 4).
        """
        centres, sides = [], []
        for (height, width), stride in zip(sizes, strides, strict=True):
            y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
            x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            centres.append(torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2))
            sides.append(torch.full((height * width,), float(stride), device=device))
        return Anchors(torch.cat(centres), torch.cat(sides))


class TrainingOutputs(Protocol):
    """Interface of a batch's predictions to the loss."""

    @property
    def score_logits(self) -> Tensor:
        """(B, A)."""
        ...

    @property
    def box_logits(self) -> Tensor:
        """(B, A, 4, reg_max + 1), distances left, top, right, bottom."""
        ...

    @property
    def anchors(self) -> Anchors:
        """The A anchors."""
        ...

    @property
    def config(self) -> HeadConfig:
        """How to decode."""
        ...

    def flame_at(self, image: Tensor, anchor: Tensor, /) -> Tensor:
        """Return (N,) images, (N,) anchors -> (N, K) raw values as in `RawOutputs.flame`."""
        ...


@dataclass(frozen=True)
class RawOutputs:
    """Predictions of every anchor for a batch, not decoded.

    Attributes:
        score_logits: (B, A).
        box_logits: (B, A, 4, reg_max + 1), distances left, top, right, bottom.
        flame: (B, A, K) raw values, K = shape + expression coefficients + 3 jaw + 6 rotation
            + 3 translation + 1 scale, in this order.
        anchors: the anchors.
        config: how to decode.
    """

    score_logits: Tensor
    box_logits: Tensor
    flame: Tensor
    anchors: Anchors
    config: HeadConfig

    def flame_at(self, image: Tensor, anchor: Tensor, /) -> Tensor:
        """Return raw FLAME values of some anchors.

        Args:
            image: (N,) int64 image of each.
            anchor: (N,) int64.

        Returns:
            (N, K).
        """
        return self.flame[image, anchor]

"""Training targets of a batch: the labels of all heads as flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ml.records.heads import NUM_FLAME_PARAMETERS


@dataclass(frozen=True)
class HeadTargets:
    """The labelled heads of a batch; N counts the heads of all its images together.

    Attributes:
        boxes_xyxy: (N, 4) float32, network pixels.
        flame: (N, 413) float32, network pixels (see `ml.flame.params`); zeros where not valid.
        flame_valid: (N,) bool; False: only the head's box and class are targets.
        ignore: (N,) bool; True: hardly visible, neither a target nor background.
        image_index: (N,) int64, position of the head's image in the batch.
    """

    boxes_xyxy: Tensor
    flame: Tensor
    flame_valid: Tensor
    ignore: Tensor
    image_index: Tensor

    def __post_init__(self) -> None:
        """Check shapes and kinds once, here at the edge."""
        count = self.boxes_xyxy.shape[0]
        expected = {
            "boxes_xyxy": (self.boxes_xyxy, (count, 4), torch.float32),
            "flame": (self.flame, (count, NUM_FLAME_PARAMETERS), torch.float32),
            "flame_valid": (self.flame_valid, (count,), torch.bool),
            "ignore": (self.ignore, (count,), torch.bool),
            "image_index": (self.image_index, (count,), torch.int64),
        }
        for name, (tensor, shape, dtype) in expected.items():
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(
                    f"HeadTargets.{name}: expected {shape} {dtype}, got "
                    f"{tuple(tensor.shape)} {tensor.dtype}; every field holds one row a head"
                )

    def __len__(self) -> int:
        """Return the number of heads in the batch."""
        return self.boxes_xyxy.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> HeadTargets:
        """Return the same targets on another device."""
        return HeadTargets(
            *(t.to(device, non_blocking=non_blocking) for t in self._tensors()),
        )

    def pin_memory(self) -> HeadTargets:
        """Return the same targets in page-locked memory (called by torch's DataLoader)."""
        return HeadTargets(*(t.pin_memory() for t in self._tensors()))

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.boxes_xyxy, self.flame, self.flame_valid, self.ignore, self.image_index)

    @staticmethod
    def empty(device: torch.device | str = "cpu") -> HeadTargets:
        """Return targets of images without any head."""
        return HeadTargets(
            torch.zeros(0, 4, device=device),
            torch.zeros(0, NUM_FLAME_PARAMETERS, device=device),
            torch.zeros(0, dtype=torch.bool, device=device),
            torch.zeros(0, dtype=torch.bool, device=device),
            torch.zeros(0, dtype=torch.int64, device=device),
        )

    @staticmethod
    def of_image(
        boxes_xyxy: Tensor,
        flame: Tensor,
        flame_valid: Tensor | None = None,
        ignore: Tensor | None = None,
    ) -> HeadTargets:
        """Return targets of one image, to be joined by `collate`.

        Args:
            boxes_xyxy: (N, 4) float32, network pixels.
            flame: (N, 413) float32, network pixels.
            flame_valid: (N,) bool, all True if left out.
            ignore: (N,) bool, all False if left out.

        Returns:
            Targets whose `image_index` is 0.
        """
        count, device = boxes_xyxy.shape[0], boxes_xyxy.device
        if flame_valid is None:
            flame_valid = torch.ones(count, dtype=torch.bool, device=device)
        if ignore is None:
            ignore = torch.zeros(count, dtype=torch.bool, device=device)
        index = torch.zeros(count, dtype=torch.int64, device=device)
        return HeadTargets(boxes_xyxy, flame, flame_valid, ignore, index)

    @staticmethod
    def collate(per_image: Sequence[HeadTargets]) -> HeadTargets:
        """Join the targets of single images; entry i of the sequence gets image index i.

        Args:
            per_image: one `HeadTargets` an image, in batch order, empty ones included.

        Returns:
            The batch's targets, ordered by image.
        """
        if not per_image:
            return HeadTargets.empty()
        index = [torch.full_like(t.image_index, i) for i, t in enumerate(per_image)]
        return HeadTargets(
            torch.cat([t.boxes_xyxy for t in per_image]),
            torch.cat([t.flame for t in per_image]),
            torch.cat([t.flame_valid for t in per_image]),
            torch.cat([t.ignore for t in per_image]),
            torch.cat(index),
        )

"""Training data of the box detector: labelled images from COCO files and image shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ml.box_detection.base import Boxes, Image
from ml.box_detection.rtdetr import images_to_tensor
from ml.imaging.boxes import box_area, xywh_to_xyxy
from ml.imaging.letterbox import PADDING_VALUE, letterbox_image
from ml.labels.coco import CocoDataset
from ml.records.config import Fraction, NonNegative, StageConfig
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.workspace import Workspace
from ml.training.datamodule import EpochDataModule
from ml.training.determinism import SampleKey
from ml.training_data.augmentation import (
    AugmentConfig,
    change_look,
    head_outlines,
    random_similarity,
)
from ml.training_data.samples import HeadSamples, ShardImages

HEAD_LABEL = 0
"""The model's only class."""


class BoxLimits(StageConfig):
    """Which heads remain training targets after an augmentation cut or shrank them."""

    min_inside: Fraction = 0.35
    """Smallest fraction of a box inside the image."""
    min_side_px: NonNegative = 3.0
    """Smallest side of a box, network px."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with head boxes.

    Attributes:
        truth: the labels of exactly these images, in the same order.
        images: (H, W, 3) uint8 RGB each; need not be in memory.
    """

    truth: CocoDataset
    images: Sequence[Image]

    def __post_init__(self) -> None:
        """Compare lengths."""
        if len(self.images) != len(self.truth.images):
            raise ValueError(
                f"LabelledImages: {len(self.truth.images)} labelled, {len(self.images)} images"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sample_ids(self) -> list[str]:
        """Ids in order."""
        return [image.sample_id for image in self.truth.images]

    def boxes(self, index: int) -> tuple[Boxes, NDArray[np.bool_]]:
        """Return labels of one image.

        Args:
            index: position.

        Returns:
            (N, 4) xyxy image px, and (N,) whether the head is ignored.
        """
        labels = self.truth.boxes_of(self.truth.images[index].image_id)
        boxes = np.array([label.bbox_xywh for label in labels], np.float32).reshape(-1, 4)
        return xywh_to_xyxy(boxes), np.array([label.ignore for label in labels], bool)


def read_labelled_images(
    ws: Workspace, truth: CocoDataset, exclusions: Exclusions, cache_mb: int = 1024
) -> LabelledImages:
    """Find the images of a COCO file in their shards; each is decoded once, to find damage.

    Args:
        ws: the workspace.
        truth: labels; its images name shard and sample.
        exclusions: receives the images that cannot be read.
        cache_mb: memory for decoded images; beyond it they are decoded again each time.

    Returns:
        The readable images with their labels.

    Raises:
        FileNotFoundError: a shard does not exist.
    """
    # Shard by shard, each opened once; in this order images are excluded.
    ordered = sorted(truth.images, key=lambda image: image.shard)
    tars = {image.shard: ws.stage_dir("images") / f"{image.shard}.tar" for image in ordered}
    found = HeadSamples(
        [image.sample_id for image in ordered],
        [tars[image.shard] for image in ordered],
        {},
        cache_mb << 20,
    ).without_damaged(exclusions)
    readable_ids = set(found.sample_ids)
    images = tuple(image for image in truth.images if image.sample_id in readable_ids)
    kept = {image.image_id for image in images}
    readable = replace(
        truth, images=images, boxes=tuple(box for box in truth.boxes if box.image_id in kept)
    )
    return LabelledImages(readable, ShardImages(found.reordered([i.sample_id for i in images])))


@dataclass(frozen=True)
class BoxBatch:
    """Images of one batch and their heads.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        labels: per image `class_labels` (N,) int64 and `boxes` (N, 4) float32 cxcywh as fractions
            of the side.
        sample_ids: B ids.
    """

    images: Tensor
    labels: list[dict[str, Tensor]]
    sample_ids: list[str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> BoxBatch:
        """Return the same batch on another device.

        Args:
            device: where to.
            non_blocking: whether copies from page-locked memory may overlap with work.

        Returns:
            The moved batch.
        """
        labels = [
            {name: value.to(device, non_blocking=non_blocking) for name, value in label.items()}
            for label in self.labels
        ]
        return BoxBatch(self.images.to(device, non_blocking=non_blocking), labels, self.sample_ids)


Item = tuple[str, Image, Boxes]


class BoxDataset(Dataset[Item]):
    """Images and target boxes in network px; run seed, epoch and sample id decide the draw."""

    def __init__(
        self,
        samples: LabelledImages,
        input_size: int,
        limits: BoxLimits,
        seed: int,
        stage: str,
        augment: AugmentConfig | None,
    ) -> None:
        """Remember how to transform.

        Args:
            samples: labelled images.
            input_size: side of the network's square, px.
            limits: which boxes are targets.
            seed: the run's seed.
            stage: name of the training.
            augment: strengths; None letterboxes only.
        """
        self._samples = samples
        self._input_size = input_size
        self._limits = limits
        self._seed = seed
        self._stage = stage
        self._augment = augment

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: SampleKey) -> Item:
        sample_id = self._samples.truth.images[key.index].sample_id
        image, (boxes, ignore) = self._samples.images[key.index], self._samples.boxes(key.index)
        if self._augment is None:
            square, letterbox = letterbox_image(image, self._input_size)
            return sample_id, square, letterbox.boxes_to_network(boxes)[~ignore]
        rng = sample_rng(self._seed, f"{self._stage}/augment/{key.epoch}", sample_id)
        height, width = image.shape[:2]
        similarity = random_similarity(height, width, self._input_size, self._augment, rng)
        square = similarity.warp(image, self._input_size)
        # Boxes of a rotated image bound the rotated ellipse, not the rotated corners.
        moved = similarity.boxes(boxes, head_outlines(boxes, [None] * len(boxes)))
        clipped, is_target = select_targets(moved, ignore, self._input_size, self._limits)
        square = hide_non_targets(square, clipped, is_target)
        return sample_id, change_look(square, self._augment, rng), clipped[is_target]


def select_targets(
    boxes_xyxy: Boxes, ignore: NDArray[np.bool_], input_size: int, limits: BoxLimits
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Clip boxes to the square and decide which are training targets.

    Args:
        boxes_xyxy: (N, 4) network px, may leave the square.
        ignore: (N,) heads to ignore.
        input_size: side of the square, px.
        limits: limits of partly visible heads.

    Returns:
        (N, 4) clipped boxes and (N,) whether each is a target.
    """
    clipped = boxes_xyxy.clip(0, input_size)
    sides = clipped[:, 2:] - clipped[:, :2]
    enough = box_area(clipped) >= limits.min_inside * box_area(boxes_xyxy)
    large = sides.min(axis=1, initial=np.inf) >= limits.min_side_px
    return clipped, ~ignore & enough & large


def hide_non_targets(image: Image, boxes_xyxy: Boxes, is_target: NDArray[np.bool_]) -> Image:
    """Paint over heads that are neither targets nor background; RT-DETR's loss has no third case.

    Args:
        image: (S, S, 3) uint8 RGB.
        boxes_xyxy: (N, 4) boxes inside the image.
        is_target: (N,) False for heads to paint over; pixels in a target box are left alone.

    Returns:
        (S, S, 3) uint8; a copy if anything was painted.
    """
    if is_target.all():
        return image
    hidden, kept = (np.zeros(image.shape[:2], bool) for _ in range(2))
    for (x0, y0, x1, y1), target in zip(boxes_xyxy.tolist(), is_target, strict=True):
        rows = slice(int(np.floor(y0)), int(np.ceil(y1)))
        columns = slice(int(np.floor(x0)), int(np.ceil(x1)))
        (kept if target else hidden)[rows, columns] = True
    painted = image.copy()
    painted[hidden & ~kept] = PADDING_VALUE
    return painted


def collate(items: Sequence[Item], input_size: int) -> BoxBatch:
    """Join images to a batch.

    Args:
        items: id, (S, S, 3) uint8 image, (N, 4) boxes xyxy network px.
        input_size: S.

    Returns:
        The batch.
    """
    labels = []
    for _, _, boxes in items:
        fractions = torch.from_numpy(boxes / input_size)
        centre, size = (
            (fractions[:, :2] + fractions[:, 2:]) / 2,
            fractions[:, 2:] - fractions[:, :2],
        )
        labels.append(
            {
                "class_labels": torch.full((len(boxes),), HEAD_LABEL, dtype=torch.int64),
                "boxes": torch.cat([centre, size], dim=1).float(),
            }
        )
    images = images_to_tensor([image for _, image, _ in items])
    return BoxBatch(images, labels, [sample_id for sample_id, _, _ in items])


class BoxDataModule(EpochDataModule):
    """Augmented training batches, and the held-out images in order."""

    val_in_every_process = True

    def __init__(
        self,
        train: LabelledImages,
        val: LabelledImages,
        input_size: int,
        batch_size: int,
        augment: AugmentConfig,
        limits: BoxLimits,
        seed: int,
        stage: str,
    ) -> None:
        """Remember the images.

        Args:
            train: images to learn from.
            val: held-out images.
            input_size: side of the network's square, px.
            batch_size: images in a batch.
            augment: strengths for training.
            limits: which boxes are targets.
            seed: the run's seed.
            stage: name of the training.
        """
        super().__init__(seed, stage, batch_size)
        self._train, self._val = train, val
        self._input_size = input_size
        self._augment, self._limits = augment, limits

    def sample_ids(self, training: bool) -> Sequence[str]:
        """Return the ids of one split."""
        return (self._train if training else self._val).sample_ids

    def dataset(self, training: bool) -> BoxDataset:
        """Return one split in network px; held-out images are letterboxed only."""
        return BoxDataset(
            self._train if training else self._val,
            self._input_size,
            self._limits,
            self.seed,
            self.stage,
            self._augment if training else None,
        )

    def collate(self, items: Sequence[Item]) -> BoxBatch:
        """Join images to a batch, see `collate`."""
        return collate(items, self._input_size)

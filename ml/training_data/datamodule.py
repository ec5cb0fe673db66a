"""From labelled images to training batches: letterbox or augmentation, collation, loaders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ml.flame.frames import image_to_network
from ml.imaging.boxes import box_area
from ml.imaging.letterbox import letterbox_image
from ml.model.targets import HeadTargets
from ml.records.config import Count, Index, StageConfig
from ml.records.ids import sample_rng
from ml.records.shards import DamagedSample
from ml.training.datamodule import EpochDataModule
from ml.training.determinism import SampleKey, ShardWindows
from ml.training_data.augmentation import (
    AugmentConfig,
    change_look,
    random_similarity,
)
from ml.training_data.damage import Damage, DamageLog
from ml.training_data.labels import HeadLabels, LabelLimits
from ml.training_data.mosaic import MosaicConfig, MosaicPlanner
from ml.training_data.samples import HeadSample, HeadSamples
from ml.training_data.similarity import Mirror, Similarity


class LoaderConfig(StageConfig):
    """How batches are made."""

    image_size: Count = 640
    """Side of the network's square input, px; a multiple of 32."""
    train_window: Count | None = None
    """Side of the window around a head that training uses instead of the whole image, px; a
    multiple of 32; default: the whole image. Windows make epochs cheaper, but a network trained on
    windows of 128 of 192 px took large objects for heads (precision 0.66 in the demo)."""
    batch_size: Count = 16
    """Images in a batch."""
    num_workers: Index = 0
    """Processes that prepare batches; has no effect on the batches."""
    cache_mb: Index = 1024
    """Memory for decoded images. If all fit, they are decoded once before training; otherwise each
    that still fits is kept when it is read, and others are decoded each time. Those found damaged
    are excluded."""
    shuffle_shards: Count = 64
    """Shards read together: samples are shuffled within windows of this many shards, and the shards
    of a window are drawn again in each epoch. With no more shards than this, all samples are
    shuffled together."""
    mosaic: MosaicConfig = MosaicConfig()
    """Mosaics of windows around heads."""


@dataclass(frozen=True)
class HeadBatch:
    """Images of one batch and their heads.

    Attributes:
        images: (B, 3, S, S) uint8 RGB, channels last in memory.
        targets: heads of all images, network px.
        sample_ids: ids of the images.
        damaged: images that should have been in it and could not be read.
    """

    images: Tensor
    targets: HeadTargets
    sample_ids: tuple[str, ...]
    damaged: tuple[Damage, ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> HeadBatch:
        """Return the same batch on another device.

        Args:
            device: where to.
            non_blocking: whether copies from page-locked memory may overlap with work.

        Returns:
            The moved batch.
        """
        return HeadBatch(
            self.images.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.sample_ids,
            self.damaged,
        )

    def pin_memory(self) -> HeadBatch:
        """Return the same batch in page-locked memory.

        Returns:
            The pinned batch.
        """
        images, targets = self.images.pin_memory(), self.targets.pin_memory()
        return HeadBatch(images, targets, self.sample_ids, self.damaged)


Array = NDArray[np.float32]
Item = tuple[str, Tensor, HeadTargets]
"""A sample id, (S, S, 3) uint8 image and its targets."""


class NetworkSamples(Dataset[Item | Damage]):
    """Samples in the network's frame; random changes depend on run seed, epoch and sample id."""

    def __init__(
        self,
        samples: HeadSamples,
        image_size: int,
        limits: LabelLimits,
        seed: int,
        stage: str,
        augment: AugmentConfig | None = None,
        mirror: Mirror | None = None,
        window: int | None = None,
        mosaics: MosaicPlanner | None = None,
        mosaic_epochs: int = 0,
    ) -> None:
        """Remember how to transform.

        Args:
            samples: labelled images.
            image_size: side of the square, px.
            limits: which heads become ignored.
            seed: the run's seed.
            stage: name of the training.
            augment: strengths; None letterboxes only.
            mirror: the head model's mirror, needed for flips.
            window: side of the window around a head that is cut out when augmenting.
            mosaics: draws mosaics when augmenting.
            mosaic_epochs: the first epochs, which have mosaics.
        """
        self._mosaics = mosaics
        self._mosaic_epochs = mosaic_epochs
        self._samples = samples
        self._window = window or image_size
        self._image_size = image_size
        self._limits = limits
        self._seed = seed
        self._stage = stage
        self._augment = augment
        self._mirror = mirror

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, key: SampleKey) -> Item | Damage:
        try:
            return self._item(key)
        except DamagedSample as error:
            return Damage.of(error)

    def _item(self, key: SampleKey) -> Item:
        sample = self._samples[key.index]
        labels = sample.labels
        if self._augment is None:
            image, letterbox = letterbox_image(sample.image_rgb, self._image_size)
            boxes = letterbox.boxes_to_network(labels.boxes_xyxy)
            flame = image_to_network(labels.flame, letterbox)
            heads = self._seen(labels, boxes, flame, (0, 0), self._image_size)
            targets = _Heads.joined([heads])
        else:
            rng = sample_rng(self._seed, f"{self._stage}/augment/{key.epoch}", sample.sample_id)
            mosaics = self._mosaics if key.epoch < self._mosaic_epochs else None
            if mosaics and rng.random() < mosaics.probability:
                image, targets = self._mosaic(mosaics, self._augment, rng, key)
            else:
                image, targets = self._augmented(sample, self._augment, rng)
        return sample.sample_id, torch.from_numpy(np.ascontiguousarray(image)), targets

    def _augmented(
        self, sample: HeadSample, augment: AugmentConfig, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], HeadTargets]:
        """Return a whole image, or a window of it, moved and recoloured at random."""
        labels = sample.labels
        height, width = sample.image_rgb.shape[:2]
        focus = None
        if self._window < self._image_size:
            shown = labels.boxes_xyxy[~labels.ignore]
            focus = (shown[:, :2] + shown[:, 2:]) / 2
        moved = random_similarity(
            height, width, self._image_size, augment, rng, self._window, focus
        )
        image = change_look(moved.warp(sample.image_rgb, self._window), augment, rng)
        return image, _Heads.joined([self._moved(labels, moved, (0, 0), self._window)])

    def _mosaic(
        self,
        mosaics: MosaicPlanner,
        augment: AugmentConfig,
        rng: np.random.Generator,
        key: SampleKey,
    ) -> tuple[NDArray[np.uint8], HeadTargets]:
        """Return a mosaic of windows around heads, each augmented independently."""
        image = np.empty((self._image_size, self._image_size, 3), np.uint8)
        parts: list[_Heads] = []
        for cell in mosaics.draw(rng, key):
            sample = self._samples[cell.index]
            x, y = cell.origin
            window = change_look(cell.similarity.warp(sample.image_rgb, cell.side), augment, rng)
            image[y : y + cell.side, x : x + cell.side] = window
            moved = cell.similarity.then(x, y)
            parts.append(self._moved(sample.labels, moved, cell.origin, cell.side))
        return image, _Heads.joined(parts)

    def _moved(
        self, labels: HeadLabels, moved: Similarity, origin: tuple[int, int], side: int
    ) -> _Heads:
        """Return an image's heads in the square at `origin` that a similarity brings it to."""
        boxes = moved.boxes(labels.boxes_xyxy, labels.outlines)
        return self._seen(labels, boxes, moved.flame(labels.flame, self._mirror), origin, side)

    def _seen(
        self, labels: HeadLabels, boxes: Array, flame: Array, origin: tuple[int, int], side: int
    ) -> _Heads:
        """Clip boxes to a square, ignore heads that nearly left it, drop those that are gone."""
        low = np.array(origin * 2, np.float32)
        clipped = boxes.clip(low, low + side)
        area, inside = box_area(boxes), box_area(clipped)
        ignore = (
            labels.ignore
            | (inside < self._limits.min_inside * area)
            | (np.sqrt(inside) < self._limits.min_side_px)
        )
        flame[~labels.flame_valid] = 0
        there = inside > 1
        return _Heads(clipped[there], flame[there], labels.flame_valid[there], ignore[there])


class _Heads(NamedTuple):
    """Heads of a part of an image, as in `HeadTargets`."""

    boxes_xyxy: Array
    flame: Array
    flame_valid: NDArray[np.bool_]
    ignore: NDArray[np.bool_]

    @staticmethod
    def joined(parts: Sequence[_Heads]) -> HeadTargets:
        """Return the targets of the image that has these parts."""
        fields = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return HeadTargets.of_image(*(torch.from_numpy(array) for array in fields))


class HeadDataModule(EpochDataModule):
    """Training and validation loaders over labelled images."""

    def __init__(
        self,
        train: HeadSamples,
        val: HeadSamples,
        config: LoaderConfig,
        limits: LabelLimits,
        augment: AugmentConfig,
        seed: int,
        stage: str,
        mirror: Mirror | None = None,
        damage: DamageLog | None = None,
    ) -> None:
        """Remember the samples.

        Args:
            train: training samples.
            val: validation samples; never augmented.
            config: batches and loaders.
            limits: which heads are ignored.
            augment: strengths for training.
            seed: the run's seed.
            stage: name of the training.
            mirror: the head model's mirror, needed for flips.
            damage: receives the images that cannot be read.

        Raises:
            ValueError: flips are requested without a mirror.
        """
        super().__init__(seed, stage, config.batch_size, config.num_workers)
        if augment.flip > 0 and mirror is None:
            raise ValueError(
                f"{stage}: augment.flip is {augment.flip} but the head model has no mirror map; "
                "set augment.flip to 0"
            )
        self._train = train
        self._val = val
        self._config = config
        self._limits = limits
        self._augment = augment
        self._mirror = mirror
        self._damage = damage
        self.windows = ShardWindows(train.shards, seed, stage, config.shuffle_shards)

    def on_before_batch_transfer(self, batch: HeadBatch, dataloader_idx: int) -> HeadBatch:
        """Record unreadable samples; Lightning calls this with every batch.

        Args:
            batch: the batch.
            dataloader_idx: unused.

        Returns:
            The same batch.
        """
        if self._damage is not None:
            self._damage.note(batch.damaged)
        return batch

    def sample_ids(self, training: bool) -> Sequence[str]:
        """Return the ids of one split."""
        return (self._train if training else self._val).sample_ids

    def dataset(self, training: bool) -> NetworkSamples:
        """Return one split in the network's frame; only training samples are augmented."""
        config = self._config
        return NetworkSamples(
            self._train if training else self._val,
            config.image_size,
            self._limits,
            self.seed,
            self.stage,
            self._augment if training else None,
            self._mirror if training else None,
            config.train_window,
            self._mosaics() if training else None,
            self._mosaic_epochs(),
        )

    @staticmethod
    def collate(items: Sequence[Item | Damage]) -> HeadBatch:
        """Join samples to a batch; damaged ones are reported with it.

        Args:
            items: samples, and images that could not be read.

        Returns:
            The batch.

        Raises:
            ValueError: none of the images could be read.
        """
        damaged = tuple(item for item in items if isinstance(item, Damage))
        read = [item for item in items if not isinstance(item, Damage)]
        if not read:
            raise ValueError(
                f"none of the {len(items)} images of a batch could be read, the first: "
                f"{damaged[0].detail}; make their shards again with the stage images"
            )
        ids, images, targets = zip(*read, strict=True)
        pixels = torch.stack(images).permute(0, 3, 1, 2)
        return HeadBatch(pixels, HeadTargets.collate(targets), ids, damaged)

    def grid_items(self, count: int) -> list[NDArray[np.uint8]]:
        """Return the first validation images as the network sees them, for images.

        Args:
            count: largest number of images.

        Returns:
            (S, S, 3) uint8 RGB images.
        """
        items: list[NDArray[np.uint8]] = []
        for index in range(len(self._val)):
            if len(items) == count:
                break
            # A damaged one is written down when validation meets it.
            with suppress(DamagedSample):
                image = self._val[index].image_rgb
                items.append(letterbox_image(image, self._config.image_size)[0])
        return items

    def _mosaics(self) -> MosaicPlanner | None:
        config = self._config
        if not config.mosaic.probability:
            return None
        return MosaicPlanner(
            self._train, config.mosaic, self._augment, config.image_size, self.windows
        )

    def _mosaic_epochs(self) -> int:
        """Return the number of epochs with mosaics."""
        epochs = self.trainer.max_epochs or 0 if self.trainer else 0
        return max(epochs - self._config.mosaic.whole_epochs, 0)

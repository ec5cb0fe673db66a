"""Mosaics: training images put together from windows around heads of many images.

A whole image shows a network one or two heads and much background; a mosaic of the same size, and
so of the same cost, shows four or nine heads. YOLO trainings mix both, and so do ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ml.imaging.boxes import box_area
from ml.records.config import Count, Fraction, StageConfig
from ml.training.determinism import SampleKey, ShardWindows
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.labels import shown_heads
from ml.training_data.samples import HeadSamples
from ml.training_data.similarity import Similarity

Array = NDArray[np.float32]


class MosaicConfig(StageConfig):
    """Training images that are put together from windows around heads."""

    probability: float = Field(default=0.0, ge=0.0, le=1.0)
    """Fraction of training images that are mosaics."""
    cells: tuple[Count, ...] = (2, 3)
    """Number of windows along each side, drawn for every mosaic; each must divide the image's
    side."""
    head_fraction: tuple[Fraction, Fraction] = (0.3, 0.75)
    """Minimum and maximum side of the central head of a window, as a fraction of the window's side;
    log-uniform."""
    whole_epochs: int = Field(default=0, ge=0, le=10**9)
    """Final epochs without mosaics, so that training ends with images as in inference."""


@dataclass(frozen=True)
class Cell:
    """One window of a mosaic.

    Attributes:
        index: the sample it shows.
        similarity: from the sample's image to the window.
        origin: (x, y) of the window in the mosaic, px.
        side: of the window, px.
    """

    index: int
    similarity: Similarity
    origin: tuple[int, int]
    side: int


class MosaicPlanner:
    """Draws the windows of a mosaic."""

    def __init__(
        self,
        samples: HeadSamples,
        config: MosaicConfig,
        augment: AugmentConfig,
        image_size: int,
        windows: ShardWindows | None = None,
    ) -> None:
        """List the heads that a window may show.

        Args:
            samples: labelled images.
            config: cells and head sizes.
            augment: probabilities and strengths of flips, turns and shifts.
            image_size: side of the mosaic, px.
            windows: which shards are read together; a mosaic's images come from one of them.

        Raises:
            ValueError: the cells do not divide the side, or no sample has a head to show.
        """
        odd = [count for count in config.cells if count < 1 or image_size % count]
        if odd or not config.cells:
            raise ValueError(
                f"mosaic.cells: each must divide the image side of {image_size} px, got "
                f"{list(config.cells)}"
            )
        self._samples = samples
        self._indices, self._boxes = shown_heads(samples.labels, samples.sample_ids)
        self._windows = None if windows is None or windows.is_one else windows
        self._of_epoch: tuple[int, NDArray[np.int32], dict[int, NDArray[np.intp]]] | None = None
        if not len(self._indices):
            raise ValueError("mosaic: no training image has a head that is not ignored")
        self.probability = config.probability
        self._config = config
        self._augment = augment
        self._image_size = image_size

    def __len__(self) -> int:
        return len(self._indices)

    def draw(self, rng: np.random.Generator, key: SampleKey) -> Iterator[Cell]:
        """Draw a mosaic.

        Args:
            rng: source of randomness.
            key: the sample that it takes the place of.

        Yields:
            The windows, row by row.
        """
        count = int(rng.choice(np.asarray(self._config.cells)))
        side = self._image_size // count
        heads = self._near(key)
        for row in range(count):
            for column in range(count):
                head = int(rng.integers(len(self._indices) if heads is None else len(heads)))
                head = head if heads is None else int(heads[head])
                index, box = int(self._indices[head]), self._boxes[head]
                width = self._samples[index].image_rgb.shape[1]
                similarity = self._similarity(box, width, side, rng)
                yield Cell(index, similarity, (column * side, row * side), side)

    def _near(self, key: SampleKey) -> NDArray[np.intp] | None:
        """Return heads in shards that are read together with a sample's; None for all."""
        if self._windows is None:
            return None
        if self._of_epoch is None or self._of_epoch[0] != key.epoch:
            window = self._windows.of_epoch(key.epoch)
            of_head = window[self._indices]
            order = np.argsort(of_head, kind="stable")
            edges = np.flatnonzero(np.diff(of_head[order])) + 1  # where another group begins
            groups = {int(of_head[part[0]]): part for part in np.split(order, edges)}
            # Grouped once an epoch: a mosaic draws up to nine heads, and a search for each would
            # cost more than reading them.
            self._of_epoch = (key.epoch, window, groups)
        _, window, groups = self._of_epoch
        return groups.get(int(window[key.index]))

    def _similarity(
        self, box: NDArray[np.float64], width: int, side: int, rng: np.random.Generator
    ) -> Similarity:
        """Bring a head to the middle of a window, about."""
        augment = self._augment
        flip, turn = rng.random(2)
        angle, fraction, dx, dy = rng.uniform(-1, 1, 4)
        low, high = np.log(self._config.head_fraction)
        wanted = side * np.exp((low + high) / 2 + fraction * (high - low) / 2)
        zoom = float(wanted / np.sqrt(box_area(box)))  # px of the window per px of the image
        angle_rad = (
            float(np.deg2rad(augment.rotation_deg) * angle) if turn < augment.rotate else 0.0
        )
        centre = (box[:2] + box[2:]) / 2
        mirrored = flip < augment.flip
        if mirrored:
            centre[0] = width - centre[0]
        turned = Similarity(zoom, angle_rad).points(centre)
        shift = side / 2 + augment.shift * side * np.array([dx, dy]) - turned
        return Similarity(
            zoom, angle_rad, (float(shift[0]), float(shift[1])), float(width) if mirrored else None
        )

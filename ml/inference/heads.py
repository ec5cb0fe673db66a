"""The heads found in an image, with meshes and landmarks from the head model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.params import TRANSLATION, FlameParameters, split
from ml.records.heads import Heads

Array = np.ndarray


PARTS = ("face", "left_ear", "right_ear", "left_eyeball", "right_eyeball", "lips", "neck")
"""Parts of a head that results name where the head model knows them."""


class HeadShapes:
    """A head model made ready for meshes and for drawing; each part is built when first used."""

    def __init__(self, head_model: HeadModel) -> None:
        """Keep the head model."""
        self.head_model = head_model

    @cached_property
    def whole(self) -> HeadGeometry:
        """All 5,023 vertices."""
        return HeadGeometry(self.head_model, "all")

    @cached_property
    def drawn(self) -> HeadGeometry:
        """The region `head`, which images show."""
        return HeadGeometry(self.head_model, "head")


class DetectedHeads:
    """All heads of an image in one container, in that image's pixels.

    Results of the head model are computed once for all heads, on first use.
    """

    def __init__(self, heads: Heads, shapes: HeadShapes | None = None) -> None:
        """Keep the heads.

        Args:
            heads: boxes, scores and parameters.
            shapes: the head model of the parameters; without it there are no vertices.
        """
        self.raw = heads
        self._shapes = shapes

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Head]:
        return (Head(self, index) for index in range(len(self)))

    def __getitem__(self, index: int) -> Head:
        if not -len(self) <= index < len(self):
            raise IndexError(f"head {index}: there are {len(self)} heads")
        return Head(self, index % len(self))

    @property
    def boxes_xyxy(self) -> Array:
        """(N, 4) float32 px, within the image."""
        return self.raw.boxes_xyxy

    @property
    def scores(self) -> Array:
        """(N,) float32 in [0, 1], falling."""
        return self.raw.scores

    @property
    def flame(self) -> Array:
        """(N, 413) float32, image px, see `ml.flame.params`; translation and scale both."""
        return self.raw.flame

    @property
    def has_model(self) -> bool:
        """Whether there is a head model, hence vertices."""
        return self._shapes is not None

    @property
    def shapes(self) -> HeadShapes:
        """The head model.

        Raises:
            ValueError: the detector was made without one.
        """
        if self._shapes is None:
            raise ValueError(
                "heads: vertices, landmarks and drawings of them need the head model, and the "
                "detector was made without; pass head_model='.../head_model.npz' to HeadDetector"
            )
        return self._shapes

    @cached_property
    def vertices_px(self) -> Array:
        """(N, 5023, 3) float32 image px: x right, y down, z away from the camera."""
        return self.shapes.whole.vertices_xyz_px(self.flame)

    @cached_property
    def landmarks_px(self) -> Array:
        """(N, 68, 2) float32 image px, iBUG order."""
        return self.shapes.whole.landmarks_px(self.flame)

    @property
    def rotations(self) -> Array:
        """(N, 3, 3) float32, FLAME axes to image axes."""
        return HeadGeometry.rotations(self.flame)

    @property
    def euler_deg(self) -> Array:
        """(N, 3) float32 pitch, yaw, roll in degrees; a frontal head has 0, 0, 0."""
        return HeadGeometry.euler_deg(self.flame)

    @property
    def skull_centres_px(self) -> Array:
        """(N, 2) float32 image px: the point about which heads turn."""
        return self.flame[:, TRANSLATION.start : TRANSLATION.start + 2]

    def part_boxes(self, region: str) -> Array:
        """Return boxes around a part of each head, visible or not.

        Args:
            region: a region of the head model, such as face or left_ear.

        Returns:
            (N, 4) float32 xyxy, image px, not cut at the image's border.

        Raises:
            KeyError: there is no such region; the message lists those there are.
        """
        points = self.vertices_px[:, self.shapes.head_model.region(region), :2]
        return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


@dataclass(frozen=True)
class Head:
    """One head of a `DetectedHeads`."""

    heads: DetectedHeads
    index: int

    @property
    def box_xyxy(self) -> Array:
        """(4,) float32 px."""
        return self.heads.boxes_xyxy[self.index]

    @property
    def score(self) -> float:
        """In [0, 1]."""
        return float(self.heads.scores[self.index])

    @property
    def parameters(self) -> FlameParameters:
        """Shape, expression, jaw, rotation, translation (px) and scale (px per metre)."""
        return split(self.heads.flame[self.index])

    @property
    def vertices_px(self) -> Array:
        """(5023, 3) float32 image px."""
        return self.heads.vertices_px[self.index]

    @property
    def landmarks_px(self) -> Array:
        """(68, 2) float32 image px."""
        return self.heads.landmarks_px[self.index]

    @property
    def rotation(self) -> Array:
        """(3, 3) float32, FLAME axes to image axes."""
        return self.heads.rotations[self.index]

    @property
    def euler_deg(self) -> Array:
        """(3,) pitch, yaw, roll in degrees."""
        return self.heads.euler_deg[self.index]

    @property
    def skull_centre_px(self) -> Array:
        """(2,) float32 image px."""
        return self.heads.skull_centres_px[self.index]

"""What every estimator of 2D poses offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ml.poses.config import EstimatorConfig
from ml.poses.openpose import MIN_CONFIDENCE
from ml.poses.skeleton import NUM_KEYPOINTS, Person, PoseSample


@dataclass(frozen=True)
class FoundPeople:
    """The people of one image, in its pixels.

    Attributes:
        keypoints: (P, 17, 3) float32 x px, y px, confidence; COCO order.
        scores: (P,) float32 confidence that there is a person.
    """

    keypoints: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.keypoints.shape != (n, NUM_KEYPOINTS, 3) or self.scores.shape != (n,):
            raise ValueError(
                f"people: expected keypoints {(n, NUM_KEYPOINTS, 3)} and scores {(n,)}, got "
                f"{self.keypoints.shape} and {self.scores.shape}"
            )

    @staticmethod
    def none() -> FoundPeople:
        """Return no person."""
        return FoundPeople(np.zeros((0, NUM_KEYPOINTS, 3), np.float32), np.zeros(0, np.float32))


class PoseEstimator(Protocol):
    """Finds people and their 17 keypoints."""

    version: str
    """Names and hashes of its models, recorded with every pose."""

    def estimate(self, images_rgb: Sequence[np.ndarray]) -> list[FoundPeople]:
        """Find the people of some images.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image its people, most certain first.
        """
        ...

    def close(self) -> None:
        """Give back what the estimator holds."""
        ...


def to_pose(
    pose_id: str,
    split: str,
    found: FoundPeople,
    source_size: tuple[int, int],
    canvas: tuple[int, int],
    config: EstimatorConfig,
) -> PoseSample:
    """Return a pose from what was found in an image.

    Args:
        pose_id: id of the pose.
        split: train, val or test.
        found: people in the source's pixels.
        source_size: width and height of the source, px.
        canvas: width and height of the image to be made, px.
        config: how many keypoints make a person, how many persons a pose may have.

    Returns:
        The largest persons, nearest (largest) first; perhaps none.
    """
    stretch = np.array([canvas[0] / source_size[0], canvas[1] / source_size[1]], np.float32)
    people = []
    for keypoints in found.keypoints:
        moved = np.array(keypoints, np.float32)
        moved[:, :2] *= stretch
        moved[:, 2] = moved[:, 2].clip(0.0, 1.0)
        certain = moved[:, 2] >= MIN_CONFIDENCE
        if np.isfinite(moved).all() and certain.sum() >= config.min_keypoints:
            people.append((float(np.ptp(moved[certain, 1])), moved))
    people.sort(key=lambda item: -item[0])
    kept = [moved for _, moved in people[: config.max_people]]
    return PoseSample(
        pose_id,
        *canvas,
        split,
        tuple(
            Person(moved, None, None, None, None, depth, None) for depth, moved in enumerate(kept)
        ),
    )

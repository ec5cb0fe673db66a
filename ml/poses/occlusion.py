"""Which keypoints of an image are seen, and the confidences a pose estimator would give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ml.poses.figure import FACE_NORMALS, HEAD_RADIUS_M, Figure

_L_SHOULDER, _R_SHOULDER, _L_HIP, _R_HIP = 5, 6, 11, 12
# Two more points than COCO has: between the shoulders and between the hips.
_CHEST, _PELVIS = 17, 18
_LIMBS: Final = (
    # first joint, second joint, radius in metres
    (_L_SHOULDER, _L_HIP, 0.10),
    (_R_SHOULDER, _R_HIP, 0.10),
    (_CHEST, _PELVIS, 0.11),
    (_L_SHOULDER, _R_SHOULDER, 0.06),
    (_L_SHOULDER, 7, 0.045),
    (_R_SHOULDER, 8, 0.045),
    (7, 9, 0.04),
    (8, 10, 0.04),
    (_L_HIP, 13, 0.07),
    (_R_HIP, 14, 0.07),
    (13, 15, 0.05),
    (14, 16, 0.05),
)
_FIRST: Final = np.array([first for first, _, _ in _LIMBS])
_SECOND: Final = np.array([second for _, second, _ in _LIMBS])
_RADIUS_M: Final = np.array([radius_m for _, _, radius_m in _LIMBS])
_FACE_TURN_LIMIT: Final = np.array([0.15, 0.20, 0.20, 0.30, 0.30])
"""How far from the camera a face point's outward direction may turn before it is hidden."""
_SELF_MARGIN_M: Final = 0.05


@dataclass(frozen=True)
class PlacedFigure:
    """A figure in the image.

    Attributes:
        figure: The posed body.
        scale_px_per_m: Weak-perspective scale.
        shift_px: (2,) image position of the joints' origin.
        distance: Order from the camera; smaller is nearer. Only comparisons count.
    """

    figure: Figure
    scale_px_per_m: float
    shift_px: np.ndarray
    distance: float

    @property
    def points_px(self) -> np.ndarray:
        """(17, 2) joints in the image, px."""
        return self.scale_px_per_m * self.figure.joints_m[:, :2] + self.shift_px

    @property
    def head_px(self) -> np.ndarray:
        """(2,) head centre in the image, px."""
        return self.scale_px_per_m * self.figure.head_centre_m[:2] + self.shift_px

    @property
    def head_radius_px(self) -> float:
        """Radius of the head's disc, px."""
        return self.scale_px_per_m * HEAD_RADIUS_M


def covers(person: PlacedFigure, points_px: np.ndarray) -> np.ndarray:
    """Return which image points a body covers, its limbs taken as capsules and its head as a disc.

    Args:
        person: The covering body.
        points_px: (N, 2) image points.

    Returns:
        (N,) bool.
    """
    covered = np.linalg.norm(points_px - person.head_px, axis=1) < person.head_radius_px
    joints = _with_spine(person.points_px)
    distance, _ = _segment_distances(points_px, joints[_FIRST], joints[_SECOND])
    return covered | (distance < _RADIUS_M * person.scale_px_per_m).any(axis=1)


def hidden_fraction(person: PlacedFigure, nearer: list[PlacedFigure]) -> float:
    """Return the fraction of a head's disc that nearer bodies cover.

    Args:
        person: Whose head.
        nearer: Bodies in front of it.

    Returns:
        0 (free) to 1 (covered), from 21 points of the disc.
    """
    points = person.head_px + person.head_radius_px * _DISC
    covered = np.zeros(len(points), dtype=bool)
    for other in nearer:
        covered |= covers(other, points)
    return float(covered.mean())


def inside_fraction(person: PlacedFigure, width: int, height: int) -> float:
    """Return the fraction of a head's disc inside the image.

    Args:
        person: Whose head.
        width: Image width, px.
        height: Image height, px.

    Returns:
        0 (outside) to 1 (inside), from 21 points of the disc.
    """
    points = person.head_px + person.head_radius_px * _DISC
    return float(_is_inside(points, width, height).mean())


def confidences(
    people: list[PlacedFigure], width: int, height: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return keypoint confidences of all people in an image.

    Args:
        people: From the nearest to the farthest.
        width: Image width, px.
        height: Image height, px.
        rng: Source of the estimator's scatter.

    Returns:
        (17,) float32 for each person: 0 outside the image, about 0.02 to 0.28 hidden, 0.6 to 1
        seen.
    """
    result = []
    for index, person in enumerate(people):
        inside = _is_inside(person.points_px, width, height)
        hidden = _hidden_by_self(person)
        for other in people[:index]:
            hidden |= covers(other, person.points_px)
        seen_confidence = 1.0 - 0.4 * rng.beta(1.6, 5.0, len(hidden))
        hidden_confidence = rng.uniform(0.02, 0.28, len(hidden))
        confidence = np.where(hidden, hidden_confidence, seen_confidence) * inside
        result.append(confidence.astype(np.float32))
    return result


def _hidden_by_self(person: PlacedFigure) -> np.ndarray:
    """Return (17,) bool: behind the own body, or on the far side of the own head."""
    joints = person.figure.joints_m.astype(np.float64)
    hidden = np.zeros(len(joints), dtype=bool)
    turned = FACE_NORMALS @ person.figure.head_rotation.T.astype(np.float64)
    hidden[:5] = turned[:, 2] > _FACE_TURN_LIMIT
    behind_head = joints[:, 2] > person.figure.head_centre_m[2] + _SELF_MARGIN_M
    near_head = np.linalg.norm(joints[:, :2] - person.figure.head_centre_m[:2], axis=1)
    hidden[5:] |= (behind_head & (near_head < HEAD_RADIUS_M))[5:]
    ends = _with_spine(joints)
    first, second = ends[_FIRST], ends[_SECOND]
    distance, fraction = _segment_distances(joints[:, :2], first[:, :2], second[:, :2])
    limb_z = first[:, 2] + fraction * (second[:, 2] - first[:, 2])
    behind = joints[:, 2, None] > limb_z + _RADIUS_M * 0.5 + _SELF_MARGIN_M
    joint = np.arange(len(joints))[:, None]
    own = (joint == _FIRST) | (joint == _SECOND)
    return hidden | ((distance < _RADIUS_M) & behind & ~own).any(axis=1)


def _with_spine(joints: np.ndarray) -> np.ndarray:
    """Return (19, D) COCO joints, then the middle of the shoulders and of the hips."""
    chest, pelvis = joints[[5, 6]].mean(0), joints[[11, 12]].mean(0)
    return np.concatenate([joints, chest[None], pelvis[None]])


def _segment_distances(
    points: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, L) distances to segments, and positions of the nearest points on them, 0 to 1."""
    along = end - start
    offset = points[:, None] - start
    squared = np.maximum((along**2).sum(axis=-1), 1e-12)
    fraction = np.clip((offset * along).sum(axis=-1) / squared, 0.0, 1.0)
    return np.linalg.norm(offset - fraction[..., None] * along, axis=-1), fraction


def _is_inside(points_px: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.all((points_px >= 0) & (points_px < [width, height]), axis=1)


def _disc_points() -> np.ndarray:
    """Return (21, 2) points spread evenly over the unit disc (sunflower)."""
    index = np.arange(21)
    radius = np.sqrt((index + 0.5) / 21)
    angle = index * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


_DISC: Final = _disc_points()

"""Axes of a body from its COCO-17 joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.generation.renderer.meshes import cross
from ml.poses.skeleton import COCO_KEYPOINTS

_INDEX = {name: index for index, name in enumerate(COCO_KEYPOINTS)}


@dataclass(frozen=True)
class BodyFrame:
    """Joints by name and the axes of the trunk, metres, image axes.

    Attributes:
        joints: (17, 3) COCO joints.
        neck: (3,) middle of the shoulders.
        pelvis: (3,) middle of the hips.
        shoulder_side: unit vector from the right to the left shoulder.
        hip_side: unit vector from the right to the left hip.
        chest_front: unit vector out of the chest.
        hip_front: unit vector out of the belly.
        down: unit vector from neck to pelvis.
        neck_top: (3,) where the neck meets the skull.
        head_centre: (3,) FLAME's origin.
        size: body size relative to an adult of about 1.75 m.
    """

    joints: np.ndarray
    neck: np.ndarray
    pelvis: np.ndarray
    shoulder_side: np.ndarray
    hip_side: np.ndarray
    chest_front: np.ndarray
    hip_front: np.ndarray
    down: np.ndarray
    neck_top: np.ndarray
    head_centre: np.ndarray
    size: float

    def trunk_axes(self) -> np.ndarray:
        """Return (3, 3) columns: left, up along the neck and front, image axes."""
        up = unit(self.neck_top - self.neck)
        front = _across(self.chest_front, up)
        return np.stack([cross(up, front), up, front], axis=1)

    def joint(self, name: str) -> np.ndarray:
        """Return (3,) position of a COCO joint, metres."""
        return self.joints[_INDEX[name]]


def body_frame(
    joints_m: np.ndarray, head_centre_m: np.ndarray, head_rotation: np.ndarray
) -> BodyFrame:
    """Return axes of the trunk from a skeleton.

    Args:
        joints_m: (17, 3) COCO joints, metres.
        head_centre_m: (3,) FLAME's origin, metres.
        head_rotation: (3, 3) FLAME frame to image axes.

    Returns:
        The frame.
    """
    joints = np.asarray(joints_m, np.float64)
    left_shoulder, right_shoulder = joints[5], joints[6]
    left_hip, right_hip = joints[11], joints[12]
    neck, pelvis = 0.5 * (left_shoulder + right_shoulder), 0.5 * (left_hip + right_hip)
    down = unit(pelvis - neck)
    shoulder_side = _across(left_shoulder - right_shoulder, down)
    hip_side = _across(left_hip - right_hip, down)
    # Skull base: a little behind and below FLAME's origin, which is the skull's centre.
    neck_top = np.asarray(head_centre_m) + np.asarray(head_rotation) @ np.array(
        [0.0, -0.080, -0.022]
    )
    return BodyFrame(
        joints=joints,
        neck=neck,
        pelvis=pelvis,
        shoulder_side=shoulder_side,
        hip_side=hip_side,
        chest_front=cross(down, shoulder_side),
        hip_front=cross(down, hip_side),
        down=down,
        neck_top=neck_top,
        head_centre=np.asarray(head_centre_m, np.float64),
        size=float(np.clip(np.linalg.norm(pelvis - neck) / 0.50, 0.5, 1.3)),
    )


def _across(vector: np.ndarray, down: np.ndarray) -> np.ndarray:
    flat = vector - down * float(vector @ down)
    if np.linalg.norm(flat) < 1e-3:
        flat = cross(down, np.array([0.0, 0.0, 1.0]))
    return unit(flat)


def unit(vector: np.ndarray) -> np.ndarray:
    """Return the vector at length 1."""
    return vector / (np.linalg.norm(vector) + 1e-9)

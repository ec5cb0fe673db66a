"""Face boxes of head meshes, so that a head detector is scored on faces (paper, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

YAW_RULES: Mapping[str, float] = {"pi": 180.0, "half_pi": 90.0}
"""The paper drops a face when |yaw| passes a symbol that its text leaves unreadable. Read as pi,
nothing is ever dropped; read as pi / 2, what looks away from the camera is."""


def azimuth_deg(rotations: np.ndarray) -> np.ndarray:
    """Return the angle of heads away from the camera, about the vertical axis of the image.

    The Euler yaw of any rotation is within 90 degrees and could never pass a right angle, so this
    is the direction in which the face looks.

    Args:
        rotations: (N, 3, 3) FLAME axes to image axes.

    Returns:
        (N,) degrees in [-180, 180]: 0 towards the camera, negative towards the image's right,
        beyond 90 away from the camera.
    """
    forward = np.asarray(rotations, np.float64)[:, :, 2]
    return np.degrees(np.arctan2(-forward[:, 0], -forward[:, 2]))


def face_boxes(vertices_px: np.ndarray, face_index: np.ndarray) -> np.ndarray:
    """Return the smallest boxes around the face vertices of heads.

    Args:
        vertices_px: (N, V, 2 or 3) px.
        face_index: (F,) vertices of the face, such as FLAME's published 2,094.

    Returns:
        (N, 4) float64 xyxy px, not cut at the image's border.

    Raises:
        ValueError: an index is outside the mesh.
    """
    index = np.asarray(face_index, np.int64)
    if not len(index) or index.min() < 0 or index.max() >= vertices_px.shape[1]:
        raise ValueError(
            f"face vertices: expected indices below {vertices_px.shape[1]}, got "
            f"{len(index)} from {index.min(initial=0)} to {index.max(initial=0)}"
        )
    points = np.asarray(vertices_px, np.float64)[:, index, :2]
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def visible_faces(rotations: np.ndarray, rule: str = "half_pi") -> np.ndarray:
    """Return which heads show their face, under one reading of the paper.

    Args:
        rotations: (N, 3, 3) FLAME axes to image axes.
        rule: a key of `YAW_RULES`.

    Returns:
        (N,) bool.

    Raises:
        ValueError: there is no such rule.
    """
    if rule not in YAW_RULES:
        raise ValueError(f"yaw rule: expected one of {', '.join(YAW_RULES)}, got {rule!r}")
    return np.abs(azimuth_deg(rotations)) <= YAW_RULES[rule]

"""Conversion of head rotations and Euler angles from the conventions of other projects to ours.

Ours: a rotation takes FLAME axes (x to the head's left, y up, z out of the face) to image axes (x
right, y down, z away from the camera), so a frontal head is diag(1, -1, -1); pitch, yaw and roll
are those of `ml.flame.rotation.euler_deg_from_matrix`. With F = diag(1, -1, -1) and elementary
rotations X, Y, Z: R = F X(-pitch) Y(-yaw) Z(-roll). AFLW2000-3D, BIWI (after its transposition),
img2pose and 6DRepNet all print these same three angles; their matrices differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from ml.flame.rotation import FRONTAL, euler_deg_from_matrix, matrix_from_euler_deg


def _from_xyz(euler_deg: np.ndarray) -> np.ndarray:
    """Return scipy's extrinsic xyz angles of BIWI's matrix, as its .bin files hold them."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", euler_deg, degrees=True).as_matrix() @ FRONTAL


def _ours(euler_deg: np.ndarray) -> np.ndarray:
    return matrix_from_euler_deg(torch.as_tensor(euler_deg)).numpy()


EULER_CONVENTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "pitch_yaw_roll_deg": _ours,
    "pitch_yaw_roll_rad": lambda angles: _ours(np.degrees(angles)),
    "yaw_pitch_roll_deg": lambda angles: _ours(angles[:, [1, 0, 2]]),
    "biwi_bin_deg": _from_xyz,
}
"""Name -> (N, 3) angles as the convention writes them to (N, 3, 3) rotations as ours."""
ROTATION_CONVENTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "flame_to_image": lambda matrix: matrix,
    # a frontal head is the identity: BIWI's pose files, img2pose
    "camera": lambda matrix: matrix @ FRONTAL,
    # 300W-LP and 3DDFA: model axes to axes with y up and z to the viewer
    "3ddfa": lambda matrix: FRONTAL @ matrix,
    # Z(roll) Y(yaw) X(pitch)
    "6drepnet": lambda matrix: FRONTAL @ np.swapaxes(matrix, 1, 2),
}
"""Name -> (N, 3, 3) matrices as the convention writes them to ours."""


def rotations_from_euler(angles: np.ndarray, convention: str = "pitch_yaw_roll_deg") -> np.ndarray:
    """Return the rotation matrices of Euler angles.

    Args:
        angles: (N, 3) as the convention says.
        convention: a key of `EULER_CONVENTIONS`.

    Returns:
        (N, 3, 3) float64, FLAME axes to image axes.

    Raises:
        ValueError: no such convention.
    """
    return _named(EULER_CONVENTIONS, "euler_convention", convention)(
        np.asarray(angles, np.float64).reshape(-1, 3)
    )


def rotations_from_matrices(matrices: np.ndarray, convention: str = "flame_to_image") -> np.ndarray:
    """Return the rotation matrices of another convention as ours.

    Args:
        matrices: (N, 3, 3) as the convention says.
        convention: a key of `ROTATION_CONVENTIONS`.

    Returns:
        (N, 3, 3) float64, FLAME axes to image axes.

    Raises:
        ValueError: no such convention.
    """
    return _named(ROTATION_CONVENTIONS, "rotation_convention", convention)(
        np.asarray(matrices, np.float64).reshape(-1, 3, 3)
    )


def euler_from_rotations(rotations: np.ndarray) -> np.ndarray:
    """Return pitch, yaw, roll in degrees of rotations from FLAME axes to image axes.

    (N, 3) float64.
    """
    matrices = np.ascontiguousarray(rotations, np.float64).reshape(-1, 3, 3)
    return euler_deg_from_matrix(torch.as_tensor(matrices)).numpy()


def _named(
    known: Mapping[str, Callable[[np.ndarray], np.ndarray]], what: str, name: str
) -> Callable[[np.ndarray], np.ndarray]:
    if name not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {name!r}")
    return known[name]

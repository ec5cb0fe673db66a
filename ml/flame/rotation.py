"""Rotations in batched torch: 6D, matrices, Euler angles, axis-angle, geodesic distance."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FRONTAL = np.diag([1.0, -1.0, -1.0])
"""(3, 3) rotation of a head that faces the camera: FLAME axes to image axes."""
FRONTAL_6D = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""A head that faces the camera: the first two columns of diag(1, -1, -1)."""


def matrix_from_6d(rotation_6d: Tensor) -> Tensor:
    """Return rotation matrices whose first two columns are the orthonormalised halves of the input.

    Args:
        rotation_6d: (..., 6), two vectors one after the other, neither zero nor parallel.

    Returns:
        (..., 3, 3).

    Raises:
        ValueError: the last dimension is not 6.

    Source: Zhou et al. 2019, "On the continuity of rotation representations in neural networks".
    """
    _check(rotation_6d, (6,), "rotation_6d")
    first, second = rotation_6d[..., :3], rotation_6d[..., 3:]
    # Gram-Schmidt through cross products: z is normal to both halves, y completes a right-handed
    # frame. The length of `second` and its part along x have no influence.
    x = torch.nn.functional.normalize(first, dim=-1)
    z = torch.nn.functional.normalize(torch.linalg.cross(x, second, dim=-1), dim=-1)
    y = torch.linalg.cross(z, x, dim=-1)
    return torch.stack([x, y, z], dim=-1)  # columns


def sixd_from_matrix(matrix: Tensor) -> Tensor:
    """Return the first two columns of rotation matrices; the inverse of :func:`matrix_from_6d`.

    Args:
        matrix: (..., 3, 3).

    Returns:
        (..., 6).

    Raises:
        ValueError: the trailing dimensions are not 3 x 3.
    """
    _check(matrix, (3, 3), "matrix")
    return torch.cat([matrix[..., :, 0], matrix[..., :, 1]], dim=-1)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Return the rotation closest to a matrix; of a sum of rotations, their chordal mean.

    Args:
        matrix: (..., 3, 3), of rank 2 at least.

    Returns:
        (..., 3, 3) orthonormal, determinant 1.

    Raises:
        ValueError: the trailing dimensions are not 3 x 3.

    Source: Hartley et al. 2013, "Rotation averaging", section 5.3.
    """
    _check(matrix, (3, 3), "matrix")
    # U diag(1, 1, det(U V^T)) V^T: the last sign excludes reflections.
    u, _, vh = torch.linalg.svd(matrix)
    signs = torch.ones(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device)
    signs[..., 2] = torch.linalg.det(u @ vh).sign()
    return u * signs[..., None, :] @ vh  # scales the columns of u


def rodrigues(axis_angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return rotations less identity, and what their gradient needs.

    See :func:`rodrigues_gradient`.

    Not for automatic differentiation, which takes thrice the time of the closed form.

    Args:
        axis_angle: (..., 3) rad, axis times angle.

    Returns:
        (..., 3, 3) R - I, exact at zero; (..., 3, 3) the left Jacobian J: a change d of the vector
        turns R by J d from the left.

    Raises:
        ValueError: the last dimension is not 3.

    Source: Sola et al. 2018, "A micro Lie theory for state estimation in robotics", equation 145.
    """
    _check(axis_angle, (3,), "axis_angle")
    angle = torch.linalg.vector_norm(axis_angle, dim=-1)[..., None, None]
    # with x the angle: sin x / x and (1 - cos x) / x^2
    sine = torch.sinc(angle / torch.pi)
    cosine = torch.sinc(angle / (2 * torch.pi)).square_().mul_(0.5)
    # (1 - sin x / x) / x^2 loses its digits at small angles, where k2 is smaller still
    cubic = (1.0 - sine).div_(angle.square().clamp_(min=torch.finfo(angle.dtype).tiny))
    k = skew(axis_angle)
    k2 = k @ k  # (..., 3, 3)
    eye = torch.eye(3, dtype=k.dtype, device=k.device)
    # Rodrigues: R - I = sin x / x K + (1 - cos x) / x^2 K^2. Without the identity a small rotation
    # keeps the digits that float32 drops next to a 1.
    delta = (sine * k).addcmul_(cosine, k2)
    return delta, torch.addcmul(eye, cosine, k).addcmul_(cubic, k2)


def rodrigues_gradient(grad: Tensor, delta: Tensor, jacobian: Tensor) -> Tensor:
    """Return the gradient at axis-angle vectors from that at their matrices.

    Args:
        grad: (..., 3, 3) at the matrices.
        delta: (..., 3, 3) R - I, from :func:`rodrigues`.
        jacobian: (..., 3, 3) from :func:`rodrigues`.

    Returns:
        (..., 3).
    """
    # With R' = (I + [J d]) R, the change of the loss is <grad R^T, [J d]>; a skew matrix meets only
    # the antisymmetric part of grad R^T = grad + grad (R - I)^T.
    torque = _axial(grad + grad @ delta.transpose(-1, -2))
    return (torque[..., None, :] @ jacobian)[..., 0, :]


def skew(vector: Tensor) -> Tensor:
    """Return cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    rows = vector[..., None, :].expand(*vector.shape, 3)
    return torch.linalg.cross(eye.expand_as(rows), rows)


def _axial(matrix: Tensor) -> Tensor:
    """Return the vectors (..., 3) that :func:`skew` would turn into matrix - matrix transposed."""
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.cross(eye.expand_as(matrix), matrix.transpose(-1, -2)).sum(-2)


def geodesic_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle between two rotations, exact and differentiable near 0 and near pi.

    The arc cosine of the trace loses half the digits at both ends and has no gradient there; here
    the sine comes from the antisymmetric part, and both go into atan2, in float32 at least.

    Args:
        a: (..., 3, 3) rotation matrices.
        b: (..., 3, 3) rotation matrices, broadcast against a.

    Returns:
        (...) rad, 0 to pi.

    Raises:
        ValueError: the trailing dimensions are not 3 x 3.
    """
    _check(a, (3, 3), "a")
    _check(b, (3, 3), "b")
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    r = a.to(dtype).transpose(-1, -2) @ b.to(dtype)  # (..., 3, 3) relative rotation
    squared = _axial(r).square().sum(-1)  # (...) (2 sin angle)^2
    # the square root has no gradient at zero; there the distance is a minimum or a maximum anyway
    flat = squared < 1e-20
    sine = (
        # The inner `where` keeps the infinite derivative of sqrt(0) out of the graph: a NaN times
        # the outer zero would still be NaN.
        torch.where(flat, torch.zeros_like(squared), torch.where(flat, 1.0, squared).sqrt()) * 0.5
    )
    cosine = 0.5 * (r.diagonal(dim1=-2, dim2=-1).sum(-1) - 1.0)  # trace = 1 + 2 cos angle
    return torch.atan2(sine, cosine)


def euler_deg_from_matrix(matrix: Tensor) -> Tensor:
    """Return pitch, yaw and roll of a head.

    A frontal head, diag(1, -1, -1), has (0, 0, 0). Pitch < 0 looks down, yaw < 0 turns the nose to
    the right of the image, roll < 0 is the image turned anticlockwise.

    Args:
        matrix: (..., 3, 3) FLAME axes to image axes.

    Returns:
        (..., 3) pitch, yaw, roll in degrees, within [-180, 180]; at |yaw| = 90 roll is 0.

    Raises:
        ValueError: the trailing dimensions are not 3 x 3.
    """
    _check(matrix, (3, 3), "matrix")
    # The transposed matrix is Rz(roll) Ry(yaw) Rx(pitch).
    m = matrix.transpose(-1, -2)
    cos_yaw = torch.hypot(m[..., 0, 0], m[..., 1, 0])  # >= 0, so |yaw| <= 90
    yaw = torch.atan2(-m[..., 2, 0], cos_yaw)
    locked = cos_yaw < 1e-6  # gimbal lock: pitch and roll turn about one axis
    pitch = torch.where(
        locked, torch.atan2(-m[..., 1, 2], m[..., 1, 1]), torch.atan2(m[..., 2, 1], m[..., 2, 2])
    )
    roll = torch.where(locked, torch.zeros_like(yaw), torch.atan2(m[..., 1, 0], m[..., 0, 0]))
    angles = torch.rad2deg(torch.stack([pitch, yaw, roll], dim=-1))
    # A frontal head is half a turn about x away from the identity: FLAME's y points up.
    offset = angles.new_tensor([180.0, 0.0, 0.0])
    return wrap_deg(angles - offset)


def matrix_from_euler_deg(euler_deg: Tensor) -> Tensor:
    """Return rotation matrices from pitch, yaw, roll; the inverse of :func:`euler_deg_from_matrix`.

    Args:
        euler_deg: (..., 3) pitch, yaw, roll in degrees.

    Returns:
        (..., 3, 3) FLAME axes to image axes.

    Raises:
        ValueError: the last dimension is not 3.
    """
    _check(euler_deg, (3,), "euler_deg")
    offset = euler_deg.new_tensor([180.0, 0.0, 0.0])
    x, y, z = torch.deg2rad(euler_deg + offset).unbind(-1)
    cx, sx, cy, sy, cz, sz = x.cos(), x.sin(), y.cos(), y.sin(), z.cos(), z.sin()
    # (Rz Ry Rx)^T, row by row.
    rows = [
        cz * cy, sz * cy, -sy,
        cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx,
        cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx,
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def wrap_deg(angle_deg: Tensor) -> Tensor:
    """Return angles brought into [-180, 180), degrees."""
    return torch.remainder(angle_deg + 180.0, 360.0) - 180.0


def _check(tensor: Tensor, trailing: tuple[int, ...], name: str) -> None:
    if tuple(tensor.shape[-len(trailing) :]) != trailing:
        wanted = " x ".join(map(str, trailing))
        raise ValueError(
            f"{name}: trailing dimensions must be {wanted}, got shape {tuple(tensor.shape)}"
        )

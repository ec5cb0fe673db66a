"""Weak-perspective projection, and the 413 parameters under changes of the image frame."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ml.flame.params import EXPRESSION, JAW, ROTATION, SCALE, SHAPE, TRANSLATION, check_flame, split
from ml.flame.rotation import matrix_from_6d, nearest_rotation, sixd_from_matrix

MIN_SCALE = 1e-8


class MirrorMaps(Protocol):
    """Properties of a head model that mirroring needs."""

    @property
    def mirror_shape(self) -> object:
        """Signs (300,) or matrix (300, 300) for the shape coefficients."""

    @property
    def mirror_expression(self) -> object:
        """Signs (100,) or matrix (100, 100) for the expression coefficients."""


def project(vertices_m: Tensor, rotation: Tensor, translation_px: Tensor, scale: Tensor) -> Tensor:
    """Project head vertices by weak perspective, P = s R v + t.

    Args:
        vertices_m: (..., V, 3) FLAME frame, metres.
        rotation: (..., 3, 3) FLAME axes to image axes.
        translation_px: (..., 3) pixels; z is never supervised.
        scale: (..., 1) pixels per metre; clamped to at least 1e-8.

    Returns:
        (..., V, 3) image frame, pixels, x right, y down, z away from the camera.

    Raises:
        ValueError: a trailing dimension does not fit.

    Source: paper 4.1.
    """
    scaled_rotation = _scaled_rotation(vertices_m, rotation, translation_px, scale)
    # (..., V, 3)
    return vertices_m @ scaled_rotation.transpose(-1, -2) + translation_px[..., None, :]


def project_xy(
    vertices_m: Tensor, rotation: Tensor, translation_px: Tensor, scale: Tensor
) -> Tensor:
    """Return the result of :func:`project` without depth; for losses.

    Args:
        vertices_m: (..., V, 3) FLAME frame, metres.
        rotation: (..., 3, 3) FLAME axes to image axes.
        translation_px: (..., 3) pixels.
        scale: (..., 1) pixels per metre; clamped to at least 1e-8.

    Returns:
        (..., V, 2) image frame, pixels, x right, y down; a transposed view of (..., 2, V) memory,
        laid out as the result of :class:`ml.flame.layer.FlameLayer` is, which saves copies.

    Raises:
        ValueError: a trailing dimension does not fit.

    Source: paper 4.1.
    """
    # Two rows of the rotation suffice, a third less work; (..., 2, 3).
    scaled_rotation = _scaled_rotation(vertices_m, rotation, translation_px, scale)[..., :2, :]
    # (..., 2, V)
    points = scaled_rotation @ vertices_m.transpose(-1, -2) + translation_px[..., :2, None]
    return points.transpose(-1, -2)


def _scaled_rotation(
    vertices_m: Tensor, rotation: Tensor, translation_px: Tensor, scale: Tensor
) -> Tensor:
    for name, tensor, size in (
        ("vertices_m", vertices_m, (3,)),
        ("rotation", rotation, (3, 3)),
        ("translation_px", translation_px, (3,)),
        ("scale", scale, (1,)),
    ):
        if tuple(tensor.shape[-len(size) :]) != size:
            raise ValueError(f"project: {name} must end in {size}, got shape {tuple(tensor.shape)}")
    return scale.clamp_min(MIN_SCALE)[..., None] * rotation


def project_flame(vertices_m: Tensor, flame: Tensor) -> Tensor:
    """Project vertices with the rotation, translation and scale of 413 parameters.

    Args:
        vertices_m: (..., V, 3) FLAME frame, metres, from :class:`ml.flame.layer.FlameLayer`.
        flame: (..., 413) image frame.

    Returns:
        (..., V, 3) image frame, pixels.

    Raises:
        ValueError: a trailing dimension does not fit.
    """
    parts = split(flame)
    return project(vertices_m, matrix_from_6d(parts.rotation), parts.translation, parts.scale)


def transform_flame(flame: Tensor, factor: Tensor | float, shift_px: Tensor) -> Tensor:
    """Apply a change of frame x_out = factor * x + shift (resize, crop, letterbox, or inverse).

    Args:
        flame: (..., 413) old frame.
        factor: new pixels per old pixel, > 0; a number or (...) tensor.
        shift_px: (2,) or (..., 2), new-frame pixels.

    Returns:
        (..., 413) new frame; rotation, shape, expression and jaw are untouched.

    Raises:
        ValueError: the last dimension of flame is not 413 or that of shift_px not 2.
    """
    check_flame(flame)
    if shift_px.shape[-1:] != (2,):
        raise ValueError(f"transform_flame: shift_px must end in 2, got {tuple(shift_px.shape)}")
    ratio = torch.as_tensor(factor, dtype=flame.dtype, device=flame.device)  # () or (...)
    if ratio.ndim:
        ratio = ratio[..., None]  # (..., 1)
    out = flame.clone()
    # P = s R v + t: a similarity scales s and t alike and shifts t alone; z has no shift.
    out[..., TRANSLATION] = out[..., TRANSLATION] * ratio
    out[..., TRANSLATION.start : TRANSLATION.start + 2] += shift_px
    out[..., SCALE] = out[..., SCALE] * ratio
    return out


def mirror_flame(flame: Tensor, width_px: float, maps: MirrorMaps) -> Tensor:
    """Return parameters of the head in the horizontally mirrored image, x_out = width - x.

    Vertex i of the result is the mirrored vertex ``maps.mirror_vertices[i]`` of the input. With the
    open head this is exact, twice gives the input back bit by bit in everything but rounding
    of the translation.

    Args:
        flame: (..., 413) image frame.
        width_px: image width, pixels.
        maps: a head model; its mirror_shape (300, 300) and mirror_expression (100, 100) take row
            vectors of coefficients to those of the mirrored head.

    Returns:
        (..., 413) frame of the mirrored image.

    Raises:
        ValueError: the last dimension is not 413.
    """
    check_flame(flame)
    out = flame.clone()
    out[..., SHAPE] = _mirror_coefficients(flame[..., SHAPE], maps.mirror_shape)
    out[..., EXPRESSION] = _mirror_coefficients(flame[..., EXPRESSION], maps.mirror_expression)
    # with S = diag(-1, 1, 1) the rotation becomes S R S
    # An axis-angle vector is axial: S a S negates its y and z, not its x.
    out[..., JAW] = flame[..., JAW] * flame.new_tensor([1.0, -1.0, -1.0])
    # The two columns of S R S: of the first, y and z change sign; of the second, x does.
    signs = flame.new_tensor([1.0, -1.0, -1.0, -1.0, 1.0, 1.0])
    out[..., ROTATION] = flame[..., ROTATION] * signs
    out[..., TRANSLATION.start] = width_px - flame[..., TRANSLATION.start]
    return out


def mean_flame(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean of two estimates of the same heads.

    Of the rotations, the nearest to their sum.

    Args:
        first: (..., 413).
        second: (..., 413), same frame.

    Returns:
        (..., 413), same frame.

    Raises:
        ValueError: the last dimension is not 413.
    """
    check_flame(first)
    check_flame(second)
    mean = (first + second) / 2
    # A mean of 6D vectors depends on their order of columns; the chordal mean does not.
    total = matrix_from_6d(first[..., ROTATION]) + matrix_from_6d(second[..., ROTATION])
    mean[..., ROTATION] = sixd_from_matrix(nearest_rotation(total))
    return mean


def _mirror_coefficients(coefficients: Tensor, matrix: object) -> Tensor:
    table = torch.as_tensor(matrix, dtype=coefficients.dtype, device=coefficients.device)
    return coefficients * table if table.ndim == 1 else coefficients @ table  # (..., K)

"""The 413 parameters of a head: names, slices, splitting and joining. Image frame, pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ml.records.flame_layout import EXPRESSION as EXPRESSION
from ml.records.flame_layout import JAW as JAW
from ml.records.flame_layout import LAYOUT as LAYOUT
from ml.records.flame_layout import NUM_FLAME_PARAMETERS
from ml.records.flame_layout import ROTATION as ROTATION
from ml.records.flame_layout import SCALE as SCALE
from ml.records.flame_layout import SHAPE as SHAPE
from ml.records.flame_layout import SHIFT_XY as SHIFT_XY
from ml.records.flame_layout import SHIFT_Z as SHIFT_Z
from ml.records.flame_layout import TRANSLATION as TRANSLATION

NUM_SHAPE = 300
NUM_EXPRESSION = 100
NUM_PARAMETERS = NUM_FLAME_PARAMETERS


class FlameParameters(NamedTuple):
    """The parts of the 413 vector, tensors or arrays with the same leading dimensions."""

    shape: Any
    expression: Any
    jaw: Any
    rotation: Any
    translation: Any
    scale: Any


_SIZES = FlameParameters(300, 100, 3, 6, 3, 1)


def check_flame(flame: Tensor | np.ndarray, name: str = "flame") -> None:
    """Check that the last dimension is 413.

    Args:
        flame: (..., 413).
        name: for the error message.

    Raises:
        ValueError: the last dimension differs.
    """
    if flame.ndim == 0 or flame.shape[-1] != NUM_PARAMETERS:
        raise ValueError(
            f"{name}: last dimension must be {NUM_PARAMETERS} ({LAYOUT}), got {tuple(flame.shape)}"
        )


def split(flame: Tensor | np.ndarray) -> FlameParameters:
    """Return views of the parts of 413 vectors.

    Args:
        flame: (..., 413) image frame.

    Returns:
        views: shape (..., 300), expression (..., 100), jaw (..., 3), rotation (..., 6),
        translation (..., 3), scale (..., 1).

    Raises:
        ValueError: the last dimension is not 413.
    """
    check_flame(flame)
    parts = (SHAPE, EXPRESSION, JAW, ROTATION, TRANSLATION, SCALE)
    return FlameParameters(*(flame[..., part] for part in parts))


def join(parameters: FlameParameters) -> Any:
    """Put the parts together; the inverse of :func:`split`.

    Shape and expression may have fewer coefficients than the vector: the rest is zero.

    Args:
        parameters: all tensors or all arrays, with equal leading dimensions.

    Returns:
        (..., 413), of the type of the parts.

    Raises:
        ValueError: a part has too many numbers (shape, expression) or the wrong number of them.
    """
    parts = []
    for name, part, size in zip(FlameParameters._fields, parameters, _SIZES, strict=True):
        given = part.shape[-1] if part.ndim else 0
        if given > size or (given < size and name not in ("shape", "expression")):
            raise ValueError(
                f"flame {name}: last dimension must be {size}, got {tuple(part.shape)}"
            )
        parts.append(part if given == size else _pad(part, size - given))
    if isinstance(parts[0], Tensor):
        return torch.cat(parts, dim=-1)
    return np.concatenate(parts, axis=-1)


def _pad(part: Any, count: int) -> Any:
    if isinstance(part, Tensor):
        return torch.cat([part, part.new_zeros(*part.shape[:-1], count)], dim=-1)
    return np.concatenate([part, np.zeros((*part.shape[:-1], count), part.dtype)], axis=-1)

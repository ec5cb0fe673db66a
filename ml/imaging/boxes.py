"""Box geometry and non-maximum suppression: one implementation, for torch and numpy alike.

Boxes are `xyxy` (left, top, right, bottom) or `xywh` (left, top, width, height), any unit. Every
function takes tensors or numpy arrays (positionally) and answers in kind.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

ArrayT = TypeVar("ArrayT", np.ndarray, Tensor)
P = ParamSpec("P")

_EPS = 1e-7


def _one_array(
    function: Callable[Concatenate[Tensor, P], Tensor],
) -> Callable[Concatenate[ArrayT, P], ArrayT]:
    """Let a function of one tensor take a numpy array too."""

    @functools.wraps(function)
    def adapted(boxes: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        if isinstance(boxes, Tensor):
            return function(boxes, *args, **kwargs)
        return function(torch.as_tensor(np.ascontiguousarray(boxes)), *args, **kwargs).numpy()

    return adapted


def _two_arrays(
    function: Callable[Concatenate[Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[ArrayT, ArrayT, P], ArrayT]:
    """Let a function of two tensors take numpy arrays too."""

    @functools.wraps(function)
    def adapted(first: Any, second: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        if isinstance(first, Tensor):
            return function(first, second, *args, **kwargs)
        tensors = [torch.as_tensor(np.ascontiguousarray(a)) for a in (first, second)]
        return function(tensors[0], tensors[1], *args, **kwargs).numpy()

    return adapted


@_one_array
def xyxy_to_xywh(boxes_xyxy: Tensor) -> Tensor:
    """Convert corners to corner and size.

    Args:
        boxes_xyxy: (..., 4).

    Returns:
        (..., 4) xywh.
    """
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([low, high - low], dim=-1)


@_one_array
def xywh_to_xyxy(boxes_xywh: Tensor) -> Tensor:
    """Convert corner and size to corners.

    Args:
        boxes_xywh: (..., 4).

    Returns:
        (..., 4) xyxy.
    """
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return torch.cat([low, low + size], dim=-1)


@_one_array
def box_area(boxes_xyxy: Tensor) -> Tensor:
    """Return areas; 0 for a box whose sides are crossed.

    Args:
        boxes_xyxy: (..., 4).

    Returns:
        (...).
    """
    return _product((boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0))


@_two_arrays
def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of every box with every other.

    Args:
        first: (..., N, 4) xyxy.
        second: (..., M, 4) xyxy, same leading dimensions.

    Returns:
        (..., N, M) in [0, 1]; 0 where both are empty.
    """
    common = _intersection(first[..., :, None, :], second[..., None, :, :])
    union = box_area(first)[..., :, None] + box_area(second)[..., None, :] - common
    return common / union.clamp(min=_EPS)


@_two_arrays
def box_iou_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of boxes with their partners.

    Args:
        first: (..., 4) xyxy.
        second: (..., 4) xyxy, same shape.

    Returns:
        (...) in [0, 1].
    """
    common = _intersection(first, second)
    return common / (box_area(first) + box_area(second) - common).clamp(min=_EPS)


@_two_arrays
def box_ciou_pairs(first: Tensor, second: Tensor) -> Tensor:
    """Complete IoU of boxes with their partners: IoU less centre distance and difference of aspect.

    The weight of the aspect term carries no gradient.

    Args:
        first: (..., 4) xyxy.
        second: (..., 4) xyxy, same shape.

    Returns:
        (...) at most 1; the loss is 1 minus this.

    Source: Zheng et al., Enhancing Geometric Factors in Model Learning and Inference (2020).
    """
    iou = box_iou_pairs(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    diagonal = (high - low).square().sum(dim=-1).clamp(min=_EPS)
    centres = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    distance = centres.square().sum(dim=-1) / diagonal
    aspect = (4 / math.pi**2) * (_aspect_angle(second) - _aspect_angle(first)).square()
    with torch.no_grad():
        weight = aspect / ((1 - iou) + aspect).clamp(min=_EPS)
    return iou - distance - weight * aspect


@_one_array
def clip_boxes(boxes_xyxy: Tensor, width: float, height: float) -> Tensor:
    """Cut boxes at the borders of an image.

    Args:
        boxes_xyxy: (..., 4) pixels.
        width: image width, pixels.
        height: image height, pixels.

    Returns:
        (..., 4) xyxy inside (0, 0, width, height).
    """
    x = boxes_xyxy[..., 0::2].clamp(0, width)
    y = boxes_xyxy[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


@_one_array
def ellipse_boxes(ellipses: Tensor) -> Tensor:
    """Boxes around ellipses.

    Args:
        ellipses: (..., 5) half axes a, b, angle of a to the x axis (rad), centre x, y.

    Returns:
        (..., 4) xyxy, touched by the ellipse on all sides.
    """
    a, b, angle, x, y = ellipses.unbind(-1)
    half_width = torch.hypot(a * angle.cos(), b * angle.sin())
    half_height = torch.hypot(a * angle.sin(), b * angle.cos())
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


@_one_array
def expand_boxes(boxes_xyxy: Tensor, fraction: float) -> Tensor:
    """Move every side outwards by a fraction of the box's width or height; nothing is clipped.

    Args:
        boxes_xyxy: (..., 4).
        fraction: 0.25 makes a box half as wide and half as high again.

    Returns:
        (..., 4) xyxy.
    """
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    margin = fraction * (high - low)
    return torch.cat([low - margin, high + margin], dim=-1)


def nms_mask(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Suppress non-maxima greedily, many images at once.

    A box is kept if no better kept box overlaps it by more than the threshold; of equal scores the
    first is the better. That rule is iterated from "all are kept" until nothing changes, which
    gives the result of the greedy loop: after n rounds the n best boxes are settled.

    Args:
        boxes_xyxy: (..., N, 4).
        scores: (..., N).
        iou_threshold: overlaps above it suppress.

    Returns:
        (..., N) bool, True where kept, in the order of the input.
    """
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    ranked = torch.gather(boxes_xyxy, -2, order[..., None].expand_as(boxes_xyxy))
    overlaps = (box_iou(ranked, ranked) > iou_threshold).tril(diagonal=-1)
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        settled = ~(overlaps & kept[..., None, :]).any(dim=-1)
        if torch.equal(settled, kept):
            break
        kept = settled
    return torch.zeros_like(kept).scatter(-1, order, kept)


@_two_arrays
def nms(
    boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float, max_output: int | None = None
) -> Tensor:
    """Suppress non-maxima of one image greedily.

    Args:
        boxes_xyxy: (N, 4).
        scores: (N,).
        iou_threshold: overlaps above it suppress.
        max_output: keep at most this many.

    Returns:
        (K,) int64 positions of the kept boxes, best first; of equal scores the first comes first.
    """
    kept = nms_mask(boxes_xyxy, scores, iou_threshold)
    order = torch.argsort(scores, descending=True, stable=True)
    return order[kept[order]][:max_output]


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return _product((high - low).clamp(min=0))


def _product(size: Tensor) -> Tensor:
    """Return width times height; the gradient of `prod` has to look for zeros, this one has not."""
    return size[..., 0] * size[..., 1]


def _aspect_angle(boxes_xyxy: Tensor) -> Tensor:
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return torch.atan(size[..., 0] / size[..., 1].clamp(min=_EPS))

"""Cells of feature maps: which cell an anchor is, and its neighbourhood.

Where a branch is needed at a few anchors only, it runs on the windows that these see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Some anchors of one scale.

    Attributes:
        place: (N,) int64 positions in the list of anchors that was asked for.
        image: (N,) int64 image of each.
        row: (N,) int64 row in the map.
        column: (N,) int64 column in the map.
    """

    place: Tensor
    image: Tensor
    row: Tensor
    column: Tensor


def cells_by_scale(
    maps: Sequence[Tensor], image_index: Tensor, anchor_index: Tensor
) -> Iterator[tuple[Tensor, Cells]]:
    """Sort anchors by the map they belong to.

    Args:
        maps: (B, C, H, W) of each scale, finest first.
        image_index: (N,) int64 image of each anchor.
        anchor_index: (N,) int64 anchors, numbered over all scales, each row by row.

    Yields:
        Each map with its cells.
    """
    first = 0
    for features in maps:
        height, width = int(features.shape[2]), int(features.shape[3])
        last = first + height * width
        # (n,) of this scale
        place = ((anchor_index >= first) & (anchor_index < last)).nonzero()[:, 0]
        cell = anchor_index[place] - first
        row = cell.div(width, rounding_mode="floor")  # anchors are numbered row by row
        yield features, Cells(place, image_index[place], row, cell - row * width)
        first = last


def values_at(
    maps: Sequence[Tensor],
    image_index: Tensor,
    anchor_index: Tensor,
    branches: Sequence[Callable[[Tensor, Cells], Tensor]],
) -> Tensor:
    """Return each scale's branch outputs at its anchors, in the requested order.

    Args:
        maps: (B, C, H, W) of each scale, finest first.
        image_index: (N,) int64 image of each anchor.
        anchor_index: (N,) int64 anchors, numbered over all scales.
        branches: for each scale, a map and some of its cells -> (n, K).

    Returns:
        (N, K).
    """
    values, places = [], []
    scales = cells_by_scale(maps, image_index, anchor_index)
    for branch, (features, cells) in zip(branches, scales, strict=True):
        values.append(branch(features, cells))
        places.append(cells.place)
    # Values come scale by scale; the inverse permutation puts them back.
    return torch.cat(values)[torch.cat(places).argsort()]


def cell_windows(features: Tensor, cells: Cells, reach: int) -> tuple[Tensor, Tensor]:
    """Return square windows about cells, zero outside of the map, and which cells are inside.

    Args:
        features: (B, C, H, W).
        cells: N cells of that map.
        reach: cells on each side.

    Returns:
        (N, C, S, S) and (N, 1, S, S) of the same type, 1 inside and 0 outside; S = 2 reach + 1.
    """
    height, width = int(features.shape[2]), int(features.shape[3])
    offsets = torch.arange(-reach, reach + 1, device=features.device)
    rows, columns = cells.row[:, None] + offsets, cells.column[:, None] + offsets  # (N, S) each
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    # Indices outside are clamped only to be valid; the weight zeroes what they read.
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    # (N, S, S) rows of `table`
    flat = (cells.image[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
    table = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])  # (B H W, C)
    side = 2 * reach + 1
    windows = table.index_select(0, flat.reshape(-1)).reshape(-1, side, side, features.shape[1])
    weight = inside[:, None].to(features.dtype)
    return windows.permute(0, 3, 1, 2) * weight, weight

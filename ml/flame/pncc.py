"""Projected Normalized Coordinate Code maps (paper, appendix F): heads as RGB of their template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml.flame.head_model import HeadModel
from ml.imaging.rasterizer import Float32Array, Int32Array, rasterize


def pncc_colours(v_template: np.ndarray) -> Float32Array:
    """Return normalised template coordinates: x, y, z of the template's box as RGB.

    Args:
        v_template: (V, 3) metres.

    Returns:
        (V, 3) float32 in [0, 1]; each axis spans the whole range.
    """
    low, high = v_template.min(axis=0), v_template.max(axis=0)
    return ((v_template - low) / (high - low)).astype(np.float32)


def pncc_map(
    vertices_px: Sequence[np.ndarray],
    head_model: HeadModel,
    height: int,
    width: int,
    depth_order: Sequence[float] | None = None,
) -> np.ndarray:
    """Draw the PNCC map of all heads of an image, see `draw_pncc`.

    Args:
        vertices_px: one (V, 3) array a head, image frame, px, all vertices of the model.
        head_model: supplies template and faces.
        height: of the map, px.
        width: of the map, px.
        depth_order: one number a head, smaller is nearer.

    Returns:
        (height, width, 3) uint8 RGB, black where no head is.
    """
    return draw_pncc(vertices_px, head_model, height, width, depth_order)[0]


def drawn_faces(head_model: HeadModel) -> np.ndarray:
    """Return the faces that a PNCC map shows: the region with ears if the model has one.

    Args:
        head_model: the model.

    Returns:
        (F, 3) int32 vertex indices.
    """
    return head_model.faces_of(
        "head_with_ears" if "head_with_ears" in head_model.regions else "head"
    )


def draw_pncc(
    vertices_px: Sequence[np.ndarray],
    head_model: HeadModel,
    height: int,
    width: int,
    depth_order: Sequence[float] | None = None,
) -> tuple[np.ndarray, Int32Array]:
    """Draw the PNCC map of all heads of an image, with the head shown by each pixel.

    The official code paints heads in list order; here one depth buffer decides. Under weak
    perspective the heads' own z cannot be compared, so each head is shifted by its place in
    `depth_order`, or, without it, by its size: the smaller a head, the farther away.

    Args:
        vertices_px: one (V, 3) array a head, image frame, px, all vertices of the model.
        head_model: supplies template and faces; drawn is its region `face` with ears where the
            model has one, else `head`.
        height: of the map, px.
        width: of the map, px.
        depth_order: one number a head, smaller is nearer.

    Returns:
        (height, width, 3) uint8 RGB, black where no head is, and (height, width) int32 place of
        the head in `vertices_px`, -1 where none is.

    Raises:
        ValueError: the numbers of heads and of depths differ, or vertices have a wrong shape.
    """
    if depth_order is not None and len(depth_order) != len(vertices_px):
        raise ValueError(
            f"pncc: expected one depth for each of {len(vertices_px)} heads, got {len(depth_order)}"
        )
    faces = drawn_faces(head_model)
    colours = pncc_colours(head_model.v_template)
    count = len(head_model.v_template)
    points: list[np.ndarray] = []
    order = _rank(vertices_px, depth_order)
    for head, rank in zip(vertices_px, order, strict=True):
        if head.shape != (count, 3):
            raise ValueError(f"pncc: vertices of a head must be {(count, 3)}, got {head.shape}")
        moved = np.array(head, np.float32)
        spread = float(np.ptp(moved[:, 2])) + 1.0
        moved[:, 2] = (moved[:, 2] - moved[:, 2].min()) / spread + rank
        points.append(moved)
    if not points:
        return np.zeros((height, width, 3), np.uint8), np.full((height, width), -1, np.int32)
    triangles = np.concatenate([faces + index * count for index in range(len(points))])
    face_index, barycentric, _ = rasterize(
        np.concatenate(points), triangles.astype(np.int32), height, width
    )
    corners = faces[face_index % len(faces)]
    image = np.einsum("hwk,hwkc->hwc", barycentric, colours[corners])
    image[face_index < 0] = 0.0
    shown = np.where(face_index < 0, -1, face_index // len(faces)).astype(np.int32)
    return np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8), shown


def _rank(vertices_px: Sequence[np.ndarray], depth_order: Sequence[float] | None) -> np.ndarray:
    if depth_order is None:
        depth_order = [-float(np.ptp(head[:, :2], axis=0).max()) for head in vertices_px]
    rank = np.empty(len(depth_order))
    rank[np.argsort(depth_order, kind="stable")] = np.arange(len(depth_order))
    return rank

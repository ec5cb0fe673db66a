"""The neck between head and body: the head's own skin, drawn down to the border of the body's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from ml.flame.open_head.body import Body, shape_weights
from ml.generation.renderer.head_assets import HeadAssets
from ml.generation.renderer.meshes import Mesh
from ml.imaging.rasterizer import Float32Array, Int32Array, vertex_normals

_PIVOT = np.array([0.0, -0.085, -0.02], np.float32)
"""Where the skull turns on the neck, template frame."""
_SPREAD_RAD = 0.35
"""How far around the neck a displacement of the rim reaches."""


@dataclass(frozen=True)
class NeckSeam:
    """How a head model's neck is tied to the body.

    Attributes:
        vertices: (N,) of the neck.
        rim: (R,) the lowest of them, that lie on the body's border.
        spread: (N, R) float32 how a vertex follows the rim: not at all at the head, wholly there.
        ends: (R, 2) vertices of the body's border between which each of the rim lies.
        share: (R,) float32 how far it is from the first to the second.
    """

    vertices: Int32Array
    rim: Int32Array
    spread: Float32Array
    ends: Int32Array
    share: Float32Array


def prepare_seam(assets: HeadAssets, body: Body) -> NeckSeam:
    """Tie a head model's neck to the body, by the direction from the neck's middle.

    Args:
        assets: of the head model.
        body: whose border is met.

    Returns:
        The seam.
    """
    points = assets.template.astype(np.float64)
    neck = np.flatnonzero(assets.neck_weight > 0.0)
    edges = np.concatenate(
        [assets.faces[:, [0, 1]], assets.faces[:, [1, 2]], assets.faces[:, [2, 0]]]
    )
    codes, back = edges @ [len(points), 1], edges[:, ::-1] @ [len(points), 1]
    rim = np.intersect1d(np.unique(edges[~np.isin(codes, back)]), neck)
    loop = np.tensordot(shape_weights(0.5, 1.0, 0.0, 0.0), body.shapes[:, body.loop], axes=1)
    around = _angles(points[rim], points[rim])
    wanted = np.unwrap(_angles(loop, loop)) % (2.0 * np.pi)
    order = np.argsort(wanted)
    place = np.searchsorted(wanted[order], around) - 1
    ends = np.stack([order[place], order[(place + 1) % len(order)]], axis=1)
    gap = (wanted[ends[:, 1]] - wanted[ends[:, 0]]) % (2.0 * np.pi)
    share = ((around - wanted[ends[:, 0]]) % (2.0 * np.pi)) / gap
    turn = (_angles(points[neck], points[rim])[:, None] - around + np.pi) % (2.0 * np.pi) - np.pi
    spread = np.exp(-0.5 * (turn / _SPREAD_RAD) ** 2)
    is_rim = np.isin(neck, rim)
    spread[is_rim] = neck[is_rim][:, None] == rim
    to_head, _ = cKDTree(points[assets.neck_weight == 0.0]).query(points[neck])
    to_rim, _ = cKDTree(points[rim]).query(points[neck])
    follow = to_head / (to_head + to_rim)
    spread *= (follow / spread.sum(axis=1))[:, None]
    return NeckSeam(
        vertices=neck.astype(np.int32),
        rim=rim.astype(np.int32),
        spread=spread.astype(np.float32),
        ends=ends.astype(np.int32),
        share=share.astype(np.float32),
    )


def _angles(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Return (N,) directions from the middle of a ring, 0 to 2 pi."""
    middle = 0.5 * (ring.min(axis=0) + ring.max(axis=0))
    return np.arctan2(points[:, 0] - middle[0], points[:, 2] - middle[2]) % (2.0 * np.pi)


def join_neck(
    seam: NeckSeam, assets: HeadAssets, head: Mesh, trunk: np.ndarray, loop: np.ndarray,
    loop_normals: np.ndarray,
) -> Mesh:  # fmt: skip
    """Draw a head's neck down to a body; the head itself stays exactly as it is.

    Args:
        seam: of the head model.
        assets: of the head model.
        head: the bare head, template frame.
        trunk: (3, 3) axes of the trunk in that frame: left, up along the neck, front.
        loop: (42, 3) border of the body in that frame.
        loop_normals: (42, 3) the skin's normals there.

    Returns:
        The head with its neck.
    """
    index = seam.vertices
    positions = head.positions.copy()
    local = positions[index] - _PIVOT
    below = _PIVOT + local @ trunk.astype(np.float32).T
    positions[index] += assets.neck_weight[index, None] * (below - positions[index])
    first, second = loop[seam.ends[:, 0]], loop[seam.ends[:, 1]]
    met = first + seam.share[:, None] * (second - first)
    positions[index] += seam.spread @ (met - positions[seam.rim]).astype(np.float32)
    normals = vertex_normals(positions, head.faces)
    smooth = loop_normals[seam.ends[:, 0]] + loop_normals[seam.ends[:, 1]]
    normals[seam.rim] = smooth / np.linalg.norm(smooth, axis=1, keepdims=True)
    return replace(head, positions=positions, normals=normals)

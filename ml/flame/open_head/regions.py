"""Named vertex sets and colour attributes, from MPFB's painted masks, parts and places."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from ml.flame.open_head.source import BaseMesh, FloatArray, IntArray, read_mask
from ml.flame.open_head.topology import IRIS_DEG, PUPIL_DEG, HeadMesh
from ml.imaging.rasterizer import vertex_normals

NUM_NECK: Final = 264
"""As many as FLAME's neck and boundary have."""
_MASKS: Final = ("ears", "eyelids", "inside-mouth", "lips")
_NOSTRIL_M: Final = 0.009
"""Widest nostril: skin of its wall faces skin at less than this."""
_SOCKET_DM: Final = 0.012
"""Skin less than this outside of the eyeball, and behind its front, is socket."""


def hidden_skin(folder: Path, base: BaseMesh) -> FloatArray:
    """Return (19158,) 1 where skin is never seen: inside the mouth and the eyes' sockets."""
    return np.maximum(read_mask(folder, "inside-mouth", base) > 0.5, _socket(base)).astype(float)


def _socket(base: BaseMesh) -> FloatArray:
    """Return (19158,) 1 for skin of the sockets: close to a ball's surface, or inside of it."""
    out = np.zeros(len(base.vertices))
    body = base.vertices_of("body")
    for side in ("l", "r"):
        ball = base.vertices[base.vertices_of(f"helper-{side}-eye")]
        centre = 0.5 * (ball.min(axis=0) + ball.max(axis=0))
        radius = 0.5 * np.ptp(ball, axis=0).max()
        away = base.vertices[body] - centre
        near = np.linalg.norm(away, axis=1) < radius + _SOCKET_DM
        out[body[near]] = 1.0
    return np.maximum(out, out[base.mirror])


def masks(folder: Path, base: BaseMesh, mesh: HeadMesh) -> dict[str, FloatArray]:
    """Return painted masks at the head's vertices, name -> (5023,) 0..1, mirror-symmetric."""
    found = {name: read_mask(folder, name, base) for name in _MASKS}
    found["socket"] = _socket(base)
    out = {}
    for name, value in found.items():
        weight = np.clip(mesh.operator @ value, 0.0, 1.0)
        weight[np.setdiff1d(range(len(weight)), mesh.parts["skin"])] = 0.0
        out[name] = 0.5 * (weight + weight[mesh.mirror])
    return out


def regions(
    mesh: HeadMesh, painted: dict[str, FloatArray], template: FloatArray, scalp: FloatArray
) -> dict[str, IntArray]:
    """Return named vertex sets, sorted. `head` has no ears, eyeballs, neck and nothing hidden.

    Args:
        mesh: the head.
        painted: from :func:`masks`.
        template: (5023, 3) m.
        scalp: (5023,) where hair grows.
    """
    eyeballs = np.union1d(mesh.parts["left_eyeball"], mesh.parts["right_eyeball"])
    teeth_and_tongue = np.concatenate(
        [mesh.parts[name] for name in ("upper_teeth", "lower_teeth", "tongue")]
    )
    skin = mesh.parts["skin"]
    neck = _lowest(mesh, template, NUM_NECK)
    with_ears = np.setdiff1d(np.arange(len(template)), np.union1d(eyeballs, neck))
    ears = np.setdiff1d(np.flatnonzero(painted["ears"] > 0.5), neck)
    lips = np.flatnonzero(painted["lips"] > 0.5)
    inside = np.union1d(teeth_and_tongue, np.flatnonzero(painted["inside-mouth"] > 0.5))
    inside = np.setdiff1d(inside, lips)
    hidden = np.concatenate([ears, inside, np.flatnonzero(painted["socket"] > 0.5)])
    head = np.setdiff1d(np.intersect1d(with_ears, skin), hidden)
    _, y, z = (template[head] * 1000.0).T
    face = head[(z > -12.0) & (y < 96.0) & (y + 0.45 * z > -105.0)]
    left = template[:, 0] > 0.0
    return {
        "all": np.arange(len(template)),
        "head": head,
        "face": face,
        "head_with_ears": with_ears,
        "face_with_ears": np.union1d(face, ears),
        "ears": ears,
        "left_ear": ears[left[ears]],
        "right_ear": ears[~left[ears]],
        "eyeballs": eyeballs,
        "left_eyeball": mesh.parts["left_eyeball"],
        "right_eyeball": mesh.parts["right_eyeball"],
        "lips": lips,
        "mouth_interior": inside,
        "neck": neck,
        "scalp": head[scalp[head] > 0.5],
    }


def _lowest(mesh: HeadMesh, template: FloatArray, count: int) -> IntArray:
    """Return the lowest vertices along a plane under chin and nape, in mirror pairs."""
    skin = mesh.parts["skin"]
    tilted = template[:, 1] + 0.35 * template[:, 2]
    chosen: set[int] = set()
    for i in skin[np.argsort(tilted[skin].round(9), kind="stable")]:
        pair = {int(i), int(mesh.mirror[i])}
        if len(chosen | pair) <= count:
            chosen |= pair
        if len(chosen) == count:
            break
    return np.array(sorted(chosen))


def _ramp(values: FloatArray, low: float, high: float) -> FloatArray:
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def scalp_weight(
    mesh: HeadMesh, painted: dict[str, FloatArray], template: FloatArray
) -> FloatArray:
    """Return (5023,) 1 where hair grows, 0 elsewhere, soft at the hairline."""
    x, y, z = np.abs(template[:, 0] * 1000.0), *(template[:, 1:] * 1000.0).T
    # the hairline: high on the forehead, down the temple, around the ear to the nape
    front = 84.0 - 9.0 * _ramp(x, 8.0, 48.0)
    line = front - 86.0 * _ramp(-z, 0.0, 26.0)
    line = line - 42.0 * _ramp(-z, 48.0, 78.0) - 10.0 * _ramp(-z, 80.0, 105.0)
    weight = _ramp(y - line, -4.0, 4.0) * (1.0 - painted["ears"]) * (1.0 - painted["inside-mouth"])
    out = np.zeros(len(template))
    out[mesh.parts["skin"]] = weight[mesh.parts["skin"]]
    return 0.5 * (out + out[mesh.mirror])


def attributes(
    mesh: HeadMesh,
    painted: dict[str, FloatArray],
    template: FloatArray,
    scalp: FloatArray,
    landmarks: FloatArray,
) -> dict[str, FloatArray]:
    """Return per-vertex weights (5023,) for a renderer, 0..1, mirror-symmetric.

    Args:
        mesh: the head.
        painted: from :func:`masks`.
        template: (5023, 3) m.
        scalp: from :func:`scalp_weight`.
        landmarks: (68, 3) m; brows and nostrils are placed by them.
    """
    zero = np.zeros(len(template))
    out = {name: zero.copy() for name in ("sclera", "iris", "pupil", "teeth")}
    for side in ("left", "right"):
        ball, degrees = mesh.parts[f"{side}_eyeball"], np.rad2deg(mesh.eye_angle)
        out["pupil"][ball] = degrees < PUPIL_DEG
        out["iris"][ball] = (degrees >= PUPIL_DEG) & (degrees < IRIS_DEG)
        out["sclera"][ball] = degrees >= IRIS_DEG
    for name, up in (("upper_teeth", 1.0), ("lower_teeth", -1.0)):
        out["teeth"][mesh.parts[name]] = _crown(template[mesh.parts[name]] * 1000.0, up)
    out["lips"] = painted["lips"]
    out["mouth_interior"] = np.clip(painted["inside-mouth"] - painted["lips"], 0.0, 1.0)
    for name in ("upper_teeth", "lower_teeth"):
        out["mouth_interior"][mesh.parts[name]] = 1.0 - out["teeth"][mesh.parts[name]]
    out["mouth_interior"][mesh.parts["tongue"]] = 1.0
    out["eyelid"] = np.maximum(painted["eyelids"], painted["socket"])
    out["ear"] = painted["ears"]
    out["scalp"] = scalp
    skin = zero.copy()
    skin[mesh.parts["skin"]] = 1.0 - painted["inside-mouth"][mesh.parts["skin"]]
    out["brow"] = brow_weight(template, landmarks) * skin
    out["nostril"] = _nostril(mesh, template, landmarks) * skin
    others = ("sclera", "iris", "pupil", "teeth", "mouth_interior", "lips", "nostril")
    out["skin"] = np.clip(1.0 - np.sum([out[name] for name in others], axis=0), 0.0, 1.0)
    return {k: np.clip(0.5 * (a + a[mesh.mirror]), 0.0, 1.0) for k, a in out.items()}


def _crown(points_mm: FloatArray, up: float) -> FloatArray:
    """Return (N,) 1 on the crowns of a row of teeth, 0 on its gum and far back, in the shade.

    Args:
        points_mm: (N, 3) the row's vertices.
        up: +1 for the upper teeth, whose gum is above, -1 for the lower ones.
    """
    height = up * points_mm[:, 1]
    beside = np.linalg.norm(points_mm[:, None, ::2] - points_mm[None, :, ::2], axis=-1) < 9.0
    edge = np.where(beside, height[None], np.inf).min(axis=1)
    depth = points_mm[:, 2].max() - points_mm[:, 2]
    return _ramp(edge - height, -13.0, -8.5) * _ramp(-depth, -34.0, -16.0)


def _nostril(mesh: HeadMesh, template: FloatArray, landmarks: FloatArray) -> FloatArray:
    """Return (5023,) 1 inside the nostrils: skin near the base of the nose that faces skin."""
    tip, base, wing = landmarks[30], landmarks[33], landmarks[35]
    near = (np.abs(template[:, 0]) < wing[0] + 0.004) & (template[:, 1] < tip[1] + 0.012)
    near &= (template[:, 1] > base[1] - 0.003) & (template[:, 2] > base[2] - 0.022)
    near &= np.isin(np.arange(len(template)), mesh.parts["skin"])
    index = np.flatnonzero(near)
    faces = mesh.faces[near[mesh.faces].all(axis=1)]
    normal = vertex_normals(template.astype(np.float32), mesh.faces.astype(np.int32))
    a, b, c = (template[faces[:, k]] for k in range(3))
    out = np.zeros(len(template))
    for i in index:
        # a ray from the skin outwards, against all triangles near the nose (Moeller-Trumbore)
        ray = normal[i].astype(np.float64)
        p = np.cross(ray, c - a)
        det = ((b - a) * p).sum(axis=1)
        det = np.where(np.abs(det) < 1e-15, np.inf, det)
        s = template[i] - a
        u, q = (s * p).sum(axis=1) / det, np.cross(s, b - a)
        v, t = (q @ ray) / det, ((c - a) * q).sum(axis=1) / det
        met = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 2e-4) & (t < _NOSTRIL_M)
        out[i] = float(met.any())
    return out


def brow_weight(template: FloatArray, landmarks: FloatArray) -> FloatArray:
    """Return (5023,) density of the eyebrows: a band along their five landmarks."""
    line = landmarks[22:27, :2] * 1000.0
    at = np.stack([np.abs(template[:, 0]), template[:, 1]], axis=1) * 1000.0
    distance = np.full(len(template), np.inf)
    for a, b in pairwise(line):
        along = np.clip((at - a) @ (b - a) / ((b - a) @ (b - a)), 0.0, 1.0)
        distance = np.minimum(distance, np.linalg.norm(at - a - along[:, None] * (b - a), axis=1))
    return _ramp(-distance, -4.6, -2.4) * (template[:, 2] > 0.015)

"""Named vertex sets and colour attributes of the procedural head."""

from __future__ import annotations

import numpy as np

from ml.flame.procedural.rig import symmetric
from ml.flame.procedural.surface import (
    FloatArray,
    brow_curve,
    bump,
    lower_border,
    smooth_step,
    upper_border,
)
from ml.flame.procedural.topology import IntArray, Mesh

NUM_NECK = 264
"""As many as FLAME's neck and boundary have."""


def regions(mesh: Mesh) -> dict[str, IntArray]:
    """Return named vertex sets, sorted. `head` has no ears, eyeballs, neck and nothing hidden."""
    v = mesh.vertices_mm
    eyeballs = np.concatenate([mesh.names["eyeball_left"], mesh.names["eyeball_right"]])
    skin = np.setdiff1d(np.arange(len(v)), eyeballs)
    neck = _lowest(mesh, skin, NUM_NECK)
    with_ears = np.setdiff1d(skin, neck)
    ears = _union(mesh, [k for k in mesh.names if k.startswith("ear_") and k != "ear_0"])
    mouth = _union(
        mesh,
        [
            k
            for k in mesh.names
            if k.startswith("mouth_") and k not in ("mouth_line", "mouth_inner")
        ],
    )
    lids = _union(mesh, ["eye_inner", "eye_hidden", "eye_end"])
    head = np.setdiff1d(with_ears, np.concatenate([ears, mouth, lids, mesh.names["mouth_inner"]]))
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    in_front = (z > -22.0) & (y < 98.0) & (y + 0.45 * z > -105.0)
    face = head[in_front[head]]
    red = (y < upper_border(x) + 0.1) & (y > lower_border(x) - 0.1) & (x < 25.6) & (z > 30.0)
    lips = np.union1d(head[red[head]], mesh.names["mouth_inner"])
    return {
        "all": np.arange(len(v)),
        "head": head,
        "face": face,
        "head_with_ears": with_ears,
        "face_with_ears": np.union1d(face, ears),
        "ears": ears,
        "left_ear": ears[v[ears, 0] > 0],
        "right_ear": ears[v[ears, 0] < 0],
        "eyeballs": eyeballs,
        "left_eyeball": mesh.names["eyeball_left"],
        "right_eyeball": mesh.names["eyeball_right"],
        "lips": lips,
        "mouth_interior": mouth,
        "neck": neck,
        "scalp": np.setdiff1d(with_ears, ears)[
            scalp_weight(mesh)[np.setdiff1d(with_ears, ears)] > 0.5
        ],
    }


def _union(mesh: Mesh, names: list[str]) -> IntArray:
    return np.unique(np.concatenate([mesh.names[k] for k in names]))


def _lowest(mesh: Mesh, skin: IntArray, count: int) -> IntArray:
    """Return the `count` lowest skin vertices along a plane under the chin, in mirror pairs."""
    v = mesh.vertices_mm
    tilted = v[:, 1] + 0.35 * v[:, 2]
    chosen: set[int] = set()
    for i in skin[np.argsort(tilted[skin], kind="stable")]:
        pair = {int(i), int(mesh.mirror[i])}
        if len(chosen | pair) <= count:
            chosen |= pair
        if len(chosen) == count:
            break
    return np.array(sorted(chosen))


def scalp_weight(mesh: Mesh) -> FloatArray:
    """Return (V,) 1 where hair grows, 0 elsewhere, soft at the hairline."""
    v = mesh.vertices_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    # the hairline: high on the forehead, down the temple, around the ear to the nape
    front = 84.0 - 9.0 * smooth_step(x, 8.0, 48.0)
    line = np.where(z > 0.0, front, front - 86.0 * smooth_step(z, 4.0, -26.0))
    line = line - 42.0 * smooth_step(z, -52.0, -82.0) - 18.0 * smooth_step(z, -85.0, -110.0)
    line = line + 30.0 * bump(np.hypot(y - 6.0, z + 45.0), 12.0)
    weight = smooth_step(y - line, -4.0, 4.0)
    for name in mesh.names:
        if name.startswith(("ear_", "eye_", "mouth_", "eyeball")):
            weight[mesh.names[name]] = 0.0
    return symmetric(weight, mesh)


def brow_weight(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the density of the eyebrow at frontal coordinates of the resting head, mm; 0..1."""
    x = np.abs(x)
    t = (x - 11.0) / 41.0
    _, middle, half = brow_curve(t)
    across = smooth_step(np.abs(y - middle) / half, 1.15, 0.85)
    return across * smooth_step(t, -0.05, 0.03) * smooth_step(t, 1.04, 0.93)


def attributes(mesh: Mesh) -> dict[str, FloatArray]:
    """Return per-vertex weights (V,) for a renderer, 0..1, mirror-symmetric."""
    v = mesh.vertices_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    zero = np.zeros(len(v))
    out = {
        name: zero.copy()
        for name in ("sclera", "iris", "pupil", "teeth", "mouth_interior", "eyelid", "ear")
    }
    for side in ("left", "right"):
        ball, degrees = mesh.names[f"eyeball_{side}"], np.rad2deg(mesh.eye_angle)
        out["pupil"][ball] = degrees < 9.8
        out["iris"][ball] = (degrees >= 9.8) & (degrees < 25.2)
        out["sclera"][ball] = degrees >= 25.2
    for name in mesh.names:
        if name.startswith("ear_") and name != "ear_0":
            out["ear"][mesh.names[name]] = 1.0
    for name in ("mouth_gum", "mouth_palate", "mouth_throat", "mouth_end"):
        out["mouth_interior"][mesh.names[name]] = 1.0
    out["teeth"][mesh.names["mouth_teeth"]] = 1.0
    out["mouth_interior"][mesh.names["mouth_gum"]] = 0.25
    out["teeth"][mesh.names["mouth_gum"]] = 0.75
    for name, weight in (
        ("eye_rim", 1.0),
        ("eye_inner", 1.0),
        ("eye_hidden", 1.0),
        ("eye_margin", 0.35),
        ("eye_end", 1.0),
    ):
        out["eyelid"][mesh.names[name]] = weight
    head = np.ones(len(v), dtype=bool)
    for name in mesh.names:
        if name.startswith(("ear_", "eye", "mouth_")):
            head[mesh.names[name]] = False
    inside = np.minimum(upper_border(x) - y, y - lower_border(x))
    out["lips"] = smooth_step(inside, -0.6, 0.1) * (x < 26.0) * (z > 30.0) * head
    out["lips"][mesh.names["mouth_line"]] = out["lips"][mesh.names["mouth_inner"]] = 1.0
    out["brow"] = brow_weight(x, y) * (z > 15.0) * head
    out["nostril"] = bump(np.hypot((x - 6.9) / 1.4, y + 24.2), 1.7) * (z > 45.0) * head
    out["scalp"] = scalp_weight(mesh)
    other = ("sclera", "iris", "pupil", "teeth", "mouth_interior", "lips", "nostril")
    out["skin"] = np.clip(1.0 - np.sum([out[name] for name in other], axis=0), 0.0, 1.0)
    return {k: symmetric(a, mesh) for k, a in out.items()}

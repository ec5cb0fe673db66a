"""Joints, skinning, pose correctives, landmarks, regions and colour attributes of the procedural head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.flame.procedural import parts
from ml.flame.procedural.surface import (
    EYE_CENTRE,
    FloatArray,
    brow_curve,
    bump,
    lower_border,
    mouth_line,
    smooth_step,
    upper_border,
)
from ml.flame.procedural.topology import IntArray, Mesh

JOINTS_MM = np.array(
    [
        [0.0, -150.0, -68.0],
        [0.0, -88.0, -58.0],
        [0.0, -10.0, -28.0],
        EYE_CENTRE,
        EYE_CENTRE * [-1, 1, 1],
    ]
)
"""Global, neck, jaw, left eye, right eye."""
NUM_NECK = 264
_MIRROR = np.array([-1.0, 1.0, 1.0])


def symmetric(values: FloatArray, mesh: Mesh) -> FloatArray:
    """Make per-vertex weights (V, ...) exactly equal on both sides."""
    return 0.5 * (values + values[mesh.mirror])


def mouth_side(mesh: Mesh) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Vertices of the mouth's rings that belong to the upper and to the lower jaw, both sides.

    Returns:
        two (V,) masks; corners belong to neither.
    """
    upper = np.zeros(len(mesh.vertices_mm), dtype=bool)
    lower = upper.copy()
    n = parts.NUM_LIP
    for name, row in mesh.rows.items():
        if name.startswith("mouth_") and name != "mouth_end":
            upper[row[:n]] = True
            lower[row[n + 1 :]] = True
    return upper | upper[mesh.mirror], lower | lower[mesh.mirror]


def jaw_weights(mesh: Mesh) -> FloatArray:
    """Share of the jaw in every vertex, 0..1.

    The lips part sharply, the cheeks stretch over centimetres, the throat follows a little.

    Returns:
        (V,).
    """
    v = mesh.vertices_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    front_line = mouth_line(x)
    line = np.where(
        z > 38.0, front_line, np.minimum(front_line, -47.0) + 0.55 * (38.0 - np.minimum(z, 38.0))
    )
    below = line - y
    soft = smooth_step(below, -16.0, 24.0)
    sharp = (below > 0).astype(float)
    cheek = smooth_step(x, 13.0, 30.0)
    weight = np.where(z > 20.0, sharp + (soft - sharp) * cheek, soft)
    weight = weight * smooth_step(z, -48.0, -12.0)
    # the skin under the chin hangs between chin and throat
    under = smooth_step(y, -86.0, -102.0)
    weight = (
        weight
        * (1.0 - under * smooth_step(z, 38.0, -14.0))
        * smooth_step(y + 0.25 * z, -128.0, -100.0)
    )
    upper, lower = mouth_side(mesh)
    fade = smooth_step(x, 30.0, 14.0)
    corner = weight[mesh.rows["mouth_line"][parts.NUM_LIP]]
    weight[upper] = (corner * (1.0 - fade))[upper]
    weight[lower] = (corner + (1.0 - corner) * fade)[lower]
    for name in ("mouth_gum", "mouth_teeth", "mouth_palate"):
        weight[mesh.names[name]] = np.where(lower, 1.0, 0.0)[mesh.names[name]]
        weight[mesh.rows[name][parts.NUM_LIP]] = weight[
            mesh.mirror[mesh.rows[name][parts.NUM_LIP]]
        ] = 0.5
    weight[mesh.names["mouth_throat"]] = np.where(lower, 0.6, 0.2)[mesh.names["mouth_throat"]]
    weight[mesh.names["mouth_end"]] = 0.4
    for side in ("left", "right"):
        weight[mesh.names[f"eyeball_{side}"]] = 0.0
    for name in mesh.names:
        if name.startswith("ear_"):
            weight[mesh.names[name]] *= 0.0
    return symmetric(weight, mesh)


def skinning_weights(mesh: Mesh) -> FloatArray:
    """(V, 5) weights of global, neck, jaw, left eye and right eye; rows sum to 1."""
    v = mesh.vertices_mm
    tilted = v[:, 1] + 0.35 * (v[:, 2] + 70.0)
    head = symmetric(smooth_step(tilted, -172.0, -96.0), mesh)
    weights = np.zeros((len(v), 5))
    jaw = jaw_weights(mesh)
    weights[:, 2] = jaw * head
    weights[:, 1] = head - weights[:, 2]
    weights[:, 0] = 1.0 - head
    for column, side in ((3, "left"), (4, "right")):
        weights[mesh.names[f"eyeball_{side}"]] = np.eye(5)[column]
    return weights


def joint_regressor(mesh: Mesh) -> FloatArray:
    """(5, V) weights whose rows sum to 1 and give the joints on the template."""
    v = mesh.vertices_mm
    regressor = np.zeros((5, len(v)))
    for j, joint in enumerate(JOINTS_MM):
        if j >= 3:
            chosen = mesh.names["eyeball_left" if j == 3 else "eyeball_right"]
        else:
            near = np.argsort(np.linalg.norm(v - joint, axis=1), kind="stable")[:80]
            chosen = np.union1d(near, mesh.mirror[near])
        # smallest weights that sum to 1 and hit the joint
        system = np.concatenate([v[chosen].T, np.ones((1, len(chosen)))])
        regressor[j, chosen] = np.linalg.pinv(system) @ np.append(joint, 1.0)
    swap = [0, 1, 2, 4, 3]
    return 0.5 * (regressor + regressor[swap][:, mesh.mirror])


def pose_correctives(mesh: Mesh, jaw: FloatArray) -> FloatArray:
    """(V, 3, 36) mm per entry of R - I of joints 1 to 4.

    Opening the jaw draws the cheeks in and stretches them, pulls the corners of the mouth together and
    fills the throat; turning it sideways follows with the lips. The neck and the eyes have none.
    """
    v = mesh.vertices_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    side = np.where(v[:, 0] < 0, -1.0, 1.0) * (x > 1e-9)
    cheek = bump(np.hypot((x - 46.0) / 1.1, (y + 42.0) / 1.5), 15.0) * smooth_step(z, -20.0, 5.0)
    corner = bump(np.hypot(x - 26.0, y + 48.0), 8.0) * smooth_step(z, 20.0, 32.0)
    throat = (
        bump(np.hypot(x / 1.8, (y + 103.0) / 1.1), 14.0)
        * smooth_step(z, 25.0, 0.0)
        * smooth_step(z, -45.0, -25.0)
    )
    inside = np.zeros(len(v), dtype=bool)
    for name, index in mesh.names.items():
        if name.startswith(
            (
                "mouth_gum",
                "mouth_teeth",
                "mouth_palate",
                "mouth_throat",
                "mouth_end",
                "eyeball",
                "ear_",
            )
        ):
            inside[index] = True
    skin = ~inside
    opening = np.stack(
        [-(5.0 * cheek + 7.0 * corner) * side, -4.0 * corner - 6.0 * throat, -3.0 * cheek - 3.0 * corner], axis=1
    ) * skin[:, None]  # fmt: skip
    shift = (
        np.stack([2.0 * corner + 0.6 * jaw * smooth_step(z, 20.0, 50.0), 0 * x, 0 * x], axis=1)
        * skin[:, None]
    )
    out = np.zeros((len(v), 3, 36))
    entry = lambda r, c: 9 + 3 * r + c  # noqa: E731 - joint 2 is the second block of nine
    # sin of the opening angle: R[2, 1] grows when the mouth opens (rotation about +x)
    out[:, :, entry(2, 1)] = 0.5 * opening
    out[:, :, entry(1, 2)] = -0.5 * opening
    out[:, :, entry(0, 2)] = 0.5 * shift
    out[:, :, entry(2, 0)] = -0.5 * shift
    parity = np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]).reshape(9)
    parity = np.tile(parity, 4)
    return 0.5 * (out + out[mesh.mirror] * _MIRROR[:, None] * parity)


# ------------------------------------------------------------------ landmarks
_CONTOUR = [
    (-71.0, 12.0, -25.0), (-70.0, -8.0, -25.0), (-67.0, -28.0, -22.0), (-63.0, -47.0, -18.0),
    (-56.0, -64.0, -10.0), (-47.0, -79.0, 2.0), (-34.0, -91.0, 16.0), (-18.0, -99.0, 32.0), (0.0, -101.5, 40.0),
]  # fmt: skip
_BROWS = [(-51.0, 33.5), (-43.0, 38.5), (-33.5, 40.3), (-23.0, 38.8), (-13.5, 36.0)]
_NOSE_MIDDLE = [(0.0, 24.0), (0.0, 11.0), (0.0, -2.5), (0.0, -15.0)]
_NOSE_BASE = [(-14.0, -24.0), (-7.0, -27.0), (0.0, -28.0)]


def landmarks(mesh: Mesh) -> tuple[IntArray, FloatArray]:
    """The 68 landmarks in iBUG order, mirror-symmetric.

    Returns:
        (68,) face of each landmark and (68, 3) barycentric weights.
    """
    v, faces = mesh.vertices_mm, mesh.faces
    hidden = np.zeros(len(v), dtype=bool)
    for name, index in mesh.names.items():
        if name.startswith(("eye_", "eyeball", "mouth_", "ear_")):
            hidden[index] = True
    usable = np.flatnonzero(~hidden[faces].any(axis=1))

    def front(xy: tuple[float, float]) -> tuple[int, FloatArray]:
        return _first_hit(v, faces, usable, np.array(xy))

    right: dict[int, tuple[int, FloatArray]] = {}
    for i, target in enumerate(_CONTOUR):
        right[i] = _closest(v, faces, usable, np.array(target))
    for i, xy in enumerate(_BROWS):
        right[17 + i] = front(xy)
    for i, xy in enumerate(_NOSE_MIDDLE):
        right[27 + i] = front(xy)
    for i, xy in enumerate(_NOSE_BASE):
        right[31 + i] = front(xy)
    rim = mesh.rows["eye_rim"]
    for i, column in enumerate((0, 4, 8, 12, 16, 20)):
        right[36 + i] = _corner(mesh, int(mesh.mirror[rim[column]]))
    n, line = parts.NUM_LIP, mesh.rows["mouth_line"]
    top, low = mesh.rows["lip_upper_edge"], mesh.rows["lip_lower_edge"]
    lips = {48: line[n], 49: top[5], 50: top[2], 51: top[0], 57: low[0], 58: low[3], 59: low[6],
            60: line[n - 1], 61: line[4], 62: line[0], 66: line[2 * n], 67: line[2 * n - 4]}  # fmt: skip
    for i, vertex in lips.items():
        right[i] = _corner(mesh, int(mesh.mirror[vertex]))
    out = dict(right)
    index_of = {tuple(sorted(map(int, f))): k for k, f in enumerate(faces)}
    for i, j in enumerate(LANDMARK_MIRROR):
        if j not in out:
            face, weight = right[i]
            vertices = mesh.mirror[faces[face]]
            twin = index_of[tuple(sorted(map(int, vertices)))]
            order = [list(vertices).index(k) for k in faces[twin]]
            out[j] = (twin, weight[order])
    return np.array([out[i][0] for i in range(68)]), np.array([out[i][1] for i in range(68)])


LANDMARK_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46,
    39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip
"""Landmark on the other side of the face."""


def _corner(mesh: Mesh, vertex: int) -> tuple[int, FloatArray]:
    face = int(np.flatnonzero((mesh.faces == vertex).any(axis=1))[0])
    return face, (mesh.faces[face] == vertex).astype(float)


def _barycentric(p: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray) -> FloatArray:
    """Weights (N, 3) of points p (N, k) projected into triangles (N, k)."""
    e, f, g = b - a, c - a, p - a
    ee, ef, ff = (e * e).sum(-1), (e * f).sum(-1), (f * f).sum(-1)
    ge, gf = (g * e).sum(-1), (g * f).sum(-1)
    det = np.maximum(ee * ff - ef * ef, 1e-12)
    wb, wc = (ff * ge - ef * gf) / det, (ee * gf - ef * ge) / det
    return np.stack([1.0 - wb - wc, wb, wc], axis=-1)


def _first_hit(
    v: FloatArray, faces: IntArray, usable: IntArray, xy: FloatArray
) -> tuple[int, FloatArray]:
    a, b, c = (v[faces[usable, k]] for k in range(3))
    w = _barycentric(xy[None].repeat(len(a), 0), a[:, :2], b[:, :2], c[:, :2])
    inside = (w >= -1e-9).all(axis=1)
    z = (w * np.stack([a[:, 2], b[:, 2], c[:, 2]], 1)).sum(1)
    best = int(np.argmax(np.where(inside, z, -np.inf)))
    weight = np.clip(w[best], 0.0, 1.0)
    return int(usable[best]), weight / weight.sum()


def _closest(
    v: FloatArray, faces: IntArray, usable: IntArray, target: FloatArray
) -> tuple[int, FloatArray]:
    a, b, c = (v[faces[usable, k]] for k in range(3))
    w = np.clip(_barycentric(target[None].repeat(len(a), 0), a, b, c), 0.0, None)
    w /= w.sum(axis=1, keepdims=True)
    at = w[:, :1] * a + w[:, 1:2] * b + w[:, 2:] * c
    best = int(np.argmin(np.linalg.norm(at - target, axis=1)))
    return int(usable[best]), w[best]


# ------------------------------------------------------------------ regions and colours
def regions(mesh: Mesh) -> dict[str, IntArray]:
    """Named vertex sets, sorted. `head` has no ears, eyeballs, neck and nothing hidden."""
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
    """The `count` lowest skin vertices along a plane tilted under the chin, in mirror pairs."""
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
    """(V,) 1 where hair grows, 0 elsewhere, soft at the hairline."""
    v = mesh.vertices_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    # the hairline: high on the forehead, down the temple to the sideburn, around the ear to the nape
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
    """Density of the eyebrow at frontal coordinates of the resting head, mm; 0..1."""
    x = np.abs(x)
    t = (x - 11.0) / 41.0
    _, middle, half = brow_curve(t)
    across = smooth_step(np.abs(y - middle) / half, 1.15, 0.85)
    return across * smooth_step(t, -0.05, 0.03) * smooth_step(t, 1.04, 0.93)


def attributes(mesh: Mesh) -> dict[str, FloatArray]:
    """Per-vertex weights (V,) for a renderer, 0..1, mirror-symmetric."""
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
    out["skin"] = np.clip(1.0 - sum(out[k] for k in ("sclera", "iris", "pupil", "teeth", "mouth_interior", "lips", "nostril")), 0.0, 1.0)  # type: ignore[call-overload]  # fmt: skip
    return {k: symmetric(a, mesh) for k, a in out.items()}

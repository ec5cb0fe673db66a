"""Joints, skinning, pose correctives and landmarks of the procedural head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.flame.procedural import parts
from ml.flame.procedural.surface import (
    EYE_CENTRE,
    FloatArray,
    bump,
    mouth_line,
    smooth_step,
)
from ml.flame.procedural.topology import Mesh

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
    """Return the mouth's ring vertices of the upper and of the lower jaw, both sides.

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
    """Return the fraction of the jaw in every vertex, 0..1.

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
    """Return (V, 5) weights of global, neck, jaw, left eye and right eye; rows sum to 1."""
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
    """Return (5, V) weights whose rows sum to 1 and give the joints on the template."""
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
    """Return (V, 3, 36) mm per entry of R - I of joints 1 to 4.

    Opening the jaw draws the cheeks in, pulls the corners of the mouth together and fills the
    throat; turned sideways it takes the lips along. The neck and the eyes have none.
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
        [-(5.0 * cheek + 7.0 * corner) * side, -4.0 * corner - 6.0 * throat,
         -3.0 * cheek - 3.0 * corner], axis=1
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

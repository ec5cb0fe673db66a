"""Joints, skinning weights and pose correctives, from MakeHuman's rig and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from scipy.sparse import csr_matrix

from ml.flame.head_model import JAW_JOINT, NUM_JOINTS
from ml.flame.open_head.expressions import FACE_UNITS
from ml.flame.open_head.source import (
    BaseMesh,
    FloatArray,
    read_rig_parents,
    read_rig_weights,
    read_targets,
)
from ml.flame.open_head.topology import HeadMesh

_FLIP: Final = np.array([-1.0, 1.0, 1.0])
_SWAP: Final = (0, 1, 2, 4, 3)
_NECK_BONE_VERTICES: Final = (226, 17824)
"""Of their mean the rig makes the head of bone `neck03`, in the middle of the neck."""
_NECK_SHARE: Final = {"neck01": 0.25, "neck02": 0.55, "neck03": 0.85}
"""How far the bones of the neck follow the one neck joint of FLAME; the head follows wholly."""
_NEAR_DM: Final = 0.9
_RIDGE: Final = 1e-4


def joint_operator(base: BaseMesh) -> csr_matrix:
    """Return (5, 19158): rows give the joints global, neck, jaw, left and right eye."""
    rows = np.zeros((NUM_JOINTS, len(base.vertices)))
    for joint, group in ((0, "joint-neck"), (2, "joint-mouth"), (3, "joint-l-eye")):
        index = base.vertices_of(group)
        rows[joint, index] = 1.0 / len(index)
    rows[1, list(_NECK_BONE_VERTICES)] = 0.5
    rows[4] = rows[3][base.mirror]
    return csr_matrix(0.5 * (rows + rows[list(_SWAP)][:, base.mirror]))


def skinning_weights(folder: Path, base: BaseMesh, mesh: HeadMesh) -> FloatArray:
    """Return (5023, 5) weights of FLAME's joints; rows sum to 1.

    Args:
        folder: the package's data.
        base: the base mesh.
        mesh: the head.
    """
    parents, bones = read_rig_parents(folder), read_rig_weights(folder)
    neck, jaw = np.zeros(len(base.vertices)), np.zeros(len(base.vertices))
    total = np.zeros(len(base.vertices))
    for bone, weight in bones.items():
        line = _ancestors(bone, parents)
        total += weight
        if "jaw" in line:
            jaw += weight
        elif "head" in line:
            neck += weight
        else:
            neck += _NECK_SHARE.get(bone, 0.0) * weight
    share = mesh.operator @ (np.stack([neck, jaw], axis=1) / np.maximum(total, 1e-9)[:, None])
    weights = np.zeros((len(share), NUM_JOINTS))
    weights[:, 1:3] = np.clip(share, 0.0, 1.0)
    weights[mesh.parts["upper_teeth"]] = np.eye(NUM_JOINTS)[1]
    for name in ("lower_teeth", "tongue"):
        weights[mesh.parts[name]] = np.eye(NUM_JOINTS)[JAW_JOINT]
    weights[:, 0] = 1.0 - weights[:, 1:3].sum(axis=1)
    for joint, side in ((3, "left"), (4, "right")):
        weights[mesh.parts[f"{side}_eyeball"]] = np.eye(NUM_JOINTS)[joint]
    weights = np.clip(weights, 0.0, 1.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return 0.5 * (weights + weights[mesh.mirror][:, list(_SWAP)])


def _ancestors(bone: str, parents: dict[str, str]) -> set[str]:
    line = set()
    while bone:
        line.add(bone)
        bone = parents.get(bone, "")
    return line


def joint_regressor(
    mesh: HeadMesh, template: FloatArray, moves: FloatArray, joints: FloatArray, travel: FloatArray
) -> FloatArray:
    """Fit (5, 5023) weights, rows summing to 1, that find the rig's joints on every head.

    Args:
        mesh: the head.
        template: (5023, 3) m.
        moves: (K, 5023, 3) displacements of components, m.
        joints: (5, 3) the rig's joints on the template, m.
        travel: (K, 5, 3) how they move with the components.

    Returns:
        the weights.
    """
    out = np.zeros((NUM_JOINTS, len(template)))
    for j in range(NUM_JOINTS):
        if j >= 3:
            # least weights that are exact for every affine motion of the ball
            chosen = mesh.parts["left_eyeball" if j == 3 else "right_eyeball"]
            system = np.concatenate([template[chosen].T, np.ones((1, len(chosen)))])
            out[j, chosen] = np.linalg.pinv(system) @ np.append(joints[j], 1.0)
            continue
        near = np.linalg.norm(template - joints[j], axis=1) < 0.1 * _NEAR_DM
        chosen = np.flatnonzero(
            near & near[mesh.mirror] & np.isin(range(len(near)), mesh.parts["skin"])
        )
        rows = np.concatenate(
            [template[chosen][None] - joints[j], moves[:, chosen] - travel[:, None, j]]
        )
        flat = np.moveaxis(rows, 1, 2).reshape(-1, len(chosen))
        normal = flat.T @ flat
        normal += _RIDGE * np.trace(normal) / len(chosen) * np.eye(len(chosen))
        weight = np.linalg.solve(normal, np.ones(len(chosen)))
        out[j, chosen] = weight / weight.sum()
        # the template's own joint is met exactly
        system = np.concatenate([template[chosen].T, np.ones((1, len(chosen)))])
        left = np.append(joints[j], 1.0) - system @ out[j, chosen]
        out[j, chosen] += np.linalg.pinv(system) @ left
    return 0.5 * (out + out[list(_SWAP)][:, mesh.mirror])


def pose_correctives(
    folder: Path, mesh: HeadMesh, template: FloatArray, weights: FloatArray, jaw: FloatArray
) -> FloatArray:
    """Return (5023, 3, 36) m per entry of R - I of joints 1 to 4; only the jaw has any.

    They are what MakeHuman's face units for an open and for a shifted jaw do beyond turning the
    jaw: cheeks stretch, corners of the mouth come together, the throat fills.

    Args:
        folder: the package's data.
        mesh: the head.
        template: (5023, 3) m.
        weights: (5023, 5) skinning weights.
        jaw: (3,) the joint, m.
    """
    names = [f"{FACE_UNITS}/{name}" for name in ("jawOpen", "jawLeft", "jawRight")]
    opened, left, right = 0.1 * mesh.apply(read_targets(folder, names))
    opened = 0.5 * (opened + opened[mesh.mirror] * _FLIP)
    left = 0.5 * (left + right[mesh.mirror] * _FLIP)
    out = np.zeros((len(template), 3, 36))
    rigid = np.concatenate([mesh.parts[n] for n in ("upper_teeth", "lower_teeth", "tongue")])
    balls = np.concatenate([mesh.parts[n] for n in ("left_eyeball", "right_eyeball")])
    for axis, wanted, (row, column) in ((0, opened, (2, 1)), (1, left, (0, 2))):
        angle, turned = _best_turn(template, weights[:, JAW_JOINT], jaw, wanted, axis)
        rest = (wanted - turned) / np.sin(angle)
        rest[rigid] = rest[balls] = 0.0
        out[:, :, 9 + 3 * row + column] += 0.5 * rest
        out[:, :, 9 + 3 * column + row] -= 0.5 * rest
    parity = np.tile(np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]).reshape(9), 4)
    return 0.5 * (out + out[mesh.mirror] * _FLIP[:, None] * parity)


def _best_turn(
    template: FloatArray, weight: FloatArray, jaw: FloatArray, wanted: FloatArray, axis: int
) -> tuple[float, FloatArray]:
    """Find the turn of the jaw that explains most of a displacement, and what it does."""
    best: tuple[float, float, FloatArray] | None = None
    for angle in np.deg2rad(np.arange(2.0, 40.5, 0.5)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array(
            [[[1, 0, 0], [0, c, -s], [0, s, c]], [[c, 0, s], [0, 1, 0], [-s, 0, c]]][axis]
        )
        moved = ((template - jaw) @ turn.T + jaw - template) * weight[:, None]
        miss = float((weight[:, None] * (wanted - moved) ** 2).sum())
        if best is None or miss < best[0]:
            best = (miss, float(angle), moved)
    if best is None:
        raise RuntimeError("open head: no angle")
    return best[1], best[2]

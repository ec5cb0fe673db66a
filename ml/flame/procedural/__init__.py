"""A procedural head model in FLAME's format, without data or licence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.flame.head_model import HeadModel
from ml.flame.procedural.basis import Basis, expression_basis, shape_basis
from ml.flame.procedural.landmarks import landmarks
from ml.flame.procedural.regions import attributes, regions
from ml.flame.procedural.rig import joint_regressor, pose_correctives, skinning_weights
from ml.flame.procedural.topology import Mesh, build_mesh
from ml.records.determinism import one_blas_thread
from ml.records.ids import sample_rng

_METRE = 1000.0
_FLIP = np.array([-1.0, 1.0, 1.0], dtype=np.float32)


@one_blas_thread()
def build_procedural_head(seed: int = 0) -> HeadModel:
    """Make the procedural head: FLAME's topology counts, joints and component counts.

    Mirror symmetry is exact: reflecting the vertices, permuting them by `mirror_vertices` and
    changing the signs of the antisymmetric coefficients gives the same numbers.

    Args:
        seed: run seed; it chooses the free vertices and the random part of the bases.

    Returns:
        the model; equal seeds give equal bytes on one type of processor, whatever the number of
        its cores.
    """
    mesh = build_mesh(sample_rng(seed, "head_model", "mesh"))
    shape = shape_basis(mesh, sample_rng(seed, "head_model", "shape"))
    expression = expression_basis(mesh, sample_rng(seed, "head_model", "expression"))
    weights = skinning_weights(mesh)
    correctives = pose_correctives(mesh, weights[:, 2])
    faces, barycentric = landmarks(mesh)
    return HeadModel(
        v_template=_symmetric(mesh.vertices_mm / _METRE, mesh),
        faces=mesh.faces.astype(np.int32),
        shapedirs=_directions(shape, expression, mesh),
        posedirs=(correctives / _METRE).astype(np.float32),
        J_regressor=joint_regressor(mesh).astype(np.float32),
        weights=weights.astype(np.float32),
        landmark_faces=faces.astype(np.int32),
        landmark_barycentric=barycentric.astype(np.float32),
        mirror_vertices=mesh.mirror.astype(np.int32),
        mirror_shape=shape.signs.astype(np.float32),
        mirror_expression=expression.signs.astype(np.float32),
        regions={k: v.astype(np.int32) for k, v in regions(mesh).items()},
        attributes={k: v.astype(np.float32) for k, v in attributes(mesh).items()},
        source=f"procedural, seed {seed}",
        shape_names=shape.names,
        expression_names=expression.names,
    )


def _symmetric(points: NDArray[np.float64], mesh: Mesh) -> NDArray[np.float32]:
    rounded = points.astype(np.float32)
    return (0.5 * (rounded + rounded[mesh.mirror] * _FLIP)).astype(np.float32)


def _directions(shape: Basis, expression: Basis, mesh: Mesh) -> NDArray[np.float32]:
    both = np.concatenate([shape.directions, expression.directions], axis=-1)
    signs = np.concatenate([shape.signs, expression.signs])
    rounded = (both / _METRE).astype(np.float32)
    mirrored = rounded[mesh.mirror] * _FLIP[:, None] * signs.astype(np.float32)
    return (0.5 * (rounded + mirrored)).astype(np.float32)

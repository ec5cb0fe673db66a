"""Hair is cut at its ragged edge, and what lies behind the cut is seen."""

from __future__ import annotations

import numpy as np
import pytest

from ml.generation.renderer.meshes import join, make_mesh
from ml.generation.renderer.visibility import SceneMesh, visible

SIDE = 32
SKIN, EDGE, BACK = 1, 2, 3


def sheet(depth: float, material: int, cover: float):
    """A square over the whole image, px, at a depth; its cover is in metres."""
    corners = np.array([[-1, -1], [SIDE + 1, -1], [SIDE + 1, SIDE + 1], [-1, SIDE + 1]])
    positions = np.column_stack([corners, np.full(4, depth)])
    extras = np.zeros((4, 4))
    extras[:, 0] = cover
    return make_mesh(
        positions, np.array([[0, 1, 2], [0, 2, 3]]), material, 0, coords=positions, extras=extras
    )


def seen(*hair):
    """The materials that are seen of hair in front of skin."""
    mesh = join([sheet(30.0, SKIN, 0.0), *hair])
    scene = SceneMesh(mesh, 2, np.zeros(len(mesh.faces), np.int32), (), ())
    found = visible(scene, SIDE, SIDE)
    return set(np.unique(mesh.materials[found.face_index]).tolist())


@pytest.mark.parametrize(
    ("cover", "expected"), [(0.02, {EDGE}), (0.0, {SKIN, EDGE}), (-0.02, {SKIN})]
)
def test_hair_is_cut_at_its_cover(cover, expected):
    assert seen(sheet(10.0, EDGE, cover)) == expected


def test_through_a_ragged_edge_one_sees_the_hair_behind_it():
    assert seen(sheet(10.0, EDGE, 0.0), sheet(20.0, BACK, 0.02)) == {EDGE, BACK}

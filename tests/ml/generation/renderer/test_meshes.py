"""Swept surfaces and joined meshes."""

from __future__ import annotations

import numpy as np
import pytest

from ml.generation.renderer.meshes import (
    cut,
    ellipsoid,
    empty_mesh,
    grid_faces,
    join,
    smooth_path,
    sweep,
)

FRONT = np.array([0.0, 0.0, -1.0])


def _tube(capped: bool = False):
    path = np.stack([np.zeros(5), np.linspace(0.0, 1.0, 5), np.zeros(5)], -1)
    return sweep(path, FRONT, np.full(5, 0.2), np.full(5, 0.2), 12, 3, 1, capped=capped)


def test_a_straight_tube_is_a_cylinder_with_outward_normals():
    tube = _tube()
    radial = tube.positions * (1.0, 0.0, 1.0)
    assert np.allclose(np.linalg.norm(radial, axis=1), 0.2, atol=1e-6)
    # The first and last ring have triangles on one side only.
    assert np.allclose(tube.normals, radial / 0.2, atol=0.1)
    assert np.allclose(tube.coords[:, 1], tube.positions[:, 1], atol=1e-6)
    assert np.allclose(tube.tangents, (0.0, 1.0, 0.0), atol=1e-6)
    assert set(tube.materials) == {3}
    assert set(tube.parts) == {1}


def test_angle_zero_of_a_ring_lies_in_front_and_the_seam_behind():
    tube = _tube()
    front = tube.positions[0]
    assert front == pytest.approx([0.0, 0.0, -0.2], abs=1e-6)
    assert tube.coords[0, 0] == 0.0
    assert abs(tube.coords[:12, 0]).max() == pytest.approx(0.2 * np.pi, abs=1e-6)


def test_caps_close_the_ends():
    edges = {}
    for a, b, c in _tube(capped=True).faces:
        for edge in ((a, b), (b, c), (c, a)):
            edges[tuple(sorted(edge))] = edges.get(tuple(sorted(edge)), 0) + 1
    assert set(edges.values()) == {2}


def test_a_path_along_the_front_still_gives_rings():
    path = np.stack([np.zeros(4), np.zeros(4), -np.linspace(0.0, 1.0, 4)], -1)
    tube = sweep(path, FRONT, np.full(4, 0.1), np.full(4, 0.1), 8, 0, 0)
    assert np.allclose(np.linalg.norm(tube.positions[:, :2], axis=1), 0.1, atol=1e-6)


def test_join_shifts_faces_and_keeps_codes():
    both = join([_tube(), empty_mesh(), _tube(capped=True)])
    assert len(both.positions) == 60 + 62
    assert both.faces.max() == 121
    assert len(both.materials) == len(both.parts) == len(both.faces)
    assert len(join([]).faces) == 0


def test_moving_turns_normals_with_positions():
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    tube = _tube()
    moved = tube.moved(turn, np.array([1.0, 2.0, 3.0]))
    assert np.allclose(moved.positions, tube.positions @ turn.T + (1, 2, 3), atol=1e-6)
    assert np.allclose(moved.normals, tube.normals @ turn.T, atol=1e-6)


def test_ellipsoid_has_its_axes_and_normals():
    ball = ellipsoid(np.zeros(3), np.diag([1.0, 2.0, 3.0]), 9, 16, 0, 0)
    assert np.allclose((ball.positions / np.array([1.0, 2.0, 3.0])) ** 2 @ np.ones(3), 1.0)
    assert ((ball.positions * ball.normals).sum(axis=1) > 0).all()


def test_smooth_path_keeps_its_ends_and_equal_steps():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])
    path = smooth_path(corners, 40, 0.3)
    assert np.allclose(path[[0, -1]], corners[[0, -1]])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1
    assert np.linalg.norm(path - corners[1], axis=1).min() > 0.1


def test_grid_faces_of_an_open_and_a_closed_grid():
    assert len(grid_faces(3, 4, closed=False)) == 2 * 2 * 3
    assert len(grid_faces(3, 4, closed=True)) == 2 * 2 * 4


def test_cutting_divides_faces_at_the_border():
    """A tube cut at 0.4 of its length is a tube of that length: same area, straight border."""
    tube = _tube()
    part = cut(tube, 0.4 - tube.positions[:, 1])
    assert part.positions[:, 1].max() == pytest.approx(0.4, abs=1e-6)
    assert part.positions[:, 1].min() == pytest.approx(0.0, abs=1e-6)
    corners = part.positions[part.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    whole = tube.positions[tube.faces].astype(np.float64)
    full = np.cross(whole[:, 1] - whole[:, 0], whole[:, 2] - whole[:, 0])
    areas = [np.linalg.norm(n, axis=1).sum() for n in (normals, full)]
    assert areas[0] == pytest.approx(0.4 * areas[1], rel=1e-5)
    # Orientation, coordinates and codes come along, and every vertex is used.
    middle = corners.mean(axis=1) * (1.0, 0.0, 1.0)
    original = ((whole.mean(axis=1) * (1.0, 0.0, 1.0)) * full).sum(axis=1)
    assert (np.sign((middle * normals).sum(axis=1)) == np.sign(original[0])).all()
    assert np.allclose(part.coords[:, 1], part.positions[:, 1], atol=1e-6)
    assert np.array_equal(np.unique(part.faces), np.arange(len(part.positions)))
    assert set(part.materials) == {3}
    assert len(part.faces) == len(part.materials) == len(part.parts)


def test_cutting_keeps_all_or_nothing_where_the_border_is_elsewhere():
    tube = _tube()
    assert len(cut(tube, np.full(60, -1.0)).faces) == 0
    assert np.array_equal(cut(tube, np.ones(60)).faces, tube.faces)

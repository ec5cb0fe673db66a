import numpy as np
import pytest
import trimesh

from ml.benchmarks.surface import Surface


def brute(points, corners):
    """Each point against each triangle, by trimesh's own exact test."""
    best = np.full(len(points), np.inf)
    for triangle in corners:
        repeated = np.repeat(triangle[None], len(points), axis=0)
        closest = trimesh.triangles.closest_point(repeated, points)
        best = np.minimum(best, np.linalg.norm(points - closest, axis=1))
    return best


@pytest.mark.parametrize(("triangles", "seed"), [(1, 0), (3, 1), (5, 2), (200, 3)])
def test_equals_every_triangle_tried_in_turn(triangles, seed):
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(triangles, 3, 3)) * rng.uniform(0.05, 2, (triangles, 1, 1))
    points = 1.5 * rng.normal(size=(300, 3))
    surface = Surface(corners.reshape(-1, 3), np.arange(3 * triangles).reshape(-1, 3))
    distances, closest = surface.nearest(points)
    np.testing.assert_allclose(distances, brute(points, corners), rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points - closest, axis=1), distances, atol=1e-12)


def test_regions_of_a_triangle_by_hand():
    surface = Surface(np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]), np.array([[0, 1, 2]]))
    points = np.array([[1.0, 1, 3], [-3, -4, 0], [2, -1, 0], [6, 0, 0], [3, 3, 0], [1, 1, 0]])
    distances, closest = surface.nearest(points)
    np.testing.assert_allclose(distances, [3, 5, 1, 2, np.sqrt(2), 0])
    np.testing.assert_allclose(closest[4], [2, 2, 0])


def test_triangles_without_area_are_edges_and_points():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]])
    surface = Surface(vertices, np.array([[0, 1, 2], [3, 3, 3], [0, 0, 1]]))
    distances, _ = surface.nearest(np.array([[1.5, 2.0, 0], [3, 0, 0], [9, 9, 12]]))
    np.testing.assert_allclose(distances, [2, 1, 3])


def test_no_points():
    surface = Surface(np.eye(3), np.array([[0, 1, 2]]))
    distances, closest = surface.nearest(np.zeros((0, 3)))
    assert distances.shape == (0,)
    assert closest.shape == (0, 3)


def test_errors():
    triangle = np.eye(3), np.array([[0, 1, 2]])
    with pytest.raises(ValueError, match=r"at least one, got \(0, 3\)"):
        Surface(triangle[0], np.zeros((0, 3), int))
    with pytest.raises(ValueError, match=r"must index the 3 vertices, got 0\.\.3"):
        Surface(triangle[0], np.array([[0, 1, 3]]))
    with pytest.raises(ValueError, match="finite"):
        Surface(np.full((3, 3), np.nan), triangle[1])
    with pytest.raises(ValueError, match="finite"):
        Surface(*triangle).nearest(np.full((1, 3), np.inf))

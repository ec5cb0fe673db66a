import numpy as np
import pytest

from ml.imaging.rasterizer import interpolate, rasterize, vertex_normals

SQUARE = np.array([[2, 2, 5], [8, 2, 5], [8, 8, 5], [2, 8, 5]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def naive(vertices, faces, height, width):
    """Every pixel against every triangle, in double precision."""
    index = np.full((height, width), -1)
    depth = np.full((height, width), np.inf)
    for row in range(height):
        for column in range(width):
            p = np.array([column + 0.5, row + 0.5])
            for k, (a, b, c) in enumerate(vertices[faces].astype(float)):
                m = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
                if abs(np.linalg.det(m)) < 1e-9:
                    continue
                w = np.linalg.solve(m, [*p, 1])
                z = w @ [a[2], b[2], c[2]]
                if (w >= 0).all() and z < depth[row, column]:
                    index[row, column], depth[row, column] = k, z
    return index, depth


def test_square_covers_exactly_its_pixels():
    index, weights, depth = rasterize(SQUARE, FACES, 10, 12)
    covered = np.zeros((10, 12), bool)
    covered[2:8, 2:8] = True
    assert np.array_equal(index >= 0, covered)
    assert (depth[covered] == 5).all()
    assert np.isinf(depth[~covered]).all()
    np.testing.assert_allclose(weights[covered].sum(-1), 1, atol=1e-6)
    assert not weights[~covered].any()


def test_nearer_triangle_wins_in_any_order():
    near = SQUARE.copy()
    near[:, 2] = 1
    near[:, :2] += 3
    vertices = np.concatenate([SQUARE, near])
    for faces in (np.concatenate([FACES, FACES + 4]), np.concatenate([FACES + 4, FACES])):
        index, _, depth = rasterize(vertices, faces, 12, 12)
        assert depth[6, 6] == 1
        assert depth[3, 3] == 5
        assert set(faces[index[6, 6]]) <= set(range(4, 8))


def test_random_triangles_agree_with_the_naive_twin():
    rng = np.random.default_rng(0)
    vertices = rng.uniform(-4, 20, (24, 3)).astype(np.float32)
    faces = rng.permutation(24).reshape(8, 3).astype(np.int32)
    index, weights, depth = rasterize(vertices, faces, 16, 18)
    wanted, wanted_depth = naive(vertices, faces, 16, 18)
    assert np.array_equal(index, wanted)
    covered = wanted >= 0
    np.testing.assert_allclose(depth[covered], wanted_depth[covered], atol=1e-3)
    position = interpolate(vertices, faces, index, weights)
    rows, columns = np.nonzero(covered)
    np.testing.assert_allclose(position[covered][:, 0], columns + 0.5, atol=1e-3)
    np.testing.assert_allclose(position[covered][:, 1], rows + 0.5, atol=1e-3)


def test_both_sides_are_drawn_and_degenerate_ones_are_not():
    assert (rasterize(SQUARE, FACES[:, ::-1], 10, 10)[0] >= 0).sum() == 36
    line = np.array([[1, 1, 0], [5, 5, 0], [9, 9, 0]], np.float32)
    assert (rasterize(line, np.array([[0, 1, 2]], np.int32), 10, 10)[0] == -1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_vertices_are_invisible(bad):
    vertices = SQUARE.copy()
    vertices[0, 0] = bad
    index, _, _ = rasterize(vertices, FACES, 10, 10)
    assert (index == -1).all()


def test_outside_and_clipped():
    assert (rasterize(SQUARE + 100, FACES, 10, 10)[0] == -1).all()
    assert (rasterize(SQUARE - [5, 5, 0], FACES, 10, 10)[0] >= 0).sum() == 9


def test_empty_mesh():
    index, _, _ = rasterize(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), 4, 5)
    assert index.shape == (4, 5)
    assert (index == -1).all()


def test_interpolation_is_linear_and_zero_outside():
    index, weights, _ = rasterize(SQUARE, FACES, 10, 10)
    ramp = interpolate(SQUARE[:, :1], FACES, index, weights)
    np.testing.assert_allclose(ramp[4, 2:8, 0], np.arange(2, 8) + 0.5, atol=1e-5)
    assert ramp.shape == (10, 10, 1)
    assert not ramp[0].any()


def test_normals_of_a_cube_corner():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2]], np.int32)
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(normals[0], -np.ones(3) / np.sqrt(3), atol=1e-6)
    lonely = vertex_normals(np.zeros((4, 3)), faces)
    assert not lonely.any()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((SQUARE[:, :2], FACES, 5, 5), r"vertices_px must be \(V, 3\), got \(4, 2\)"),
        ((SQUARE, FACES[:, :2], 5, 5), r"faces must be \(F, 3\), got \(2, 2\)"),
        ((SQUARE, FACES, 0, 5), "height and width must be positive, got 0 x 5"),
        ((SQUARE, FACES + 1, 5, 5), r"faces must index the 4 vertices, got 1..4"),
    ],
)
def test_wrong_inputs_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        rasterize(*arguments)
    with pytest.raises(ValueError, match=r"attributes must be \(V, C\)"):
        interpolate(np.zeros(4), FACES, np.zeros((2, 2), np.int32), np.zeros((2, 2, 3), np.float32))

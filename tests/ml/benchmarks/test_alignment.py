import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ml.benchmarks.alignment import fit_similarity

POINTS = np.random.default_rng(0).normal(size=(7, 3))
ROTATION = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()


def test_finds_the_similarity_that_was_applied():
    target = 2.5 * POINTS @ ROTATION.T + [1, 2, 3]
    found = fit_similarity(POINTS, target)
    assert found.scale == pytest.approx(2.5)
    np.testing.assert_allclose(found.rotation, ROTATION, atol=1e-12)
    np.testing.assert_allclose(found.translation, [1, 2, 3], atol=1e-12)
    np.testing.assert_allclose(found(POINTS), target, atol=1e-12)
    np.testing.assert_allclose(found(POINTS[2]), target[2], atol=1e-12)
    assert not found.mirrors


def test_rigid_keeps_the_scale():
    found = fit_similarity(POINTS, 2.5 * POINTS @ ROTATION.T, scaled=False)
    assert found.scale == 1.0
    np.testing.assert_allclose(found.rotation, ROTATION, atol=1e-12)


def test_mirrors_only_when_allowed():
    mirrored = POINTS * [-1, 1, 1]
    assert not fit_similarity(POINTS, mirrored).mirrors
    assert np.abs(fit_similarity(POINTS, mirrored)(POINTS) - mirrored).max() > 0.1
    best = fit_similarity(POINTS, mirrored)
    costs = [
        ((f * (best(POINTS) - best.translation) + best.translation - mirrored) ** 2).sum()
        for f in (0.99, 1.0, 1.01)
    ]
    assert costs[1] < min(costs[0], costs[2])
    free = fit_similarity(POINTS, mirrored, may_mirror=True)
    assert free.mirrors
    np.testing.assert_allclose(free(POINTS), mirrored, atol=1e-12)


def test_is_the_least_squares_solution():
    rng = np.random.default_rng(1)
    target = POINTS @ ROTATION.T + rng.normal(0, 0.3, POINTS.shape)
    best = fit_similarity(POINTS, target)
    cost = ((best(POINTS) - target) ** 2).sum()
    for _ in range(200):
        turn = Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix()
        moved = best.scale * rng.normal(1, 0.05) * POINTS @ (turn @ best.rotation).T
        moved = moved + best.translation + rng.normal(0, 0.05, 3)
        assert ((moved - target) ** 2).sum() > cost


def test_points_that_are_all_one_are_refused():
    with pytest.raises(ValueError, match="all one"):
        fit_similarity(np.ones((7, 3)), POINTS)
    with pytest.raises(ValueError, match=r"got \(7, 3\), \(6, 3\)"):
        fit_similarity(POINTS, POINTS[:6])

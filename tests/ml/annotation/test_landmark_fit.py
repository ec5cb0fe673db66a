"""The head model fitted to landmarks that are exactly known, moved, misplaced or useless."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.annotation.landmark_fit import LandmarkFitConfig, SurfacePoints, fit_landmarks
from ml.evaluation.metrics import aligned_error, geodesic_deg
from ml.flame.geometry import HeadGeometry
from ml.flame.params import EXPRESSION, JAW, ROTATION, SCALE, SHAPE, SHIFT_XY
from ml.flame.rotation import matrix_from_euler_deg, sixd_from_matrix

QUICK = LandmarkFitConfig(iterations=100, num_shape=20, num_expression=10)


@pytest.fixture(scope="module")
def geometry(open_head):
    return HeadGeometry(open_head)


@pytest.fixture(scope="module")
def surface(open_head):
    points = open_head.landmark_faces, open_head.landmark_barycentric
    return SurfacePoints(open_head, points)


@pytest.fixture(scope="module")
def heads():
    """Five heads of the priors, from frontal to 60 degrees, mouths open and closed, px."""
    rng = np.random.default_rng(3)
    flame = np.zeros((5, 413), np.float32)
    flame[:, SHAPE][:, :10] = rng.normal(size=(5, 10))
    flame[:, EXPRESSION][:, :6] = rng.normal(size=(5, 6))
    flame[:, JAW.start] = [0, 0.1, 0.2, 0.3, 0]
    angles = torch.tensor([[0, 0, 0], [15, 30, 5], [-20, -60, 0], [5, 60, -15], [-10, 10, 40.0]])
    flame[:, ROTATION] = sixd_from_matrix(matrix_from_euler_deg(angles))
    flame[:, SHIFT_XY] = [[120, 130], [90, 100], [128, 128], [110, 140], [400, 300]]
    flame[:, SCALE] = [[600], [500], [640], [700], [2000]]
    return flame


@pytest.fixture(scope="module")
def landmarks(geometry, heads):
    return torch.from_numpy(geometry.landmarks_px(heads))


@pytest.fixture(scope="module")
def fitted(landmarks, surface):
    return fit_landmarks(landmarks, surface, QUICK)


def rotation_errors(geometry, fit, heads):
    return geodesic_deg(geometry.rotations(fit.flame), geometry.rotations(heads))


def test_the_points_are_the_head_models_landmarks(surface, geometry, heads, landmarks):
    flame = torch.from_numpy(heads).double()
    points = surface(flame[:, SHAPE], flame[:, EXPRESSION], flame[:, JAW])
    assert points.dtype == torch.float64
    assert points.shape == (5, len(surface), 3)
    still = heads.copy()
    still[:, ROTATION], still[:, SHIFT_XY], still[:, SCALE] = (1, 0, 0, 0, 1, 0), 0, 1
    np.testing.assert_allclose(points[..., :2], geometry.landmarks_px(still), atol=1e-6)


def test_exact_landmarks_give_the_head_back(fitted, geometry, heads, landmarks):
    assert fitted.problems == [""] * 5
    assert fitted.error_mm.max() < 0.7
    errors = rotation_errors(geometry, fitted, heads)
    assert errors.max() < 4
    assert np.median(errors) < 1
    np.testing.assert_allclose(
        fitted.flame[:, SCALE], heads[:, SCALE], rtol=0.1
    )  # age is size, too
    again = geometry.landmarks_px(fitted.flame)
    pixels_per_mm = heads[:, SCALE.start] / 1000
    off_mm = np.linalg.norm(again - landmarks.numpy(), axis=2).mean(axis=1) / pixels_per_mm
    assert off_mm.max() < 1
    # Shape, expression and jaw are seen, not only the pose.
    nobody = heads.copy()
    nobody[:, :403] = 0
    true = geometry.canonical_vertices(heads)
    fit, mean = (
        aligned_error(geometry.canonical_vertices(flame), true) for flame in (fitted.flame, nobody)
    )
    assert (fit < mean).all()
    assert fit.mean() < 0.6 * mean.mean()
    assert np.abs(fitted.flame[:, JAW.start] - heads[:, JAW.start]).max() < 0.12
    assert (fitted.flame[:, 411] == 0).all()


def test_a_head_is_fitted_for_itself(landmarks, surface):
    # What couples heads does so in every step: the first ones tell.
    brief = QUICK.model_copy(update={"iterations": 25})
    together = fit_landmarks(landmarks, surface, brief).flame
    assert np.isfinite(together).all()
    one = [fit_landmarks(landmarks[i : i + 1], surface, brief).flame for i in range(5)]
    np.testing.assert_allclose(np.concatenate(one), together, rtol=1e-5, atol=1e-5)
    few = brief.model_copy(update={"heads_per_batch": 2})
    np.testing.assert_allclose(
        fit_landmarks(landmarks, surface, few).flame, together, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(
        fit_landmarks(landmarks, surface, brief).flame, together, "the same twice"
    )


def test_the_frame_of_the_landmarks_is_the_frame_of_the_head(fitted, landmarks, surface):
    moved = fit_landmarks(3 * landmarks + torch.tensor([50.0, -20.0]), surface, QUICK)
    np.testing.assert_allclose(moved.flame[:, :409], fitted.flame[:, :409], atol=0.06)
    expected = 3 * fitted.flame[:, SHIFT_XY] + [50, -20]
    np.testing.assert_allclose(moved.flame[:, SHIFT_XY], expected, atol=0.5)
    np.testing.assert_allclose(moved.flame[:, SCALE], 3 * fitted.flame[:, SCALE], rtol=1e-3)


def test_misplaced_landmarks_pull_little(fitted, landmarks, surface, geometry, heads):
    wrong = landmarks.clone()
    rng = np.random.default_rng(5)
    for head in range(5):
        worst = rng.choice(68, 7, replace=False)
        wrong[head, worst] += 0.08 * float(heads[head, SCALE.start])
    robust = fit_landmarks(wrong, surface, QUICK)
    squares = QUICK.model_copy(update={"freedom": 1e6, "max_error_std": 100.0})
    least_squares = fit_landmarks(wrong, surface, squares)
    robust_deg = rotation_errors(geometry, robust, heads).mean()
    assert robust_deg < 4
    assert rotation_errors(geometry, least_squares, heads).mean() > 2 * robust_deg


def test_unknown_landmarks_are_left_out(landmarks, surface, geometry, heads):
    some = landmarks.clone()
    some[:, 30:60:2] = torch.nan
    some[0, 3, 1] = torch.inf
    # Least squares: any stand-in for what is unknown would pull.
    fit = fit_landmarks(some, surface, QUICK.model_copy(update={"freedom": 1e6}))
    assert fit.problems == [""] * 5
    assert rotation_errors(geometry, fit, heads).max() < 6


def test_the_more_noise_is_expected_the_more_the_priors_count(fitted, landmarks, surface):
    vague = fit_landmarks(
        landmarks, surface, QUICK.model_copy(update={"noise_mm": 100.0, "jaw_std_rad": (1e-3,) * 3})
    )
    size = [np.abs(fit.flame[:, :400]).max() for fit in (fitted, vague)]
    assert size[1] < 0.2 * size[0]
    assert np.abs(vague.flame[:, JAW]).max() < 0.01


def test_what_cannot_be_fitted_says_why_and_the_rest_is_unharmed(fitted, landmarks, surface):
    bad = landmarks.clone()
    bad[0, 7:] = torch.nan
    bad[1] = 40.0
    rng = torch.Generator().manual_seed(0)
    bad[3] = 256 * torch.rand(68, 2, generator=rng)
    fit = fit_landmarks(bad, surface, QUICK)
    assert [not problem for problem in fit.problems] == [False, False, True, False, True]
    assert fit.problems[0] == "7 of its 68 landmarks are known, expected at least 8"
    assert fit.problems[1] == "its landmarks lie on one spot: they spread over 0.00 px"
    assert "mm or more from the fitted head, expected at most 8" in fit.problems[3]
    assert np.isnan(fit.flame[[0, 1, 3]]).all()
    np.testing.assert_allclose(fit.flame[[2, 4]], fitted.flame[[2, 4]], rtol=1e-5, atol=1e-5)


def test_no_heads_and_other_points(surface):
    fit = fit_landmarks(torch.zeros(0, 68, 2), surface, QUICK)
    assert (fit.flame.shape, fit.problems) == ((0, 413), [])
    with pytest.raises(ValueError, match=r"landmarks_px: expected \(N, 68, 2\), got \(1, 51, 2\)"):
        fit_landmarks(torch.zeros(1, 51, 2), surface, QUICK)
    with pytest.raises(ValueError, match="less than or equal to 300"):
        LandmarkFitConfig(num_shape=301)

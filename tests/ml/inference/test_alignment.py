import numpy as np
import pytest
import torch

from ml.flame.rotation import matrix_from_euler_deg
from ml.inference.alignment import align_head, tilt_rad


def rotation(pitch, yaw, roll_in_image_deg):
    """A head with pitch and yaw, then turned clockwise in the image plane."""
    head = matrix_from_euler_deg(torch.tensor([pitch, yaw, 0.0], dtype=torch.float64)).numpy()
    angle = np.deg2rad(roll_in_image_deg)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ head


@pytest.mark.parametrize("yaw", [0, 45, 59, 61, 90, 120, 180, -90])
@pytest.mark.parametrize("lean", [-150, -40, 0, 75, 170])
def test_the_lean_is_found_at_any_yaw(yaw, lean):
    assert np.rad2deg(tilt_rad(rotation(0, yaw, lean))) == pytest.approx(lean, abs=1e-6)
    # A head that nods does so in its own plane of symmetry, at any yaw.
    assert np.rad2deg(tilt_rad(rotation(30, yaw, lean))) == pytest.approx(lean, abs=1e-6)


@pytest.mark.parametrize("pitch", [90, -90])
def test_looking_straight_up_or_down_has_a_lean_too(pitch):
    assert np.rad2deg(tilt_rad(rotation(pitch, 0, 20))) == pytest.approx(20, abs=1e-6)


@pytest.fixture
def scene():
    """A head's points, of which one shows as a red dot, on an image twice as wide as high."""
    image = np.full((120, 240, 3), 40, np.uint8)
    points = np.array([[150.0, 40], [190, 40], [170, 90]])
    image[38:42, 188:192] = (255, 0, 0)
    return image, points, np.array([170.0, 60.0])


@pytest.mark.parametrize("lean", [0, 30, -100, 180])
@pytest.mark.parametrize("size", [None, 32, 300])
def test_the_image_agrees_with_its_matrix(scene, lean, size):
    image, points, centre = scene
    before = image.copy()
    aligned = align_head(image, points, centre, rotation(0, 0, lean), size)
    assert (image == before).all()
    side = aligned.image_rgb.shape[0]
    assert aligned.image_rgb.shape == (side, side, 3)
    assert size in (None, side)
    moved = points @ aligned.matrix[:, :2].T + aligned.matrix[:, 2]
    assert ((moved > 0) & (moved < side)).all()
    red = (aligned.image_rgb[..., 0].astype(float) - aligned.image_rgb[..., 1]).clip(0)
    rows, columns = np.indices(red.shape) + 0.5
    found = np.array([(red * columns).sum(), (red * rows).sum()]) / red.sum()
    assert np.abs(found - moved[1]).max() < 0.05


def test_it_turns_about_the_skull_and_stands_upright(scene):
    image, points, centre = scene
    lean = 35
    turn = rotation(0, 0, lean)[:2, :2] @ np.diag([1, -1])
    leaning = (points - centre) @ turn.T + centre
    upright = align_head(image, points, centre, rotation(0, 0, 0), 100).matrix
    aligned = align_head(image, leaning, centre, rotation(0, 0, lean), 100).matrix
    for a, b in ((points, leaning), (centre, centre)):
        np.testing.assert_allclose(
            a @ upright[:, :2].T + upright[:, 2], b @ aligned[:, :2].T + aligned[:, 2], atol=1e-6
        )


@pytest.mark.parametrize("where", [(-30, 20), (235, 60), (100, 118), (-500, -500)])
def test_heads_over_the_border_are_grey_there(scene, where):
    image, points, _ = scene
    shift = np.array(where) - points.mean(axis=0)
    aligned = align_head(image, points + shift, np.array(where, float), rotation(0, 0, 10))
    assert aligned.image_rgb.shape[0] == aligned.image_rgb.shape[1] > 59
    assert (aligned.image_rgb == 127).all(axis=2).any()
    if where[0] > -100:
        assert (aligned.image_rgb == 40).all(axis=2).any()


def test_a_size_of_nothing_is_refused(scene):
    with pytest.raises(ValueError, match="size must be at least 1 px, got 0"):
        align_head(*scene, rotation(0, 0, 0), 0)

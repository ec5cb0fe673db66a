"""Hidden keypoints get low confidences, seen ones high, outside ones none."""

from dataclasses import replace

import numpy as np
import pytest

from ml.poses.figure import sample_figure
from ml.poses.occlusion import (
    _LIMBS,
    PlacedFigure,
    _hidden_by_self,
    confidences,
    covers,
    hidden_fraction,
    inside_fraction,
)
from ml.poses.openpose import MIN_CONFIDENCE
from ml.records.ids import sample_rng


def place(x, y=60.0, distance=1.0, yaw=0.0, scale=100.0, seed="occlusion"):
    figure = sample_figure(
        sample_rng(5, "test", seed),
        body_yaw_deg=yaw,
        camera_pitch_deg=0.0,
        is_child=False,
        posture="standing",
        gaze=0.0,
    )
    shift = np.array([x, y]) - scale * figure.head_centre_m[:2]
    return PlacedFigure(figure, scale, shift.astype(np.float32), distance)


def test_points_follow_from_scale_and_shift():
    person = place(100.0)
    np.testing.assert_allclose(person.head_px, [100.0, 60.0], atol=1e-3)
    expected = person.scale_px_per_m * person.figure.joints_m[:, :2] + person.shift_px
    np.testing.assert_allclose(person.points_px, expected)


def test_body_covers_its_torso_and_not_the_air_beside_it():
    person = place(100.0)
    torso = person.points_px[[5, 6, 11, 12]].mean(0)
    points = np.stack([person.head_px, torso, torso + np.array([200.0, 0.0])])
    assert covers(person, points).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("shift", "low", "high"), [(0.0, 1.0, 1.0), (11.0, 0.3, 0.7), (150.0, 0, 0)]
)
def test_hidden_share_of_a_head_behind_another(shift, low, high):
    """Discs of radius 11 px: the same place hides all, a radius away about 39 % stay covered."""
    front, back = place(100.0), place(100.0 + shift, distance=2.0)
    assert low <= hidden_fraction(back, [front]) <= high
    assert hidden_fraction(front, []) == 0.0


@pytest.mark.parametrize(("x", "low", "high"), [(100.0, 1.0, 1.0), (0.0, 0.4, 0.6), (-30.0, 0, 0)])
def test_inside_fraction(x, low, high):
    assert low <= inside_fraction(place(x), 256, 256) <= high


def test_face_away_from_the_camera_is_hidden():
    toward = place(100.0)
    away = place(100.0, yaw=180.0)
    rng = sample_rng(5, "test", "confidence")
    (front,) = confidences([toward], 256, 256, rng)
    (back,) = confidences([away], 256, 256, rng)
    assert (front[:3] > MIN_CONFIDENCE).all()
    assert (back[:3] < MIN_CONFIDENCE).all()


def test_profile_hides_the_far_ear_and_eye():
    person = place(100.0, yaw=80.0)  # nose to the image's left: the head's right side is far
    (confidence,) = confidences([person], 256, 256, sample_rng(5, "test", "profile"))
    assert confidence[4] < MIN_CONFIDENCE < confidence[3]


def test_outside_is_zero_and_covered_by_others_is_low():
    rng = sample_rng(5, "test", "others")
    (lonely,) = confidences([place(100.0, 150.0)], 256, 256, rng)
    front, behind = confidences([place(100.0), place(104.0, distance=2.0)], 256, 256, rng)
    below = place(100.0, 150.0).points_px[:, 1] >= 256
    assert below.any()
    assert (lonely[below] == 0).all()
    assert behind.sum() < 0.6 * front.sum()
    assert lonely.dtype == np.float32
    assert ((lonely >= 0) & (lonely <= 1)).all()


@pytest.mark.parametrize(("first", "second", "radius_m"), _LIMBS[4:])
def test_a_limb_covers_what_is_within_its_radius(first, second, radius_m):
    person = place(100.0, seed="limbs")
    joints = person.points_px
    # Away from the body, where no other limb is near.
    apart = np.array([[0.0, 0.0]] * 17)
    apart[:, 1] = 1000.0 * np.arange(17)
    apart[first], apart[second] = [5000.0, 0.0], [5100.0, 40.0]
    figure = replace(person.figure, joints_m=_in_metres(person, apart, joints))
    middle, across = np.array([5050.0, 20.0]), np.array([-40.0, 100.0]) / np.hypot(40.0, 100.0)
    radius_px = radius_m * person.scale_px_per_m
    points = middle + np.outer([0.0, 0.9 * radius_px, 1.1 * radius_px, -1.1 * radius_px], across)
    limb = replace(person, figure=figure)
    assert covers(limb, points).tolist() == [True, True, False, False]


def _in_metres(person, points_px, joints_px):
    """Joints whose image positions are the given ones."""
    moved = person.figure.joints_m.copy()
    moved[:, :2] += (points_px - joints_px) / person.scale_px_per_m
    return moved


def test_a_wrist_behind_the_torso_is_hidden_and_one_in_front_is_seen():
    person = place(100.0, seed="wrist")
    joints = person.figure.joints_m.copy()
    chest = joints[[5, 6, 11, 12]].mean(axis=0)
    for depth_m, hidden in ((0.4, True), (-0.4, False)):
        joints[9] = chest + np.array([0.0, 0.0, depth_m])
        turned = replace(person, figure=replace(person.figure, joints_m=joints.copy()))
        assert _hidden_by_self(turned)[9] == hidden

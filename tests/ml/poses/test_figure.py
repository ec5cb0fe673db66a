"""The articulated figure: bone lengths, inverse kinematics, a head that agrees with its face."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ml.poses import figure as figures
from ml.poses.figure import (
    FACE_POINTS_M,
    GESTURES,
    HEAD_RADIUS_M,
    IMAGE_FROM_BODY,
    hug,
    looks_like_child,
    sample_figure,
    sample_proportions,
    two_bone,
)
from ml.poses.skeleton import COCO_KEYPOINTS
from ml.records.ids import sample_rng

BONES = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))


def make(seed, **changes):
    settings = {
        "body_yaw_deg": 0.0,
        "camera_pitch_deg": 0.0,
        "is_child": False,
        "posture": "standing",
        "gaze": 0.5,
    }
    return sample_figure(sample_rng(3, "test", str(seed)), **{**settings, **changes})


def test_two_bone_right_angle_by_hand():
    # Arms of 3 and 4 reach a target 5 away with a right angle at the elbow.
    elbow, wrist = two_bone(
        np.zeros(3), np.array([5.0, 0.0, 0.0]), 3.0, 4.0, np.array([0.0, 1.0, 0.0])
    )
    np.testing.assert_allclose(elbow, [1.8, 2.4, 0.0], atol=1e-9)
    np.testing.assert_allclose(wrist, [5.0, 0.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("target", [(0, -9, 0), (0, 0, 0), (0.01, 0, 0), (0.2, 0.1, -0.3)])
@pytest.mark.parametrize("pole", [(0, 0, 1), (0, -1, 0), (1, 0, 0)])
def test_two_bone_keeps_lengths_for_any_target(target, pole):
    root = np.array([0.1, 0.2, 0.3])
    elbow, wrist = two_bone(root, root + np.array(target, float), 0.3, 0.25, np.array(pole, float))
    assert np.linalg.norm(elbow - root) == pytest.approx(0.3, abs=1e-9)
    assert np.linalg.norm(wrist - elbow) == pytest.approx(0.25, abs=1e-9)


COORDINATE = st.floats(-2, 2, allow_nan=False)
VECTOR = st.tuples(COORDINATE, COORDINATE, COORDINATE).map(np.array)


@settings(max_examples=80, deadline=None)
@given(
    root=VECTOR, target=VECTOR, pole=VECTOR, first=st.floats(0.1, 0.6), second=st.floats(0.1, 0.6)
)
@example(
    root=np.zeros(3), target=np.array([1.0, 0.0, 1.0]), pole=np.zeros(3), first=0.5, second=0.5
)
def test_two_bone_is_exact_within_reach(root, target, pole, first, second):
    elbow, wrist = two_bone(root, target, first, second, pole)
    assert np.linalg.norm(elbow - root) == pytest.approx(first, abs=1e-9)
    assert np.linalg.norm(wrist - elbow) == pytest.approx(second, abs=1e-9)
    distance = np.linalg.norm(target - root)
    if abs(first - second) + 0.02 < distance < 0.995 * (first + second):
        np.testing.assert_allclose(wrist, target, atol=1e-9)


@pytest.mark.parametrize("posture", ["standing", "walking", "sitting"])
def test_limbs_are_as_long_as_a_human_s(posture):
    for seed in range(40):
        figure = make(seed, posture=posture, body_yaw_deg=9.0 * seed)
        joints = figure.joints_m
        lengths = {pair: np.linalg.norm(joints[pair[0]] - joints[pair[1]]) for pair in BONES}
        assert 0.22 < lengths[5, 7] < 0.36
        assert 0.34 < lengths[11, 13] < 0.53
        # Left and right bones of one body are equally long.
        for left, right in ((BONES[0], BONES[2]), (BONES[1], BONES[3]), (BONES[4], BONES[6])):
            assert lengths[left] == pytest.approx(lengths[right], rel=1e-4)


def test_child_and_adult_are_told_apart_in_every_posture():
    for seed in range(60):
        posture = ("standing", "walking", "sitting")[seed % 3]
        for is_child in (False, True):
            figure = make(seed, posture=posture, is_child=is_child, body_yaw_deg=13.0 * seed)
            assert looks_like_child(figure.joints_m) == is_child
            assert (figure.head_scale < 0.94) == is_child


def test_child_has_shorter_legs_against_the_torso():
    rng = sample_rng(1, "test", "children")
    adults = [sample_proportions(rng, False) for _ in range(50)]
    children = [sample_proportions(rng, True) for _ in range(50)]
    ratio = [np.mean([p.thigh / p.torso for p in people]) for people in (adults, children)]
    assert ratio[1] < ratio[0]


def test_head_rotation_is_a_rotation_and_carries_the_face():
    """Head pose from nose, eyes and ears (Kabsch) is the stated head rotation."""
    for seed in range(60):
        figure = make(seed, body_yaw_deg=-180 + 6.0 * seed, camera_pitch_deg=seed % 20 - 10)
        rotation = figure.head_rotation.astype(np.float64)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)
        face = figure.joints_m[:5].astype(np.float64)
        estimate, _ = Rotation.align_vectors(
            face - face.mean(0), FACE_POINTS_M - FACE_POINTS_M.mean(0)
        )
        np.testing.assert_allclose(estimate.as_matrix(), rotation, atol=2e-3)
        np.testing.assert_allclose(face - face.mean(0) + (face.mean(0) - figure.head_centre_m),
                                   FACE_POINTS_M @ rotation.T, atol=1e-5)  # fmt: skip


def test_positive_yaw_turns_the_nose_to_the_left_of_the_image():
    figure = make(0, body_yaw_deg=60.0, gaze=0.0)
    nose = figure.joints_m[0] - figure.head_centre_m
    assert nose[0] < -0.03
    turned = make(0, body_yaw_deg=-60.0, gaze=0.0)
    assert (turned.joints_m[0] - turned.head_centre_m)[0] > 0.03


def test_left_is_on_the_right_of_the_image_for_a_frontal_body():
    figure = make(4)
    assert COCO_KEYPOINTS[5] == "left_shoulder"
    assert figure.joints_m[5, 0] > figure.joints_m[6, 0]
    assert figure.joints_m[11, 0] > figure.joints_m[12, 0]
    # y grows downwards: the head is above the hips, the hips above the ankles.
    assert figure.head_centre_m[1] < figure.joints_m[11, 1] < figure.joints_m[15, 1]


def test_gaze_turns_the_head_back_to_the_camera():
    def nose_depth(gaze):
        figures = [make(seed, body_yaw_deg=50.0, gaze=gaze) for seed in range(50)]
        return np.mean([figure.head_rotation[2, 2] for figure in figures])

    assert nose_depth(1.0) < nose_depth(0.0) - 0.15


def test_camera_from_above_brings_the_head_nearer_than_the_feet():
    level, above = make(9, camera_pitch_deg=0.0), make(9, camera_pitch_deg=20.0)
    assert above.head_centre_m[2] < level.head_centre_m[2] - 0.1
    assert above.joints_m[15, 2] > level.joints_m[15, 2]


def test_hands_near_the_face_are_near_the_face():
    reached = {"chin": 0, "cheek": 0, "phone": 0, "forehead": 0}
    for seed in range(300):
        figure = make(seed)
        for action, wrist in zip(figure.arm_targets, (9, 10), strict=True):
            if action in reached:
                distance = np.linalg.norm(figure.joints_m[wrist] - figure.head_centre_m)
                reached[action] += 1
                assert distance < 2.6 * HEAD_RADIUS_M
    assert min(reached.values()) > 0


def test_sitting_knees_are_in_front_of_the_hips():
    for seed in range(20):
        joints = make(seed, posture="sitting").joints_m
        assert joints[13, 2] < joints[11, 2] - 0.2  # nearer to the camera for a frontal body


def test_hug_moves_one_arm_only_and_keeps_its_length():
    figure = make(2)
    target = figure.joints_m[5] + np.array([0.35, 0.0, 0.1])
    hugging = hug(figure, "left", target)
    np.testing.assert_allclose(hugging.joints_m[9], target, atol=1e-5)
    for first, second in BONES[:2]:
        before = np.linalg.norm(figure.joints_m[first] - figure.joints_m[second])
        after = np.linalg.norm(hugging.joints_m[first] - hugging.joints_m[second])
        assert after == pytest.approx(before, abs=1e-5)
    others = [index for index in range(17) if index not in (7, 9)]
    np.testing.assert_array_equal(hugging.joints_m[others], figure.joints_m[others])
    assert hugging.arm_targets == ("hug", figure.arm_targets[1])


@pytest.mark.parametrize("pair", GESTURES)
def test_every_gesture_moves_the_arms(pair, monkeypatch):
    monkeypatch.setattr(figures, "GESTURES", {pair: 1.0})
    assert np.isfinite(make(5).joints_m).all()


def test_gestures_are_a_distribution():
    assert sum(GESTURES.values()) == pytest.approx(1.0)


def test_same_seed_same_figure():
    np.testing.assert_array_equal(make(5).joints_m, make(5).joints_m)
    assert not np.array_equal(make(5).joints_m, make(6).joints_m)


def test_image_axes_are_a_proper_rotation_of_body_axes():
    assert np.linalg.det(IMAGE_FROM_BODY) == 1.0

import numpy as np
import pytest

from ml.benchmarks.conventions import (
    FRONTAL,
    euler_from_rotations,
    rotations_from_euler,
    rotations_from_matrices,
)

ANGLES = np.array([[10.0, -35.0, 20.0], [-5.0, 70.0, -40.0], [0.0, 0.0, 0.0]])


def elementary(axis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_the_product_in_the_module_s_first_lines():
    for angles, rotation in zip(ANGLES, rotations_from_euler(ANGLES), strict=True):
        p, y, r = angles
        by_hand = FRONTAL @ elementary("x", -p) @ elementary("y", -y) @ elementary("z", -r)
        np.testing.assert_allclose(rotation, by_hand, atol=1e-12)


def test_biwi_s_published_formula_gives_the_angles_of_its_matrix_as_ours():
    for angles, rotation in zip(ANGLES, rotations_from_euler(ANGLES), strict=True):
        pose_file = rotation @ FRONTAL
        turned = pose_file.T
        pitch = np.arctan2(turned[2, 1], turned[2, 2])
        yaw = -np.arctan2(-turned[2, 0], np.hypot(turned[2, 1], turned[2, 2]))
        roll = -np.arctan2(turned[1, 0], turned[0, 0])
        np.testing.assert_allclose(np.degrees([pitch, yaw, roll]), angles, atol=1e-9)
        ours = rotations_from_matrices(pose_file[None], "camera")
        np.testing.assert_allclose(euler_from_rotations(ours)[0], angles, atol=1e-9)


@pytest.mark.parametrize(
    ("convention", "matrix"),
    [
        ("6drepnet", lambda p, y, r: elementary("z", r) @ elementary("y", y) @ elementary("x", p)),
        ("3ddfa", lambda p, y, r: elementary("x", -p) @ elementary("y", -y) @ elementary("z", -r)),
        ("camera", lambda p, y, r: elementary("x", -p) @ elementary("y", y) @ elementary("z", r)),
    ],
)
def test_matrices_of_other_methods_mean_the_same_angles(convention, matrix):
    written = np.stack([matrix(*angles) for angles in ANGLES])
    found = euler_from_rotations(rotations_from_matrices(written, convention))
    np.testing.assert_allclose(found, ANGLES, atol=1e-9)


def test_euler_angles_of_other_orders_and_units():
    ours = rotations_from_euler(ANGLES)
    for convention, written in {
        "pitch_yaw_roll_rad": np.radians(ANGLES),
        "yaw_pitch_roll_deg": ANGLES[:, [1, 0, 2]],
    }.items():
        np.testing.assert_allclose(rotations_from_euler(written, convention), ours, atol=1e-9)
    # BIWI's .bin: extrinsic xyz of the matrix that is not transposed
    bins = np.array([[10.0, -35.0, 20.0]])
    by_hand = elementary("z", 20) @ elementary("y", -35) @ elementary("x", 10) @ FRONTAL
    np.testing.assert_allclose(rotations_from_euler(bins, "biwi_bin_deg")[0], by_hand, atol=1e-12)


def test_an_unknown_convention_is_named_beside_those_there_are():
    with pytest.raises(ValueError, match=r"expected one of pitch_yaw_roll_deg.*got 'zyx'"):
        rotations_from_euler(ANGLES, "zyx")

import numpy as np
import pytest

from ml.benchmarks.conventions import FRONTAL, rotations_from_euler
from ml.benchmarks.face_boxes import azimuth_deg, face_boxes, visible_faces


def turned(yaw_deg):
    """A head turned about the image's vertical axis by any angle."""
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ FRONTAL


def test_azimuth_goes_all_round_where_yaw_stays_within_ninety_degrees():
    angles = np.array([0.0, 60, 89, 91, 135, -120])
    np.testing.assert_allclose(azimuth_deg(np.stack([turned(a) for a in angles])), angles)
    # within a right angle it is the yaw of the Euler angles
    euler = np.array([[0.0, 40, 0], [0, -70, 0]])
    np.testing.assert_allclose(azimuth_deg(rotations_from_euler(euler)), [40, -70], atol=1e-9)


def test_both_readings_of_the_rule():
    rotations = np.stack([turned(a) for a in (0, 89, 91, 179)])
    assert visible_faces(rotations, "half_pi").tolist() == [True, True, False, False]
    assert visible_faces(rotations, "pi").all()
    with pytest.raises(ValueError, match="yaw rule: expected one of pi, half_pi, got '7'"):
        visible_faces(rotations, "7")


def test_boxes_go_round_the_given_vertices_only():
    vertices = np.array([[[0.0, 0, 9], [10, 5, 9], [4, 20, 9], [100, 100, 9]]])
    np.testing.assert_array_equal(face_boxes(vertices, np.array([0, 1, 2])), [[0, 0, 10, 20]])
    with pytest.raises(ValueError, match="expected indices below 4, got 2 from 0 to 4"):
        face_boxes(vertices, np.array([0, 4]))

import numpy as np
import pytest

from ml.benchmarks.samples import BrokenAnnotation, FaceBoxes, FaceScan, HeadMesh, HeadPose


def test_boxes_are_checked_with_everything_that_belongs_to_them():
    truth = FaceBoxes(
        np.array([[0, 0, 2, 2], [1, 1, 3, 3]]), kept={"easy": np.array([True, False])}
    )
    assert len(truth) == 2
    assert not truth.ignored.any()
    with pytest.raises(BrokenAnnotation, match=r"boxes: expected shape \(N, 4\), got \(2, 3\)"):
        FaceBoxes(np.zeros((2, 3)))
    with pytest.raises(BrokenAnnotation, match="easy: expected 2 values, one a face"):
        FaceBoxes(np.zeros((2, 4)), kept={"easy": np.array([True])})
    with pytest.raises(BrokenAnnotation, match="boxes: contains NaN"):
        FaceBoxes(np.full((1, 4), np.nan))


def test_a_pose_states_its_angles_and_refuses_what_is_no_rotation():
    pose = HeadPose(np.diag([1.0, -1.0, -1.0]))
    np.testing.assert_allclose(pose.euler_deg, 0, atol=1e-9)
    with pytest.raises(BrokenAnnotation, match=r"expected a rotation.*determinant is -1"):
        HeadPose(np.diag([1.0, 1.0, -1.0]))
    with pytest.raises(BrokenAnnotation, match="orthonormal to 3"):
        HeadPose(np.diag([2.0, 1.0, 1.0]))
    with pytest.raises(BrokenAnnotation, match=r"landmarks_px: expected shape \(68, N\)"):
        HeadPose(np.eye(3), landmarks_px=np.zeros((21, 2)))


def test_meshes_and_scans_are_checked():
    with pytest.raises(BrokenAnnotation, match=r"projected vertices: expected shape \(4, 2\)"):
        HeadMesh(np.zeros((4, 3)), np.zeros((5, 2)), np.eye(3), np.zeros(4))
    with pytest.raises(BrokenAnnotation, match=r"landmarks: expected shape \(7, 3\)"):
        FaceScan(np.zeros((4, 3)), np.zeros((6, 3)))

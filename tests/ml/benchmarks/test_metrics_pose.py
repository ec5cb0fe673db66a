import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ml.benchmarks.conventions import euler_from_rotations, rotations_from_matrices
from ml.benchmarks.metrics_pose import (
    POSE_PROTOCOLS,
    PosePairs,
    frame_rotation,
    frobenius_error,
    img2pose_error_deg,
    score_poses,
    sixd_repnet_error_deg,
    vggheads_error_deg,
)

FRONTAL = np.diag([1.0, -1.0, -1.0])
NAN = np.nan


def heads(count, seed=0, spread=40.0):
    rng = np.random.default_rng(seed)
    return Rotation.from_euler("xyz", rng.uniform(-spread, spread, (count, 3)), degrees=True)


def matrices(rotations):
    return rotations.as_matrix() @ FRONTAL


def pairs(predicted, true, **more):
    return PosePairs(np.arange(len(true)), true, predicted, **more)


@pytest.mark.parametrize("protocol", POSE_PROTOCOLS)
def test_a_perfect_prediction_has_no_error(protocol):
    true = matrices(heads(20))
    scores = score_poses(pairs(true, true), protocol, resamples=10)
    assert scores.protocol == protocol
    assert scores.metrics["euler_mae_deg"] == pytest.approx(0, abs=1e-6)
    assert scores.counts == {"num_images": 20, "num_heads": 20, "num_found": 20, "num_missed": 0}
    assert scores.intervals["euler_mae_deg"][1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("protocol", POSE_PROTOCOLS)
def test_nothing_found_is_nan_and_counted(protocol):
    true = matrices(heads(4))
    scores = score_poses(pairs(np.full_like(true, NAN), true), protocol, resamples=5)
    assert np.isnan(scores.metrics["euler_mae_deg"])
    assert scores.counts["num_missed"] == 4
    if protocol == "ours":
        assert scores.metrics["rotation_failure_rate_10"] == 1.0
        assert scores.metrics["rotation_with_misses_deg"] == 180.0


def test_no_heads_at_all():
    empty = np.zeros((0, 3, 3))
    scores = score_poses(pairs(empty, empty), "ours", resamples=3)
    assert np.isnan(scores.metrics["rotation_deg"])
    assert scores.counts["num_heads"] == 0


def test_angles_by_hand_under_each_protocol():
    predicted = np.array([[10.0, 179.0, 0.0]])
    true = np.array([[5.0, -178.0, 180.0]])
    # 5; 357 which is 3 the short way round; 180, or nothing if half a turn is forgiven
    assert img2pose_error_deg(predicted, true).tolist() == [[5, 357, 180]]
    assert sixd_repnet_error_deg(predicted, true).tolist() == [[5, 3, 0]]
    # 179 is over 135 degrees, so the whole prediction becomes (0, 0, 0)
    assert vggheads_error_deg(predicted, true).tolist() == [[5, 178, 180]]
    predicted = np.array([[10.0, 134.0, 0.0]])
    assert vggheads_error_deg(predicted, true).tolist() == [[5, 48, 180]]


def test_a_head_turned_by_half_a_turn_scores_nothing_under_6drepnet_only():
    true = np.zeros((1, 3))
    turned = np.array([[0.0, 180.0, 0.0]])
    assert sixd_repnet_error_deg(turned, true).max() == 0
    assert img2pose_error_deg(turned, true).max() == 180
    rotation = (Rotation.from_euler("y", 180, degrees=True).as_matrix() @ FRONTAL)[None]
    scores = score_poses(pairs(rotation, FRONTAL[None]), "ours", resamples=2)
    assert scores.metrics["rotation_deg"] == pytest.approx(180)


def test_true_yaws_beyond_a_turn_are_compared_the_short_way():
    true = matrices(heads(3))
    angles = euler_from_rotations(true)
    raw = angles + np.array([0.0, -360.0, 0.0])
    for protocol in ("vggheads", "6drepnet", "ours"):
        scores = score_poses(pairs(true, true, true_euler_deg=raw), protocol, resamples=2)
        assert scores.metrics["yaw_mae_deg"] == pytest.approx(0, abs=1e-4)
    scores = score_poses(pairs(true, true, true_euler_deg=raw), "img2pose", resamples=2)
    assert scores.metrics["yaw_mae_deg"] == pytest.approx(360)


def test_img2pose_keeps_the_previous_pose_for_a_missed_head():
    true = np.array([[0.0, 0, 0], [30, 0, 0], [50, 0, 0], [60, 0, 0]])
    predicted = np.array([[NAN] * 3, [31, 0, 0], [NAN] * 3, [60, 0, 0]])
    errors = img2pose_error_deg(predicted, true)
    assert np.isnan(errors[0]).all()
    assert errors[1:, 0].tolist() == [1, 19, 0]


def camera_euler_deg(rotations):
    return euler_from_rotations(rotations_from_matrices(rotations, "camera"))


def test_camera_angles_are_those_of_the_public_tools():
    rotations = heads(50, spread=60).as_matrix()
    tool = Rotation.from_matrix(np.swapaxes(rotations, 1, 2)).as_euler("xyz", degrees=True)
    expected = tool * [1, -1, -1]
    np.testing.assert_allclose(camera_euler_deg(rotations), expected, atol=1e-9)
    turned = np.swapaxes(rotations, 1, 2)
    biwi = np.degrees(
        [
            np.arctan2(turned[:, 2, 1], turned[:, 2, 2]),
            -np.arctan2(-turned[:, 2, 0], np.hypot(turned[:, 2, 1], turned[:, 2, 2])),
            -np.arctan2(turned[:, 1, 0], turned[:, 0, 0]),
        ]
    ).T
    np.testing.assert_allclose(camera_euler_deg(rotations), biwi, atol=1e-9)
    # the angles that BIWI's .bin files hold belong to the matrix that was not transposed
    untransposed = Rotation.from_matrix(rotations).as_euler("xyz", degrees=True) * [1, -1, -1]
    assert np.abs(camera_euler_deg(rotations) - untransposed).max() > 10


def test_geodesic_and_frobenius_by_hand():
    true = matrices(heads(5))
    turn = Rotation.from_rotvec([0, 0, np.radians(60)]).as_matrix()
    predicted = true @ turn
    scores = score_poses(pairs(predicted, true), "ours", resamples=2).metrics
    assert scores["rotation_deg"] == pytest.approx(60)
    assert scores["rotation_frobenius"] == pytest.approx(2 * np.sqrt(2) * np.sin(np.radians(30)))
    assert frobenius_error(true, true).max() == pytest.approx(0, abs=1e-12)


def test_missed_heads_fail_but_do_not_enter_the_mean():
    true = matrices(heads(4))
    predicted = true.copy()
    predicted[0] = true[0] @ Rotation.from_euler("y", 15, degrees=True).as_matrix()
    predicted[3] = NAN
    scores = score_poses(pairs(predicted, true), "ours", resamples=2).metrics
    assert scores["rotation_deg"] == pytest.approx(5)
    assert scores["rotation_median_deg"] == pytest.approx(0, abs=1e-6)
    assert scores["rotation_with_misses_deg"] == pytest.approx((15 + 180) / 4)
    assert scores["rotation_failure_rate_10"] == 0.5
    assert scores["rotation_failure_rate_20"] == 0.25


def test_a_constant_rotation_between_frames_is_found_and_taken_out():
    true = matrices(heads(300))
    constant = Rotation.from_euler("xyz", [10, -3, 2], degrees=True)
    rng = np.random.default_rng(1)
    noise = Rotation.from_rotvec(np.radians(rng.normal(0, 0.5, (300, 3)))).as_matrix()
    predicted = true @ constant.inv().as_matrix() @ noise
    # a third of the predictions is grossly wrong, and all in one direction
    predicted[:100] = predicted[:100] @ Rotation.from_euler("x", 120, degrees=True).as_matrix()
    predicted[-1] = NAN
    found = frame_rotation(predicted, true)
    assert np.degrees((Rotation.from_matrix(found) * constant.inv()).magnitude()) < 1
    scores = score_poses(pairs(predicted, true), "ours", resamples=2).metrics
    assert scores["frame_rotation_deg"] == pytest.approx(np.degrees(constant.magnitude()), abs=1)
    turn = [scores[f"frame_{axis}_deg"] for axis in "xyz"]
    np.testing.assert_allclose(turn, np.degrees(constant.as_rotvec()), atol=1)
    assert scores["rotation_median_deg"] > 9
    assert scores["aligned_rotation_median_deg"] < 2
    assert scores["aligned_euler_mae_deg"] < scores["euler_mae_deg"]


def test_frame_rotation_is_exact_without_noise_and_the_identity_without_heads():
    true = matrices(heads(7))
    constant = Rotation.from_euler("xyz", [-20, 5, 40], degrees=True).as_matrix()
    np.testing.assert_allclose(frame_rotation(true, true @ constant), constant, atol=1e-8)
    assert (frame_rotation(np.full((2, 3, 3), NAN), true[:2]) == np.eye(3)).all()


def test_heads_of_one_image_are_drawn_together():
    true = matrices(heads(4))
    predicted = true.copy()
    predicted[2:] = true[2:] @ Rotation.from_euler("y", 10, degrees=True).as_matrix()
    apart = score_poses(pairs(predicted, true), "ours", resamples=200)
    images = np.array([7, 7, 3, 3])
    together = score_poses(PosePairs(images, true, predicted), "ours", resamples=200)
    assert together.counts["num_images"] == 2
    assert together.metrics == apart.metrics
    # two images are drawn: both draws give the same one often enough to reach 0 and 10
    assert together.intervals["rotation_deg"] == pytest.approx((0, 10), abs=1e-6)
    flat = together.as_dict()
    assert flat["rotation_deg_low"] == together.intervals["rotation_deg"][0]
    assert flat["num_heads"] == 4


def test_same_seed_same_intervals():
    true = matrices(heads(10))
    predicted = matrices(heads(10, seed=3))
    first, second = (score_poses(pairs(predicted, true), "ours", seed=4) for _ in range(2))
    assert first == second
    other = score_poses(pairs(predicted, true), "ours", seed=5)
    assert other.intervals != first.intervals


def test_errors_name_what_is_wrong():
    true = matrices(heads(2))
    with pytest.raises(
        ValueError, match=r"predicted_rotations must be \(2, 3, 3\), got \(1, 3, 3\)"
    ):
        pairs(true[:1], true)
    with pytest.raises(ValueError, match=r"expected one of .*6drepnet.*, got 'hopenet'"):
        score_poses(pairs(true, true), "hopenet")

import numpy as np
import pytest

from ml.benchmarks.metrics_landmarks import landmark_nme, score_landmarks


def faces(count):
    true = np.random.default_rng(0).uniform(10, 20, (count, 68, 3))
    # the box of each face is 100 x 25: its size is 50
    true[:, 0, :2], true[:, 1, :2] = (0, 0), (100, 25)
    return true


def test_normalised_by_the_root_of_width_times_height():
    true = faces(2)
    moved = true.copy()
    moved[1, :, :2] += [3, 4]
    assert landmark_nme(moved, true).tolist() == [0, 10]
    # depth is not looked at
    moved[..., 2] += 100
    assert landmark_nme(moved, true).tolist() == [0, 10]


def test_bins_of_yaw_and_their_mean():
    true = faces(6)
    moved = true.copy()
    moved[..., 0] += np.array([1, 1, 1, 2, 4, np.nan])[:, None]
    yaw = np.array([0.0, -30, 29, 30.5, -95, 80])
    scores = score_landmarks(np.arange(6), moved, true, yaw, resamples=20)
    assert scores.metrics["nme_68"] == pytest.approx((2 + 2 + 2 + 4 + 8) / 5)
    assert scores.metrics["nme_68_yaw_0_30"] == pytest.approx(2)
    assert scores.metrics["nme_68_yaw_30_60"] == pytest.approx(4)
    # beyond 90 degrees is in the last bin
    assert scores.metrics["nme_68_yaw_60_90"] == pytest.approx(8)
    assert scores.metrics["nme_68_yaw_mean"] == pytest.approx((2 + 4 + 8) / 3)
    assert scores.metrics["failure_rate_68"] == pytest.approx(1 / 6)
    assert scores.counts["num_missed"] == 1
    assert scores.counts["num_found_yaw_0_30"] == 3
    assert scores.counts["num_found_yaw_60_90"] == 1


def test_an_empty_bin_has_no_mean():
    true = faces(1)
    scores = score_landmarks(np.arange(1), true, true, np.zeros(1), resamples=2)
    assert scores.metrics["nme_68"] == 0
    assert np.isnan(scores.metrics["nme_68_yaw_mean"])


def test_other_numbers_of_landmarks_are_refused():
    with pytest.raises(ValueError, match=r"predicted must be \(2, 68, 2 or 3\), got \(2, 5, 2\)"):
        score_landmarks(np.arange(2), np.zeros((2, 5, 2)), faces(2), np.zeros(2))

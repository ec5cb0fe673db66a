"""Pose rows and back."""

import numpy as np
import pytest

from ml.poses.config import PosesConfig
from ml.poses.sampler import sample_pose
from ml.poses.skeleton import Person, PoseSample


def test_rows_in_any_order_give_the_pose_back():
    config = PosesConfig(
        fraction_portrait=0, fraction_half_body=0, fraction_full_body=0, fraction_couple=0
    )
    sample = sample_pose("pose-x", 3, config)
    rows = sample.to_frame().sample(frac=1.0, random_state=1)
    again = PoseSample.from_frame(rows)
    assert len(again.people) == len(sample.people) > 1
    assert again.layout == sample.layout in ("group", "scattered")
    for first, second in zip(sample.people, again.people, strict=True):
        np.testing.assert_array_equal(first.joints_m, second.joints_m)
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        assert first.depth == second.depth


def test_missing_person_is_named():
    sample = sample_pose("pose-y", 3, PosesConfig())
    frame = sample.to_frame()
    frame["num_people"] += 1
    with pytest.raises(ValueError, match=r"expected the \d rows of one pose, got \d rows"):
        PoseSample.from_frame(frame)


def test_estimated_pose_without_depth_stays_two_dimensional():
    flat = Person(np.zeros((17, 3), np.float32), None, None, None, None, 0, None)
    sample = PoseSample("pose-z", 64, 64, "train", (flat,))
    again = PoseSample.from_frame(sample.to_frame())
    assert not again.people[0].is_3d
    assert again.layout == ""
    assert again.people[0].scale_px_per_m is None

"""Sampled images: determinism, splits, plausible distributions, nobody without a head."""

import numpy as np
import pytest

from ml.evaluation.metrics import view_angles_deg
from ml.poses import sampler
from ml.poses.config import PosesConfig
from ml.poses.figure import HEAD_HEIGHT_M
from ml.poses.sampler import LAYOUTS, ImplausiblePose, sample_pose, split_of
from ml.records.config import read_config
from ml.stages.poses import angle_from_frontal_deg

CONFIG = PosesConfig()


@pytest.fixture(scope="module")
def samples():
    return [sample_pose(f"pose-00000-{index:05d}", 11, CONFIG) for index in range(400)]


def same(first, second):
    return first.to_frame().map(repr).equals(second.to_frame().map(repr))


def test_same_arguments_same_pose_and_order_does_not_matter(samples):
    assert same(sample_pose("pose-00000-00321", 11, CONFIG), samples[321])
    assert not same(sample_pose("pose-00000-00321", 12, CONFIG), samples[321])


def test_keypoints_are_the_projected_joints(samples):
    for sample in samples[:50]:
        for person in sample.people:
            projected = person.scale_px_per_m * person.joints_m[:, :2] + person.shift_px
            np.testing.assert_allclose(person.keypoints[:, :2], projected, atol=1e-2)


def test_nearest_comes_first(samples):
    for sample in samples:
        assert [person.depth for person in sample.people] == list(range(len(sample.people)))


def test_number_of_people(samples):
    counts = np.array([len(sample.people) for sample in samples])
    assert counts.min() == 1
    assert counts.max() == 8
    assert 1.9 < counts.mean() < 2.6


def test_head_sizes_cover_the_wanted_range(samples):
    heights = [p.scale_px_per_m * HEAD_HEIGHT_M for s in samples for p in s.people]
    assert np.mean([16 <= height <= 130 for height in heights]) > 0.95
    assert np.percentile(heights, 5) < 28
    assert np.percentile(heights, 95) > 80


def test_head_angles_are_frontal_mostly_and_cover_the_back(samples):
    angles = np.array([angle_from_frontal_deg(p.head_rotation) for s in samples for p in s.people])
    assert 34 < angles.mean() < 42
    assert 26 < np.median(angles) < 36
    assert 0.01 < (angles > 135).mean() < 0.06
    assert (angles > 60).mean() > 0.1


def test_every_image_has_a_head_inside(samples):
    for sample in samples:
        heads = [p.shift_px + p.scale_px_per_m * p.head_centre_m[:2] for p in sample.people]
        inside = [(0 <= x < sample.width) and (0 <= y < sample.height) for x, y in heads]
        assert any(inside)


def test_some_heads_are_cut_by_the_border(samples):
    cut = 0
    people = [person for sample in samples for person in sample.people]
    for person in people:
        x, y = person.shift_px + person.scale_px_per_m * person.head_centre_m[:2]
        radius = person.scale_px_per_m * 0.1
        cut += min(x, y, 256 - x, 256 - y) < radius
    assert 0.01 < cut / len(people) < 0.2


def test_splits_are_stable_and_of_the_configured_size():
    splits = [split_of(f"pose-{index}", 0.06, 0.12) for index in range(4000)]
    assert splits[:8] == [split_of(f"pose-{index}", 0.06, 0.12) for index in range(8)]
    fractions = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert fractions["test"] == pytest.approx(0.12, abs=0.02)
    assert fractions["val"] == pytest.approx(0.06, abs=0.015)


def test_larger_val_share_never_moves_a_test_pose():
    ids = [f"pose-{index}" for index in range(500)]
    before = {key for key in ids if split_of(key, 0.06, 0.12) == "test"}
    after = {key for key in ids if split_of(key, 0.20, 0.12) == "test"}
    assert before == after


def test_split_needs_a_rest_for_training():
    with pytest.raises(
        ValueError, match=r"must be >= 0 and leave a fraction for train, got 0.5 and 0.5"
    ):
        split_of("pose-1", 0.5, 0.5)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("size", [(256, 256), (640, 384)])
def test_each_layout_alone(layout, size):
    fractions = {f"fraction_{name}": float(name == layout) for name in LAYOUTS}
    config = PosesConfig(width=size[0], height=size[1], **fractions)
    counts = []
    for index in range(20):
        sample = sample_pose(f"pose-{layout}-{index}", 1, config)
        assert (sample.width, sample.height) == size
        counts.append(len(sample.people))
        assert sample.layout == layout
    assert max(counts) >= (3 if layout in ("group", "scattered") else 1)


def turned(number=60, **values):
    """Angles of the heads of many images."""
    config = PosesConfig(**{"any_yaw_fraction": 0.0, **values})
    people = [p for i in range(number) for p in sample_pose(f"pose-{i}", 2, config).people]
    return view_angles_deg(np.stack([p.head_rotation for p in people])).T


def test_the_settings_of_a_world_do_what_they_say():
    ends = [np.abs(turned(frontal_fraction=f)[1]).mean() for f in (0.0, 1.0)]
    assert ends[0] > ends[1] + 4
    ends = [np.abs(turned(gaze_fraction=g)[1]).mean() for g in (0.02, 0.9)]
    assert ends[0] > ends[1] + 4
    pitch, _, roll = turned(bent_fraction=0.0)
    bent_pitch, _, bent_roll = turned(bent_fraction=1.0)
    assert bent_pitch.std() > 1.4 * pitch.std()
    assert bent_pitch.mean() < pitch.mean() - 3, "more often down than up"
    assert bent_roll.std() > 1.4 * roll.std()
    only = {f"fraction_{name}": float(name == "scattered") for name in LAYOUTS}
    for farthest, low, high in ((0.072, 0.06, 0.085), (0.03, 0.02, 0.05)):
        config = PosesConfig(farthest_head=farthest, child_fraction=0.0, **only)
        scales = [
            person.scale_px_per_m
            for index in range(30)
            for person in sample_pose(f"pose-{index}", 2, config).people
        ]
        assert low < min(scales) * HEAD_HEIGHT_M / 256 < high


def test_max_people_is_kept():
    config = PosesConfig(max_people=2)
    for index in range(60):
        assert len(sample_pose(f"pose-{index}", 2, config).people) <= 2


def test_failed_draws_are_repeated_with_another_seed(monkeypatch):
    draws = []
    original = sampler._sample_people

    def sometimes_empty(rng, config):
        draws.append(len(draws))
        return ("portrait", []) if len(draws) < 3 else original(rng, config)

    monkeypatch.setattr(sampler, "_sample_people", sometimes_empty)
    first = sample_pose("pose-a", 1, CONFIG)
    assert len(draws) == 3
    draws.clear()
    assert same(sample_pose("pose-a", 1, CONFIG), first)


def test_pose_without_any_head_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(sampler, "_sample_people", lambda rng, config: ("portrait", []))
    with pytest.raises(ImplausiblePose, match=r"pose-b: none of 10 draws has a head at least 50%"):
        sample_pose("pose-b", 1, CONFIG)


def test_config_refuses_unknown_keys_and_layouts_without_weight():
    with pytest.raises(
        ValueError, match=r"poses.colour: unknown key; allowed: source, images, width"
    ):
        read_config(PosesConfig, "poses", {"colour": "red"})
    with pytest.raises(ValueError, match="at least one fraction_"):
        PosesConfig(**{f"fraction_{name}": 0.0 for name in LAYOUTS})


def test_every_layout_has_a_fraction():
    assert {f"fraction_{name}" for name in LAYOUTS} == {
        name for name in PosesConfig.model_fields if name.startswith("fraction_")
    }


def test_heads_have_the_height_of_the_embedded_model(open_head):
    """Otherwise the fractions of the image that layouts state are not those of the heads."""
    height = np.ptp(open_head.v_template[open_head.regions["head"], 1])
    assert abs(height - HEAD_HEIGHT_M) < 0.003

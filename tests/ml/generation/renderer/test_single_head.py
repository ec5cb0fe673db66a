"""Single heads for the regressor."""

from __future__ import annotations

import numpy as np
import pytest

from ml.flame.geometry import HeadGeometry
from ml.generation.config import SingleHeadConfig
from ml.generation.renderer.single_head import render_single_head


def test_box_fills_four_ninths_around_the_middle(head_model):
    config = SingleHeadConfig(neighbour_probability=0.0, hand_probability=0.0)
    for seed in range(6):
        head = render_single_head(head_model, config, np.random.default_rng(seed), 90)
        left, top, right, bottom = head.box_xyxy
        assert head.image_rgb.shape == (90, 90, 3)
        assert 0.28 < max(right - left, bottom - top) / 90 < 0.75
        assert abs(0.5 * (left + right) - 45) < 14
        assert abs(0.5 * (top + bottom) - 45) < 16


def test_rotations_stay_in_the_configured_ranges(head_model):
    config = SingleHeadConfig(
        yaw_std_deg=0.0, any_yaw_fraction=0.0, pitch_max_deg=0.0, roll_max_deg=0.0
    )
    head = render_single_head(head_model, config, np.random.default_rng(0), 64)
    assert np.abs(HeadGeometry.euler_deg(head.flame[None])).max() < 0.01


def test_same_seed_same_head(head_model):
    a, b = (
        render_single_head(head_model, SingleHeadConfig(), np.random.default_rng(4), 64)
        for _ in "ab"
    )
    assert np.array_equal(a.image_rgb, b.image_rgb)
    assert np.array_equal(a.flame, b.flame)


def test_shared_places_depend_on_the_seed_alone(head_model):
    config = SingleHeadConfig(places_per_light=2)
    first = [render_single_head(head_model, config, np.random.default_rng(s), 64) for s in (4, 5)]
    # Other images in between must not matter: a place is shared, not drawn upon.
    again = [render_single_head(head_model, config, np.random.default_rng(s), 64) for s in (5, 4)]
    for one, other in zip(first, again[::-1], strict=True):
        assert np.array_equal(one.image_rgb, other.image_rgb)
    assert (first[0].image_rgb != first[1].image_rgb).mean() > 0.5


def test_too_small_an_image_is_refused(head_model):
    with pytest.raises(ValueError, match="at least 32 px, got 16"):
        render_single_head(head_model, SingleHeadConfig(), np.random.default_rng(0), 16)

"""The renderer finds what it paints on the open head."""

from __future__ import annotations

import numpy as np
import pytest

from ml.generation.config import SingleHeadConfig
from ml.generation.renderer.head_assets import hairline
from ml.generation.renderer.people import head_kit
from ml.generation.renderer.single_head import render_single_head


@pytest.fixture(scope="module")
def assets(open_head):
    return head_kit(open_head).assets


def test_hair_roots_are_on_the_scalp(open_head, assets):
    """The renderer's hairline, a rule on the template, agrees with the model's scalp."""
    head = open_head.regions["head"]
    rooted = head[hairline(assets.template[head]) > 0.0]
    scalp = open_head.regions["scalp"]
    assert np.isin(rooted, scalp).mean() > 0.85
    assert np.isin(scalp, rooted).mean() > 0.85
    eyes_and_below = assets.template[:, 1] < assets.eyes[:, 1].max()
    in_front = assets.template[:, 2] > assets.eyes[:, 2].min() - 0.02
    assert not np.isin(rooted, np.flatnonzero(eyes_and_below & in_front)).any()


def test_paint_is_where_it_belongs(open_head, assets):
    paint = assets.paint
    teeth = open_head.attributes["teeth"] > 0.5
    assert (paint[teeth, 1] == -1.0).all()
    lips = open_head.attributes["lips"] > 0.9
    assert paint[lips, 1].min() > 0.5
    brow = np.flatnonzero(paint[:, 0] > 0.5)
    assert len(brow) > 15
    assert np.isin(brow, open_head.regions["face"]).all()
    beard = np.flatnonzero(paint[:, 2] > 0.5)
    assert len(beard) > 60
    assert assets.template[beard, 1].max() < assets.eyes[:, 1].min()
    # neither ears nor eyes nor teeth have a beard
    hairless = np.concatenate([open_head.regions["ears"], open_head.regions["eyeballs"]])
    assert not paint[np.union1d(hairless, np.flatnonzero(teeth)), 2].any()
    assert assets.is_eye.sum() == len(open_head.faces_of("eyeballs"))


def test_heads_fill_their_boxes(open_head):
    config = SingleHeadConfig(neighbour_probability=0.0, hand_probability=0.0)
    for seed in range(4):
        head = render_single_head(open_head, config, np.random.default_rng(seed), 96)
        left, top, right, bottom = head.box_xyxy
        assert 0.28 < max(right - left, bottom - top) / 96 < 0.8
        assert head.visible > 0.3

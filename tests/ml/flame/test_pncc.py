"""PNCC maps: template coordinates as colours."""

from __future__ import annotations

import numpy as np
import pytest

from ml.flame.pncc import pncc_colours, pncc_map


def test_each_axis_of_the_template_spans_a_channel():
    template = np.array([[-1.0, 0.0, 2.0], [1.0, 0.5, 4.0], [0.0, 1.0, 3.0]])
    expected = [[0.0, 0.0, 0.0], [1.0, 0.5, 1.0], [0.5, 1.0, 0.5]]
    assert np.allclose(pncc_colours(template), expected)


def test_a_frontal_template_shows_its_own_coordinates(head_model):
    scale, size = 400.0, 120
    points = head_model.v_template * np.array([1, -1, -1]) * scale + np.array([60, 60, 0])
    image = pncc_map([points.astype(np.float32)], head_model, size, size)
    colours = pncc_colours(head_model.v_template)
    checked = 0
    for vertex in head_model.region("face")[::40]:
        column, row = points[vertex, :2].astype(int)
        # Only a vertex that nothing hides shows its own colour.
        if np.abs(image[row, column, 2] / 255.0 - colours[vertex, 2]) < 0.03:
            assert np.allclose(image[row, column, :2] / 255.0, colours[vertex, :2], atol=0.04)
            checked += 1
    assert checked > 20
    assert not image[:2].any()


def test_the_nearer_head_wins_whatever_the_list_order(head_model):
    near = (head_model.v_template * np.array([1, -1, -1]) * 400 + np.array([60, 60, 0])).astype(
        "f4"
    )
    far = near * np.float32(0.5) + np.array([30, 30, -500], np.float32)
    first, second = (pncc_map(heads, head_model, 120, 120) for heads in ([near, far], [far, near]))
    assert np.array_equal(first, second)
    assert np.array_equal(first, pncc_map([near], head_model, 120, 120))
    told = pncc_map([near, far], head_model, 120, 120, depth_order=[1.0, 0.0])
    assert not np.array_equal(first, told)


def test_no_heads_give_a_black_map(head_model):
    assert not pncc_map([], head_model, 8, 9).any()
    assert pncc_map([], head_model, 8, 9).shape == (8, 9, 3)


def test_wrong_shapes_are_refused(head_model):
    with pytest.raises(ValueError, match=r"must be \(5023, 3\), got \(10, 3\)"):
        pncc_map([np.zeros((10, 3))], head_model, 8, 8)
    with pytest.raises(ValueError, match="one depth for each of 1 heads, got 2"):
        pncc_map([np.zeros((5023, 3))], head_model, 8, 8, depth_order=[0.0, 1.0])

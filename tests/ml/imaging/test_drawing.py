"""Boxes on images."""

import numpy as np

from ml.imaging.drawing import TRUTH_RGB, draw_boxes, enlarge


def test_drawing_leaves_the_image_alone():
    pixels = np.zeros((48, 64, 3), np.uint8)
    drawn = draw_boxes(pixels, np.array([[10.0, 10.0, 30.0, 30.0]]), TRUTH_RGB)
    assert not pixels.any()
    assert drawn[10, 15].tolist() == list(TRUTH_RGB)
    assert drawn[30, 30].any()
    assert not drawn[20, 20].any()
    assert not drawn[31, 31].any()


def test_boxes_follow_the_zoom():
    pixels = np.zeros((8, 8, 3), np.uint8)
    drawn = draw_boxes(enlarge(pixels, 4), np.array([[2.0, 2.0, 6.0, 6.0]]), TRUTH_RGB, zoom=4)
    assert drawn.shape == (32, 32, 3)
    assert drawn[8, 16].any()
    assert not drawn[2, 2].any()

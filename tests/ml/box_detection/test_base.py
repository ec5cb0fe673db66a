"""Selection of detections: threshold, borders, doubles, order."""

from __future__ import annotations

import numpy as np
import pytest

from ml.box_detection.base import select_detections


def select(boxes, scores, **changes):
    limits = {"threshold": 0.5, "nms_iou": 0.5, "max_heads": 10} | changes
    return select_detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), (40, 60), **limits
    )


def test_nothing_in_nothing_out():
    boxes, scores = select([], [])
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_threshold_is_inclusive_and_the_best_comes_first():
    boxes, scores = select([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [0.5, 0.49, 0.9])
    assert scores.tolist() == pytest.approx([0.9, 0.5])
    assert boxes[:, 0].tolist() == [40, 0]


def test_boxes_are_cut_at_the_borders_and_slivers_go():
    boxes, _ = select([[-5, -5, 10, 10], [59.5, 0, 80, 20]], [0.9, 0.9])
    assert boxes.tolist() == [[0, 0, 10, 10]]


def test_of_doubles_the_stronger_stays():
    boxes, scores = select([[0, 0, 20, 20], [1, 0, 21, 20]], [0.6, 0.8])
    assert scores.tolist() == pytest.approx([0.8])
    assert boxes[0, 0] == 1


def test_no_more_than_max_heads():
    boxes, _ = select([[10 * i, 0, 10 * i + 8, 8] for i in range(6)], [0.9] * 6, max_heads=2)
    assert len(boxes) == 2

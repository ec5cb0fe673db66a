"""Average precision and operating point: perfect, degenerate, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ml.box_detection.coco_metrics import average_precision, operating_point
from ml.labels.coco import CocoBox, CocoDataset, CocoImage

NOTHING = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def truth(*images):
    """Each image is a list of (xyxy, ignore)."""
    numbered = [(i, box, ignore) for i, boxes in enumerate(images, 1) for box, ignore in boxes]
    return CocoDataset(
        tuple(
            CocoImage(i, f"shard-00000/s{i}.jpg", 200, 200, "shard-00000", f"s{i}")
            for i in range(1, len(images) + 1)
        ),
        tuple(
            CocoBox(n, i, (box[0], box[1], box[2] - box[0], box[3] - box[1]), ignore)
            for n, (i, box, ignore) in enumerate(numbered, 1)
        ),
    )


def found(*rows):
    """Rows are (score, xyxy)."""
    return (
        np.array([box for _, box in rows], np.float32).reshape(-1, 4),
        np.array([score for score, _ in rows], np.float32),
    )


A, B, C = (10, 10, 60, 60), (100, 10, 150, 60), (10, 100, 60, 150)


def test_perfect():
    values = average_precision(
        truth([(A, False), (B, False)], []), [found((0.9, A), (0.8, B)), NOTHING]
    )
    assert values["ap50"] == pytest.approx(1)
    assert values["ap50_95"] == pytest.approx(1)
    # All heads are of medium size, so there is no figure for the others.
    assert "ap50_95_small" not in values


def test_nothing_found():
    assert average_precision(truth([(A, False)]), [NOTHING])["ap50"] == 0


def test_a_false_alarm_above_a_hit_halves_its_precision():
    values = average_precision(truth([(A, False)]), [found((0.9, B), (0.8, A))])
    assert values["ap50"] == pytest.approx(0.5)


def test_one_of_two_found():
    # Precision 1 up to recall 0.5: 51 of the 101 recall points.
    values = average_precision(truth([(A, False), (B, False)]), [found((0.9, A))])
    assert values["ap50"] == pytest.approx(51 / 101)


def test_map50_95_counts_the_thresholds_an_overlap_passes():
    # Half as wide plus a quarter: IoU 0.75 passes 0.50, 0.55, ..., 0.75: six of ten.
    narrow = (10, 10, 47.5, 60)
    values = average_precision(truth([(A, False)]), [found((0.9, narrow))])
    assert values["ap50"] == pytest.approx(1)
    assert values["ap50_95"] == pytest.approx(0.6)


def test_ignored_heads_cost_nothing_found_or_not():
    labels = truth([(A, False), (B, True)])
    assert average_precision(labels, [found((0.9, A), (0.95, B))])["ap50"] == pytest.approx(1)
    assert average_precision(labels, [found((0.9, A))])["ap50"] == pytest.approx(1)


def test_operating_point_by_hand():
    labels = truth([(A, False), (B, False)], [(A, False), (B, True)], [])
    detections = [
        found((0.9, A), (0.7, A), (0.2, B)),
        found((0.9, A), (0.8, B)),
        found((0.6, C)),
    ]
    values = operating_point(labels, detections, threshold=0.5)
    # Right: A, A. Wrong: the second A and C. Missed: B. The ignored B is neither.
    assert values["precision"] == pytest.approx(2 / 4)
    assert values["recall"] == pytest.approx(2 / 3)
    # Image 1 has two boxes for two heads, image 2 one for one, image 3 one for none.
    assert values["count_correct"] == pytest.approx(2 / 3)


def test_operating_point_without_detections():
    values = operating_point(truth([(A, False)]), [NOTHING], threshold=0.5)
    assert values == {"precision": 0, "recall": 0, "count_correct": 0}


@pytest.mark.parametrize("function", [average_precision, lambda t, d: operating_point(t, d, 0.5)])
def test_every_image_needs_an_entry(function):
    with pytest.raises(ValueError, match="expected detections for 1 images, got 0"):
        function(truth([(A, False)]), [])

import numpy as np
import pytest

from ml.benchmarks.metrics_boxes import BoxCollector, MatchedBoxes, score_boxes
from ml.benchmarks.metrics_wider import match_image, score_wider, stretched, voc_average_precision
from ml.benchmarks.predictions import HeadPredictions
from ml.benchmarks.samples import FaceBoxes
from ml.box_detection.coco_metrics import run_coco


def crowd(rng, images=12, levels=12):
    """Images with faces, ignored ones among them, and detections that are right, off and wrong."""
    for _ in range(images):
        count = int(rng.integers(0, 6))
        low = rng.uniform(0, 200, (count, 2))
        true = np.concatenate([low, low + rng.uniform(20, 60, (count, 2))], axis=1)
        found = np.concatenate([true + rng.normal(0, 6, true.shape), true[:2], true[:1] + 300])
        kept = rng.uniform(size=len(found)) > 0.2
        scores = rng.integers(0, levels, len(found)) / levels
        yield (
            FaceBoxes(true, ignore=rng.uniform(size=count) < 0.2),
            HeadPredictions(scores[kept], found[kept]),
        )


def test_precision_from_the_tool_s_matches_is_the_tool_s_own():
    boxes = BoxCollector()
    for truth, heads in crowd(np.random.default_rng(3)):
        boxes.add(truth, heads)
    tool = run_coco(boxes.truth(), boxes.results, every_size=False)
    matched = MatchedBoxes(tool.evalImgs, 10)
    ours = matched.average_precision(np.ones(matched.num_images), 10)
    np.testing.assert_allclose(
        ours, tool.eval["precision"][:, :, 0, 0, -1].mean(axis=1), atol=1e-12
    )
    assert 0.1 < ours[0] < 1
    scores = score_boxes(boxes, resamples=50)
    low, high = scores.intervals["ap50"]
    assert low < scores.metrics["ap50"] < high


def test_a_weight_of_two_is_an_image_twice():
    once, twice = BoxCollector(), BoxCollector()
    for index, (truth, heads) in enumerate(crowd(np.random.default_rng(5), 6, 10**6)):
        once.add(truth, heads)
        for _ in range(2 if index == 1 else 1):
            twice.add(truth, heads)
    values = []
    for boxes, weights in ((once, [1, 2, 1, 1, 1, 1]), (twice, [1] * 7)):
        tool = run_coco(boxes.truth(), boxes.results, every_size=False)
        matched = MatchedBoxes(tool.evalImgs, 10)
        values.append(matched.average_precision(np.array(weights, float), 10))
    np.testing.assert_allclose(*values)


def test_only_so_many_detections_of_an_image_count():
    true = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    heads = HeadPredictions(np.array([0.9, 0.8]), true)
    for limit, expected in ((1, 51 / 101), (2, 1.0)):
        boxes = BoxCollector(limit)
        boxes.add(FaceBoxes(true), heads)
        assert score_boxes(boxes, resamples=2).metrics["ap50"] == pytest.approx(expected)


def naive_wider(images, difficulty):
    """The port's loops: every threshold walks through every image."""
    scores = stretched(np.concatenate([s for _, s, _, _ in images]))
    starts = np.cumsum([0, *(len(s) for _, s, _, _ in images)])
    total, curve = 0, np.zeros((1000, 2))
    for number, (boxes, raw, true, kept) in enumerate(images):
        total += kept[difficulty].sum()
        order = np.argsort(-raw, kind="stable")
        ranked = scores[starts[number] : starts[number + 1]][order]
        state, counted, recall = np.zeros(len(true), int), np.ones(len(order), int), []
        for row, index in enumerate(order):
            overlaps = [
                max(0, min(boxes[index][2], t[2]) - max(boxes[index][0], t[0]) + 1)
                * max(0, min(boxes[index][3], t[3]) - max(boxes[index][1], t[1]) + 1)
                for t in true
            ]
            areas = [(t[2] - t[0] + 1) * (t[3] - t[1] + 1) for t in [boxes[index], *true]]
            ious = [o / (areas[0] + a - o) for o, a in zip(overlaps, areas[1:], strict=True)]
            if ious and max(ious) >= 0.5:
                face = int(np.argmax(ious))
                if not kept[difficulty][face]:
                    counted[row] = 0
                else:
                    state[face] = 1
            recall.append(state.sum())
        for t in range(1000):
            passing = int((ranked >= 1 - (t + 1) / 1000).sum())
            if passing:
                curve[t] += counted[:passing].sum(), recall[passing - 1]
    rec, prec = curve[:, 1] / total, curve[:, 1] / np.maximum(curve[:, 0], 1)
    area = 0.0
    for t in range(1000):
        area += (rec[t] - (rec[t - 1] if t else 0)) * prec[t:].max()
    return area


def test_wider_s_precision_equals_its_loops():
    rng = np.random.default_rng(1)
    images = []
    for truth, heads in crowd(rng):
        kept = {"easy": ~truth.ignored, "hard": rng.uniform(size=len(truth)) < 0.7}
        images.append((heads.boxes, heads.confidences, truth.boxes_xyxy, kept))
    scores = score_wider([match_image(*image) for image in images], resamples=20)
    for difficulty in ("easy", "hard"):
        expected = naive_wider(images, difficulty)
        assert 0.2 < expected < 1
        assert scores.metrics[f"ap_{difficulty}"] == pytest.approx(expected, abs=1e-12)
        low, high = scores.intervals[f"ap_{difficulty}"]
        assert low <= high


def test_the_area_under_a_curve_worked_by_hand():
    recall, precision = np.array([0.25, 0.5, 0.5, 1.0]), np.array([1.0, 0.5, 0.4, 0.6])
    # 0.25 at 1, then 0.75 at 0.6, which is the best precision from there on
    assert voc_average_precision(recall, precision) == pytest.approx(0.25 + 0.75 * 0.6)
    assert voc_average_precision(np.zeros(3), np.ones(3)) == 0

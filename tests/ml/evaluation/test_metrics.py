import io
from contextlib import redirect_stdout

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.spatial.transform import Rotation

from ml.evaluation.metrics import (
    aligned_error,
    angle_error_deg,
    average_precision,
    bootstrap_intervals,
    component_correlation,
    failure_rate,
    geodesic_deg,
    nme_bbox,
    nullable,
    turn_deg,
)
from ml.imaging.matching import match_heads


def test_average_precision_by_hand():
    # Ranked: hit, miss, hit; two to find. Precision 1 up to recall .5, then 2/3.
    scores, correct = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert average_precision(scores, correct, 2) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert average_precision(scores[:1], correct[:1], 1) == 1.0
    assert average_precision(scores, np.zeros(3, bool), 2) == 0.0
    assert average_precision(np.zeros(0), np.zeros(0, bool), 2) == 0.0
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool), 0))


def test_average_precision_equals_pycocotools():
    rng = np.random.default_rng(0)
    images, annotations, detections, scores, correct, total = [], [], [], [], [], 0
    for image_id in range(1, 21):
        images.append({"id": image_id, "width": 300, "height": 300})
        true = np.concatenate([rng.uniform(0, 200, (3, 2)), rng.uniform(20, 80, (3, 2))], axis=1)
        near = true + rng.normal(0, 6, true.shape)
        stray = np.concatenate([rng.uniform(0, 200, (2, 2)), rng.uniform(20, 80, (2, 2))], axis=1)
        predicted = np.concatenate([near, stray])
        confidence = rng.uniform(0.05, 1, len(predicted))
        for box in true:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
                | {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            )
        for box, score in zip(predicted, confidence, strict=True):
            detections.append(
                {"image_id": image_id, "category_id": 1} | {"bbox": box.tolist(), "score": score}
            )
        matches = match_heads(xyxy(predicted), confidence, xyxy(true))
        hit = np.zeros(len(predicted), bool)
        hit[matches.pairs[:, 0]] = True
        scores.append(confidence)
        correct.append(hit)
        total += len(true)
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = average_precision(np.concatenate(scores), np.concatenate(correct), total)
    assert ours == pytest.approx(evaluation.stats[1], abs=1e-12)
    assert 0.2 < ours < 0.99


def xyxy(xywh):
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def test_nme_by_hand():
    true = np.array([[[0, 0], [40, 0], [0, 10], [40, 10]]], float)
    assert nme_bbox(true, true) == pytest.approx([0.0])
    assert nme_bbox(true + np.array([3, 4]), true) == pytest.approx([100 * 5 / 20])


@pytest.mark.parametrize(
    ("yaw", "expected"), [(0, 0), (-40, 40), (90, 90), (-150, 150), (180, 180)]
)
def test_a_head_seen_from_behind_is_turned_by_more_than_a_right_angle(yaw, expected):
    frontal = np.diag([1.0, -1.0, -1.0])
    turned = frontal @ Rotation.from_euler("YXZ", [yaw, 20.0, -15.0], degrees=True).as_matrix()
    assert turn_deg(turned[None])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 30.0, 90.0, 179.999, 180.0])
def test_geodesic_equals_the_angle_turned(angle):
    axis = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    start = Rotation.random(random_state=0)
    turned = Rotation.from_rotvec(np.radians(angle) * axis) * start
    got = geodesic_deg(turned.as_matrix()[None], start.as_matrix()[None])
    assert got == pytest.approx([angle], abs=1e-5)


def test_angles_wrap():
    assert angle_error_deg(np.array([179.0, 10.0]), np.array([-179.0, -10.0])).tolist() == [
        2.0,
        20.0,
    ]


def test_failures_count_the_missed():
    assert failure_rate(np.array([1.0, 6.0]), num_missed=2) == 0.75
    assert failure_rate(np.array([1.0]), num_missed=0) == 0.0
    assert np.isnan(failure_rate(np.zeros(0), 0))


def test_bootstrap_covers_the_mean_and_shrinks_with_more_images():
    values = np.random.default_rng(1).normal(5, 1, 400)

    def mean(drawn):
        return {"mean": values[drawn].mean(), "none": np.nan}

    both = bootstrap_intervals(mean, 400, np.random.default_rng(2))
    interval = both["mean"]
    few = bootstrap_intervals(mean, 25, np.random.default_rng(2))["mean"]
    assert np.isnan(both["none"]).all()
    assert interval[0] < values.mean() < interval[1]
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert few[1] - few[0] > 2 * (interval[1] - interval[0])


def test_an_error_that_is_no_number_is_a_failure():
    nme = np.array([1.0, np.nan, 9.0])
    assert failure_rate(nme, 1) == 3 / 4
    assert failure_rate(nme, 1, 10.0) == 2 / 4


def test_metrics_that_are_not_finite_become_null():
    assert nullable({"a": 1.5, "b": float("nan"), "c": float("inf")}) == {
        "a": 1.5,
        "b": None,
        "c": None,
    }


def test_aligned_error_forgets_similarity_transforms_and_nothing_else():
    rng = np.random.default_rng(5)
    true = rng.normal(size=(3, 40, 3))
    turn = Rotation.random(3, random_state=6).as_matrix()
    moved = 2.5 * np.einsum("nij,nvj->nvi", turn, true) + rng.normal(size=(3, 1, 3))
    np.testing.assert_allclose(aligned_error(moved, true), 0, atol=1e-9)
    mirrored = true * np.array([-1.0, 1.0, 1.0])
    assert (aligned_error(mirrored, true) > 1).all()
    # A saddle in z: no rotation or scale undoes it to first order.
    cross = np.array([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]])
    off = cross.copy()
    off[0, :, 2] += 1e-3 * np.array([1, 1, -1, -1, 0, 0])
    assert aligned_error(off, cross) == pytest.approx([100 * (4e-3 / 6) / 2], rel=1e-2)
    moved[1, 7, 2] = np.nan
    assert np.isnan(aligned_error(moved, true)).tolist() == [False, True, False]


def test_component_correlation_by_hand():
    true = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    assert component_correlation(true, true) == pytest.approx(1)
    assert component_correlation(-true, true) == pytest.approx(-1)
    constant = np.zeros_like(true)
    assert component_correlation(constant, true) == 0
    half = np.stack([true[:, 0], constant[:, 0]], axis=1)
    assert component_correlation(half, true) == pytest.approx(0.5)
    assert np.isnan(component_correlation(true[:2], true[:2]))
    assert np.isnan(component_correlation(true, constant))

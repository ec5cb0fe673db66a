import numpy as np
import pytest
import torch

from ml.imaging.boxes import (
    box_area,
    box_ciou_pairs,
    box_iou,
    box_iou_pairs,
    clip_boxes,
    expand_boxes,
    nms,
    nms_mask,
    xywh_to_xyxy,
    xyxy_to_xywh,
)


def random_boxes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    low = rng.uniform(0, 60, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(1, 40, (*shape, 2))], axis=-1).astype(np.float32)


def naive_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common)


def naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(naive_iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def test_conversions_are_inverse_and_right_by_hand():
    boxes = np.array([[1, 2, 4, 8]], dtype=np.float32)
    np.testing.assert_array_equal(xyxy_to_xywh(boxes), [[1, 2, 3, 6]])
    np.testing.assert_array_equal(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_tensors_and_arrays_give_the_same_in_kind(count):
    boxes = random_boxes(np.random.default_rng(0), count)
    for function in (
        xyxy_to_xywh,
        box_area,
        lambda b: box_iou(b, b),
        lambda b: expand_boxes(b, 0.3),
    ):
        array, tensor = function(boxes), function(torch.from_numpy(boxes))
        assert isinstance(array, np.ndarray)
        assert isinstance(tensor, torch.Tensor)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensor.numpy())


def test_area_by_hand_and_of_a_crossed_box():
    assert box_area(np.array([[0, 0, 3, 5], [4, 4, 2, 6]], dtype=np.float32)).tolist() == [15, 0]


def test_iou_equals_the_naive_one():
    rng = np.random.default_rng(1)
    first, second = random_boxes(rng, 6), random_boxes(rng, 9)
    expected = [[naive_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(box_iou(first, second), expected, rtol=1e-5)
    np.testing.assert_allclose(
        box_iou_pairs(first, second[:6]), np.diag(np.array(expected)[:, :6]), rtol=1e-5
    )


def test_iou_of_empty_boxes_is_zero():
    nothing = np.zeros((1, 4), dtype=np.float32)
    assert box_iou(nothing, nothing).tolist() == [[0.0]]


def test_iou_is_batched():
    boxes = torch.from_numpy(random_boxes(np.random.default_rng(2), 3, 5))
    together = box_iou(boxes, boxes)
    for i in range(3):
        torch.testing.assert_close(together[i], box_iou(boxes[i], boxes[i]))


def test_ciou_by_hand():
    # Same box: 1. A shift by half the width: IoU 1/3, centres 5 apart, enclosing box 15 x 10.
    same = torch.tensor([[0.0, 0, 10, 10]])
    moved = torch.tensor([[5.0, 0, 15, 10]])
    assert box_ciou_pairs(same, same).item() == pytest.approx(1.0, abs=1e-6)
    expected = 1 / 3 - 25 / (15**2 + 10**2)
    assert box_ciou_pairs(same, moved).item() == pytest.approx(expected, abs=1e-6)
    # A flat box inside a square: aspect angles 45 degrees and atan(4).
    flat = torch.tensor([[1.0, 4, 9, 6]])
    iou = 16 / 100
    aspect = 4 / np.pi**2 * (np.arctan(4) - np.pi / 4) ** 2
    expected = iou - aspect**2 / (1 - iou + aspect)
    assert box_ciou_pairs(same, flat).item() == pytest.approx(expected, abs=1e-6)


def test_ciou_has_finite_gradients_for_degenerate_boxes():
    point = torch.tensor([[5.0, 5, 5, 5]], requires_grad=True)
    box_ciou_pairs(point, torch.tensor([[0.0, 0, 10, 10]])).sum().backward()
    assert torch.isfinite(point.grad).all()


def test_clip_and_expand_by_hand():
    boxes = np.array([[-5, 2, 30, 40]], dtype=np.float32)
    assert clip_boxes(boxes, width=20, height=30).tolist() == [[0, 2, 20, 30]]
    assert expand_boxes(np.array([[0, 0, 4, 8]], dtype=np.float32), 0.25).tolist() == [
        [-1, -2, 5, 10]
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 60])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_nms_equals_the_greedy_loop(count, threshold):
    rng = np.random.default_rng(count)
    boxes = random_boxes(rng, count)
    scores = rng.integers(0, 8, count).astype(np.float32) / 8  # many ties
    assert nms(boxes, scores, threshold).tolist() == naive_nms(boxes, scores, threshold)


def test_a_suppressed_box_suppresses_nobody():
    # A chain: each overlaps the next by 0.6 only. The second falls, so the third stays.
    boxes = np.array([[x, 0, x + 40, 10] for x in (0, 10, 20, 30)], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32)
    assert nms(boxes, scores, 0.5).tolist() == [0, 2]


def test_nms_limits_its_output_to_the_best():
    boxes = np.array([[i * 20, 0, i * 20 + 10, 10] for i in range(5)], dtype=np.float32)
    scores = np.array([0.1, 0.5, 0.3, 0.9, 0.7], dtype=np.float32)
    assert nms(boxes, scores, 0.5, max_output=2).tolist() == [3, 4]


def test_batched_nms_equals_one_by_one():
    rng = np.random.default_rng(5)
    boxes, scores = random_boxes(rng, 4, 30), rng.uniform(size=(4, 30)).astype(np.float32)
    together = nms_mask(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    for i in range(4):
        assert together[i].nonzero()[:, 0].tolist() == sorted(naive_nms(boxes[i], scores[i], 0.4))

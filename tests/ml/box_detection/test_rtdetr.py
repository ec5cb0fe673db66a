"""RT-DETR: it sees its input, survives saving, and answers in the pixels it was asked in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.box_detection import load_box_detector
from ml.box_detection.base import HeadBoxDetector
from ml.box_detection.rtdetr import (
    RTDetrDetector,
    RTDetrOutput,
    build_rtdetr,
    decode,
    forward,
    keep_best,
)
from tests.tiny_models.box_detector import TINY_RTDETR


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_rtdetr(TINY_RTDETR).eval()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, np.uint8) for size in ((64, 64, 3), (50, 90, 3))]


def labels(*boxes):
    return {
        "class_labels": torch.zeros(len(boxes), dtype=torch.int64),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
    }


def test_it_is_a_backend(model):
    assert isinstance(RTDetrDetector(model, 64), HeadBoxDetector)


def test_a_fresh_model_is_not_blind(model):
    # The library's own initialisation fails this by orders of magnitude.
    rng = np.random.default_rng(1)
    batch = torch.from_numpy(rng.integers(0, 256, (2, 3, 64, 64), np.uint8))
    with torch.no_grad():
        logits = forward(model, batch).logits
    assert (logits[0] - logits[1]).abs().max() > 0.05
    assert logits.std() > 0.01


def test_batch_norms_start_at_gain_one_and_boxes_at_their_anchors(model):
    gains = [m.weight for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(gains) > 10
    assert all((gain == 1).all() for gain in gains)
    assert not model.model.enc_bbox_head.layers[-1].weight.any()


def test_decode_by_hand():
    output = RTDetrOutput(
        torch.tensor([[[0.5, 0.5, 0.25, 0.5], [0.25, 0.75, 0.5, 0.5]]]),
        torch.tensor([[[-1.0, 0.0], [2.0, -3.0]]]),
        (),
        {},
    )
    boxes, scores = decode(output, 64)
    assert boxes[0].tolist() == [[0, 32, 32, 64], [24, 16, 40, 48]]
    assert scores[0].tolist() == pytest.approx([0.880797, 0.5], abs=1e-5)


def test_boxes_are_in_the_pixels_of_each_image(model, images):
    found = RTDetrDetector(model, 64).detect(images)
    assert all(1 <= len(boxes) <= TINY_RTDETR.num_queries for boxes, _ in found)
    for (boxes, scores), image in zip(found, images, strict=True):
        assert boxes.dtype == np.float32
        assert (boxes >= 0).all()
        assert boxes[:, 2].max() <= image.shape[1]
        assert boxes[:, 3].max() <= image.shape[0]
        assert (np.diff(scores) <= 0).all()


def test_an_enlarged_image_gives_enlarged_boxes(model, images):
    small = images[0]
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    (boxes, scores), (boxes_large, scores_large) = RTDetrDetector(model, 64).detect([small, large])
    np.testing.assert_allclose(boxes_large, 2 * boxes, atol=0.05)
    np.testing.assert_allclose(scores_large, scores, atol=1e-4)


def test_batched_equals_one_by_one(model, images):
    together = RTDetrDetector(model, 64, batch_size=2).detect(images * 2)
    alone = RTDetrDetector(model, 64, batch_size=1).detect(images * 2)
    for (boxes, scores), (boxes_alone, scores_alone) in zip(together, alone, strict=True):
        np.testing.assert_allclose(boxes, boxes_alone, atol=1e-2)
        np.testing.assert_allclose(scores, scores_alone, atol=1e-4)


def test_of_doubles_the_best_stays():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [30, 0, 40, 10]], np.float32)
    kept, scores = keep_best(boxes, np.array([0.4, 0.8, 0.6], np.float32))
    assert scores.tolist() == pytest.approx([0.8, 0.6])
    assert kept[:, 0].tolist() == [0, 30]


def test_no_images(model):
    assert RTDetrDetector(model, 64).detect([]) == []


def test_saved_and_loaded_it_is_the_same(model, images, tmp_path):
    RTDetrDetector(model, 64).save_pretrained(tmp_path / "model")
    loaded = load_box_detector(tmp_path)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "input.json",
        "model.safetensors",
    ]
    assert loaded.input_size == 64
    assert len(loaded.sha256) == 64
    for (boxes, scores), (expected, expected_scores) in zip(
        loaded.detect(images), RTDetrDetector(model, 64).detect(images), strict=True
    ):
        np.testing.assert_array_equal(boxes, expected)
        np.testing.assert_array_equal(scores, expected_scores)


def test_a_folder_of_the_library_loads_at_640(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert RTDetrDetector.from_pretrained(tmp_path).input_size == 640
    assert RTDetrDetector.from_pretrained(tmp_path, input_size=96).input_size == 96


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no config\.json in .*run the stage head_detector"
    ):
        load_box_detector(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 100}, "expected a multiple of 32 of at least 64, got 100"),
        ({"hidden_size": 18}, "expected a multiple of twice the 2 attention heads, got 18"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build_rtdetr(TINY_RTDETR.model_copy(update=changes))


@pytest.mark.parametrize(
    "targets",
    [
        [labels((0.5, 0.5, 0.3, 0.4)), labels()],
        [labels(), labels()],
        [labels(*[(0.3, 0.3, 0.2, 0.2)] * 8), labels((0.9, 0.9, 0.2, 0.2))],
    ],
    ids=["one and none", "none at all", "more heads than queries"],
)
def test_losses_are_finite_and_reach_every_parameter_group(targets):
    torch.manual_seed(0)
    model = build_rtdetr(TINY_RTDETR)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    losses = forward(model, images, targets).losses
    assert set(losses) == {"loss", "vfl", "bbox", "giou"}
    assert all(torch.isfinite(value).all() for value in losses.values())
    losses["loss"].backward()
    assert model.model.backbone.model.embedder.embedder[0].convolution.weight.grad.any()


def test_under_autocast_boxes_stay_float32(model):
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = forward(model, images)
    assert output.boxes_cxcywh.dtype == torch.float32
    # Eight bits would leave at most 256 different coordinates above one half.
    assert not torch.equal(output.boxes_cxcywh.bfloat16().float(), output.boxes_cxcywh)

"""Training data of the box detector: reading, augmentation, targets and hidden heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ml.box_detection.data import (
    BoxDataset,
    BoxLimits,
    LabelledImages,
    collate,
    hide_non_targets,
    read_labelled_images,
    select_targets,
)
from ml.imaging.io import encode_png
from ml.imaging.letterbox import PADDING_VALUE
from ml.labels.coco import CocoBox, CocoDataset, CocoImage
from ml.records.exclusions import Exclusions
from ml.records.shards import shard_writer
from ml.records.workspace import Workspace
from ml.training.determinism import SampleKey
from ml.training_data.augmentation import AugmentConfig

ONLY_GEOMETRY = AugmentConfig(rotate=0, colour=0, grey=0, blur=0, noise=0, jpeg=0)


def dataset(boxes, ignore=(), size=100):
    image = CocoImage(1, "shard-00000/a.jpg", size, size, "shard-00000", "a")
    return CocoDataset(
        (image,),
        tuple(
            CocoBox(n, 1, (x0, y0, x1 - x0, y1 - y0), n - 1 in ignore)
            for n, (x0, y0, x1, y1) in enumerate(boxes, 1)
        ),
    )


def square_on_black(box, size=100):
    pixels = np.zeros((size, size, 3), np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return pixels


def items(samples, augment, epochs):
    data = BoxDataset(samples, 64, BoxLimits(), 0, "head_detector", augment)
    return [data[SampleKey(0, epoch)] for epoch in range(epochs)]


def test_without_augmentation_the_box_is_letterboxed():
    samples = LabelledImages(dataset([(20, 30, 60, 70)]), [np.zeros((100, 100, 3), np.uint8)])
    _, image, boxes = items(samples, None, 1)[0]
    assert image.shape == (64, 64, 3)
    np.testing.assert_allclose(boxes, [[12.8, 19.2, 38.4, 44.8]], rtol=1e-5)


def test_the_box_follows_the_image_through_every_augmentation():
    box = (20, 30, 60, 70)
    samples = LabelledImages(dataset([box]), [square_on_black(box)])
    drawn = items(samples, ONLY_GEOMETRY, 20)
    for _, image, boxes in drawn:
        rows, columns = np.nonzero((image > 200).all(axis=2))
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], seen, atol=1.6)
    assert len({tuple(boxes[0].tolist()) for _, _, boxes in drawn}) == 20


def test_epoch_and_id_decide_the_draw():
    samples = LabelledImages(dataset([(20, 30, 60, 70)]), [square_on_black((20, 30, 60, 70))])
    first, again = items(samples, AugmentConfig(), 2), items(samples, AugmentConfig(), 2)
    np.testing.assert_array_equal(first[1][1], again[1][1])
    assert not np.array_equal(first[0][1], first[1][1])


def test_ignored_heads_are_painted_over_and_no_targets():
    boxes = [(10, 10, 40, 40), (60, 60, 90, 90)]
    pixels = square_on_black(boxes[0]) + square_on_black(boxes[1])
    samples = LabelledImages(dataset(boxes, ignore={1}), [pixels])
    no_change = ONLY_GEOMETRY.model_copy(update={"flip": 0.0, "zoom": (1.0, 1.0), "shift": 0.0})
    _, image, targets = items(samples, no_change, 1)[0]
    assert len(targets) == 1
    assert (image[45:50, 45:50] == PADDING_VALUE).all()
    assert (image[12:20, 12:20] == 255).all()


def test_what_is_a_target():
    boxes = np.array(
        [[10, 10, 30, 30], [-18, 0, 6, 24], [-6, 0, 18, 24], [60, 60, 62, 90], [20, 20, 50, 50]],
        np.float32,
    )
    ignore = np.array([False, False, False, False, True])
    clipped, targets = select_targets(boxes, ignore, 64, BoxLimits(min_inside=0.35, min_side_px=3))
    # Whole; a quarter inside; three quarters inside; too thin; ignored.
    assert targets.tolist() == [True, False, True, False, False]
    assert clipped.min() >= 0
    assert clipped.max() <= 64


def test_no_boxes_at_all():
    clipped, targets = select_targets(
        np.zeros((0, 4), np.float32), np.zeros(0, bool), 64, BoxLimits()
    )
    assert clipped.shape == (0, 4)
    assert targets.shape == (0,)


def test_hiding_leaves_target_heads_alone():
    image = np.full((20, 20, 3), 9, np.uint8)
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15]], np.float32)
    painted = hide_non_targets(image, boxes, np.array([True, False]))
    assert (painted[:10, :10] == 9).all()
    assert (painted[10:15, 10:15] == PADDING_VALUE).all()
    assert (image == 9).all()


def test_collate_gives_fractions_of_the_side():
    pixels = np.zeros((64, 64, 3), np.uint8)
    nothing = np.zeros((0, 4), np.float32)
    batch = collate(
        [("a", pixels, np.array([[0, 16, 32, 48]], np.float32)), ("b", pixels, nothing)], 64
    )
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.labels[0]["boxes"].tolist() == [[0.25, 0.5, 0.5, 0.5]]
    assert batch.labels[1]["boxes"].shape == (0, 4)
    assert batch.labels[1]["class_labels"].dtype == torch.int64
    assert batch.sample_ids == ["a", "b"]


def test_damaged_images_are_excluded_and_their_labels_go_along(tmp_path):
    ws = Workspace(tmp_path, 0, 1, 3)
    ids = ("good", "empty", "gone")
    truth = CocoDataset(
        tuple(
            CocoImage(i, f"shard-00000/{name}.jpg", 100, 100, "shard-00000", name)
            for i, name in enumerate(ids, 1)
        ),
        tuple(CocoBox(i, i, (1, 1, 9, 9)) for i in (1, 2, 3)),
    )
    with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
        writer.add("good", {"jpg": encode_png(np.zeros((100, 100, 3), np.uint8))})
        writer.add("empty", {"jpg": b""})
    exclusions = Exclusions("head_detector")
    samples = read_labelled_images(ws, truth, exclusions)
    assert samples.sample_ids == ["good"]
    assert [box.image_id for box in samples.truth.boxes] == [1]
    rows = exclusions.to_frame().set_index("sample_id")["reason"]
    assert rows.to_dict() == {"empty": "damaged_image", "gone": "damaged_shard"}


def test_labels_without_their_image_are_refused():
    with pytest.raises(ValueError, match="1 labelled, 0 images"):
        LabelledImages(dataset([(1, 1, 5, 5)]), [])

"""Mosaics: labels stay on what they label, windows are as asked for, the end has none."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from ml.imaging.io import encode_jpeg
from ml.records.shards import shard_writer
from ml.training.determinism import SampleKey
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.datamodule import HeadBatch, HeadDataModule, LoaderConfig
from ml.training_data.labels import HeadLabels, LabelLimits
from ml.training_data.mosaic import MosaicConfig, MosaicPlanner
from ml.training_data.samples import HeadSamples

IDS = [f"s{i}" for i in range(5)]
PLAIN = AugmentConfig(flip=0, rotate=0, shift=0, colour=0, grey=0, blur=0, noise=0, jpeg=0)
LIMITS = LabelLimits(min_side_px=4)


@pytest.fixture
def samples(tmp_path: Path) -> HeadSamples:
    """Grey images with one red square each, which is the head, at its own place."""
    path, labels = tmp_path / "shard.tar", {}
    with shard_writer(path) as writer:
        for i, sample_id in enumerate(IDS):
            image = np.full((96, 128, 3), 60, np.uint8)
            x, y = 10 + 18 * i, 20 + 8 * i
            image[y : y + 30, x : x + 30] = (250, 10, 10)
            writer.add(sample_id, {"jpg": encode_jpeg(image, 98)})
            box = np.array([[x, y, x + 30, y + 30]], np.float32)
            flame = np.zeros((1, 413), np.float32)
            flame[:, [403, 407]] = (1, -1)
            flame[:, 409:413] = (x + 15, y + 15, 0, 120)
            outline = np.repeat(box.reshape(1, 2, 2), 16, axis=1)
            labels[sample_id] = HeadLabels(box, flame, np.array([True]), np.array([False]), outline)
    return HeadSamples(IDS, [path] * len(IDS), labels, cache_bytes=10**7)


def batch_of(samples: HeadSamples, mosaic: MosaicConfig, epoch: int, epochs: int = 4) -> HeadBatch:
    config = LoaderConfig(image_size=96, batch_size=5, mosaic=mosaic)
    data = HeadDataModule(samples, samples, config, LIMITS, PLAIN, 7, "toy")
    data.trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return next(iter(loader))


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_labels_lie_on_the_heads(samples: HeadSamples, cells: int) -> None:
    share = (0.4, 0.7)
    mosaic = MosaicConfig(probability=1.0, cells=(cells,), head_fraction=share)
    batch = batch_of(samples, mosaic, epoch=0)
    targets, side = batch.targets, 96 / cells
    assert torch.bincount(targets.image_index).tolist() == [cells**2] * 5
    sides = targets.boxes_xyxy[:, 2:] - targets.boxes_xyxy[:, :2]
    assert (sides >= share[0] * side - 0.01).all()
    assert (sides <= share[1] * side + 0.01).all()
    assert not targets.ignore.any()
    red = (batch.images[:, 0] > 150) & (batch.images[:, 1] < 100)
    for box, flame, image in zip(
        targets.boxes_xyxy, targets.flame, targets.image_index, strict=True
    ):
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        assert red[image, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
        assert torch.allclose(flame[409:411], (box[:2] + box[2:]) / 2, atol=1e-3)
        assert flame[412] == pytest.approx(120 * float(x1 - x0) / 30, rel=0.1)
    # Nothing red is outside of the labelled boxes.
    areas = torch.bincount(targets.image_index, weights=sides.prod(dim=1).double())
    assert (red.sum(dim=(1, 2)) <= areas * 1.25).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("rotate", [0.0, 1.0])
def test_windows_are_centred_on_their_heads(
    samples: HeadSamples, flip: float, rotate: float
) -> None:
    augment = PLAIN.model_copy(update={"flip": flip, "rotate": rotate, "rotation_deg": 90.0})
    share = (0.5, 0.5)
    planner = MosaicPlanner(samples, MosaicConfig(cells=(2,), head_fraction=share), augment, 96)
    angles = set()
    for cell in planner.draw(np.random.default_rng(0), SampleKey(0, 0)):
        x0, y0, x1, y1 = samples.labels[IDS[cell.index]].boxes_xyxy[0]
        centre = cell.similarity.points(np.array([(x0 + x1) / 2, (y0 + y1) / 2]))
        np.testing.assert_allclose(centre, [24, 24], atol=1e-3)
        assert cell.similarity.mirror_width == (128 if flip else None)
        assert cell.similarity.zoom == pytest.approx(24 / 30)
        angles.add(cell.similarity.angle_rad)
    assert len(angles) == (4 if rotate else 1)


def test_the_last_epochs_have_whole_images(samples: HeadSamples) -> None:
    mosaic = MosaicConfig(probability=1.0, cells=(2,), whole_epochs=1)
    heads = [len(batch_of(samples, mosaic, epoch).targets) for epoch in range(4)]
    assert heads == [20, 20, 20, 5]


def test_a_share_of_the_images(samples: HeadSamples) -> None:
    mosaic = MosaicConfig(probability=0.5, cells=(2,))
    counts = [
        count
        for epoch in range(6)
        for count in torch.bincount(
            batch_of(samples, mosaic, epoch, epochs=9).targets.image_index
        ).tolist()
    ]
    assert set(counts) == {1, 4}
    assert 6 < counts.count(4) < 24


def test_same_seed_same_mosaic(samples: HeadSamples) -> None:
    mosaic = MosaicConfig(probability=1.0)
    first, again = (batch_of(samples, mosaic, 1) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets.flame, again.targets.flame)
    assert not torch.equal(first.images, batch_of(samples, mosaic, 2).images)


def test_wrong_cells_and_no_heads_are_refused(samples: HeadSamples) -> None:
    with pytest.raises(ValueError, match=r"mosaic.cells: each must divide .* 96 px, got \[5\]"):
        MosaicPlanner(samples, MosaicConfig(cells=(5,)), PLAIN, 96)
    empty = HeadSamples(IDS, samples.shards, {})
    with pytest.raises(ValueError, match="no training image has a head"):
        MosaicPlanner(empty, MosaicConfig(), PLAIN, 96)

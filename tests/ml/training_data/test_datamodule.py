"""Training batches: reproducible for any number of workers, labels in the network's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.imaging.io import encode_jpeg
from ml.records.shards import shard_writer
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.datamodule import HeadBatch, HeadDataModule, LoaderConfig
from ml.training_data.samples import HeadLabels, HeadSamples, LabelLimits

IDS = [f"s{i}" for i in range(7)]
NO_FLIP = AugmentConfig(flip=0, rotate=0.5)


def labels(index: int) -> HeadLabels:
    boxes = np.array([[8, 8, 40 + index, 44], [50, 2, 56, 8]], np.float32)
    flame = np.zeros((2, 413), np.float32)
    flame[:, [403, 407]] = (1, -1)
    flame[:, 409:413] = (20, 26, 0, 120)
    outlines = np.repeat(boxes.reshape(2, 2, 2), 16, axis=1)
    valid = np.array([True, False])
    flame[~valid] = 0
    return HeadLabels(boxes, flame, valid, np.array([False, False]), outlines)


@pytest.fixture
def samples(tmp_path: Path) -> HeadSamples:
    rng = np.random.default_rng(0)
    path = tmp_path / "shard.tar"
    with shard_writer(path) as writer:
        for sample_id in IDS:
            image = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            writer.add(sample_id, {"jpg": encode_jpeg(image)})
    by_id = {sample_id: labels(i) for i, sample_id in enumerate(IDS)}
    return HeadSamples(IDS, [path] * len(IDS), by_id, cache_bytes=10**7)


def module(samples: HeadSamples, workers: int = 0, seed: int = 3) -> HeadDataModule:
    config = LoaderConfig(image_size=96, batch_size=3, num_workers=workers)
    return HeadDataModule(
        samples, samples, config, LabelLimits(min_side_px=11.0), NO_FLIP, seed, "toy"
    )


def batches(data: HeadDataModule, epoch: int) -> list[HeadBatch]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return list(loader)


def equal(first: list[HeadBatch], second: list[HeadBatch]) -> bool:
    return all(
        a.sample_ids == b.sample_ids
        and torch.equal(a.images, b.images)
        and torch.equal(a.targets.boxes_xyxy, b.targets.boxes_xyxy)
        and torch.equal(a.targets.flame, b.targets.flame)
        for a, b in zip(first, second, strict=True)
    )


def test_same_batches_again_and_with_workers(samples: HeadSamples) -> None:
    first = batches(module(samples), epoch=1)
    assert [len(batch.sample_ids) for batch in first] == [3, 3]
    assert equal(first, batches(module(samples), epoch=1))
    assert equal(first, batches(module(samples, workers=2), epoch=1))
    assert not equal(first, batches(module(samples), epoch=2))
    assert not equal(first, batches(module(samples, seed=4), epoch=1))


def test_persistent_workers_follow_the_epoch(samples: HeadSamples) -> None:
    loader = module(samples, workers=1).train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert equal(list(loader), batches(module(samples), epoch))


def test_a_sample_does_not_depend_on_its_company(samples: HeadSamples) -> None:
    fewer = HeadSamples(IDS[1:], list(samples.shards)[1:], samples.labels, 0)
    everything = batches(module(samples), 0)
    images = {i: x for b in everything for i, x in zip(b.sample_ids, b.images, strict=True)}
    for batch in batches(module(fewer), 0):
        for sample_id, image in zip(batch.sample_ids, batch.images, strict=True):
            if sample_id in images:
                assert torch.equal(image, images[sample_id])


def test_validation_is_the_plain_letterbox(samples: HeadSamples) -> None:
    batch = next(iter(module(samples).val_dataloader()))
    assert batch.sample_ids == ("s0", "s1", "s2")
    assert batch.images.shape == (3, 3, 96, 96)
    assert batch.images.dtype == torch.uint8
    # 64 x 48 -> 96 x 72, 12 rows of grey above and below.
    assert (batch.images[:, :, :12] == 127).all()
    assert (batch.images[:, :, -12:] == 127).all()
    first = batch.targets.image_index == 0
    assert torch.allclose(batch.targets.boxes_xyxy[first][0], torch.tensor([12.0, 24, 60, 78]))
    assert torch.allclose(batch.targets.flame[first][0, 409:413], torch.tensor([30.0, 51, 0, 180]))
    # Six px become nine: below the limit of 11, and without parameters.
    assert batch.targets.ignore[first].tolist() == [False, True]
    assert batch.targets.flame_valid[first].tolist() == [True, False]
    assert not batch.targets.flame[first][1].any()


def test_heads_that_leave_the_frame(samples: HeadSamples) -> None:
    shifted = AugmentConfig(flip=0, rotate=0, zoom=(2.0, 2.0), shift=0.5)
    config = LoaderConfig(image_size=96, batch_size=3)
    data = HeadDataModule(samples, samples, config, LabelLimits(), shifted, 3, "toy")
    seen, ignored = 0, 0
    for epoch in range(6):
        for batch in batches(data, epoch):
            boxes = batch.targets.boxes_xyxy
            assert (boxes >= 0).all()
            assert (boxes <= 96).all()
            assert (boxes[:, 2:] > boxes[:, :2]).all()
            seen += len(boxes)
            ignored += int(batch.targets.ignore.sum())
    assert 0 < ignored < seen < 6 * 6 * 2


def test_flip_without_mirror_is_refused(samples: HeadSamples) -> None:
    with pytest.raises(ValueError, match=r"toy: augment.flip is 0.5 but the head model has no"):
        HeadDataModule(samples, samples, LoaderConfig(), LabelLimits(), AugmentConfig(), 1, "toy")


def test_batch_moves_and_keeps_ids(samples: HeadSamples) -> None:
    batch = batches(module(samples), 0)[0].to("meta")
    assert batch.images.device.type == "meta"
    assert batch.targets.boxes_xyxy.device.type == "meta"
    assert len(batch.sample_ids) == 3

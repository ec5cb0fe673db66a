"""Training batches: reproducible for any number of workers, labels in the network's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions
from ml.records.shards import shard_writer
from ml.training.determinism import SampleKey
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.damage import Damage, DamageLog
from ml.training_data.datamodule import HeadBatch, HeadDataModule, LoaderConfig
from ml.training_data.labels import HeadLabels, LabelLimits
from ml.training_data.mosaic import MosaicConfig
from ml.training_data.samples import HeadSamples

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


def windowed(tmp_path: Path, num_shards: int, window: int) -> HeadDataModule:
    """Shards of four small images each, read in windows."""
    ids, paths, by_id = [], [], {}
    for shard in range(num_shards):
        path = tmp_path / f"part-{shard}.tar"
        with shard_writer(path) as writer:
            for number in range(4):
                sample_id = f"p{shard}-{number}"
                image = np.full((48, 64, 3), 40 + shard, np.uint8)
                writer.add(sample_id, {"jpg": encode_jpeg(image)})
                ids.append(sample_id)
                paths.append(path)
                by_id[sample_id] = labels(number)
    config = LoaderConfig(
        image_size=96,
        batch_size=2,
        shuffle_shards=window,
        cache_mb=0,
        mosaic=MosaicConfig(probability=0.5, cells=(2,)),
    )
    many = HeadSamples(ids, paths, by_id)
    return HeadDataModule(many, many, config, LabelLimits(), NO_FLIP, 3, "toy")


def order_of(data: HeadDataModule, epoch: int) -> list[str]:
    return [sample_id for batch in batches(data, epoch) for sample_id in batch.sample_ids]


def test_few_shards_are_shuffled_as_one(tmp_path: Path) -> None:
    whole = windowed(tmp_path, 3, window=64)
    assert order_of(whole, 1) == order_of(windowed(tmp_path, 3, window=3), 1)
    assert order_of(whole, 1) != order_of(windowed(tmp_path, 3, window=2), 1)


def test_many_shards_are_read_in_windows_that_change(tmp_path: Path) -> None:
    data = windowed(tmp_path, 6, window=2)
    first, second = order_of(data, 0), order_of(data, 1)
    assert sorted(first) == sorted(second)
    assert len(first) == 24

    def windows(order: list[str]) -> list[set[str]]:
        return [{name.split("-")[0] for name in order[at : at + 8]} for at in (0, 8, 16)]

    assert all(len(shards) == 2 for shards in windows(first) + windows(second))
    assert windows(first) != windows(second)
    assert first == order_of(windowed(tmp_path, 6, window=2), 0)


def test_mosaics_read_shards_of_their_window_alone(tmp_path: Path) -> None:
    data = windowed(tmp_path, 6, window=2)
    planner = data._mosaics()
    assert planner is not None
    windows = data.windows.of_epoch(5)
    rng = np.random.default_rng(0)
    for index in (0, 9, 23):
        cells = [c for _ in range(8) for c in planner.draw(rng, SampleKey(index, 5))]
        assert {windows[cell.index] for cell in cells} == {windows[index]}
        assert len({cell.index for cell in cells}) > 3


def test_damage_met_while_reading_leaves_the_batch_and_is_excluded(
    samples: HeadSamples, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.tar"
    with shard_writer(path) as writer:
        writer.add("s3", {"jpg": b"no image"})
    samples.shards = [
        path if name == "s3" else shard for name, shard in zip(IDS, samples.shards, strict=True)
    ]
    whole = batches(module(samples), epoch=1)
    log = DamageLog(tmp_path / "damaged.jsonl")
    data = module(samples, workers=1)
    data._damage = log
    read = batches(data, epoch=1)
    for batch in read:
        data.on_before_batch_transfer(batch, 0)
    assert sum(len(batch.sample_ids) for batch in read) == 5
    assert equal(whole, read)
    log.note(damage for batch in read for damage in batch.damaged)
    exclusions = Exclusions("toy")
    assert len(DamageLog(log.path).exclude(exclusions)) == 1, "a resumed training knows it"
    (row,) = exclusions.rows()
    assert (row["sample_id"], row["reason"]) == ("s3", "damaged_image")
    assert "damaged.tar/s3" in row["detail"]


def test_a_batch_of_damaged_images_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"none of the 2 images of a batch could be read.*x\.tar"):
        HeadDataModule.collate([Damage("a", "damaged_shard", "x.tar/a: gone")] * 2)


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


def test_nothing_is_pickled_for_loader_processes(
    samples: HeadSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a training process that was itself spawned, where the default is to spawn."""

    def pickled(_: HeadSamples) -> object:
        raise AssertionError("all samples would be copied to each loader process")

    monkeypatch.setattr(HeadSamples, "__getstate__", pickled, raising=False)
    before = torch.multiprocessing.get_start_method()
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        assert equal(batches(module(samples), 1), batches(module(samples, workers=1), 1))
    finally:
        torch.multiprocessing.set_start_method(before, force=True)

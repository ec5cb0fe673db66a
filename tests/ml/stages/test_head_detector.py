"""Stage head_detector: really trains, resumes to the same bytes, measures what it saved."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ml.box_detection import load_box_detector
from ml.imaging.io import encode_jpeg
from ml.labels.coco import CocoBox, CocoDataset, CocoImage, read_coco, write_coco
from ml.records.exclusions import LostSamples, TooManyExcluded
from ml.records.shards import shard_writer
from ml.records.tables import EXCLUSIONS, SAMPLES_NAME, TRAINING_SAMPLES, read_table
from ml.records.workspace import Workspace
from ml.stages import head_detector as stage
from ml.stages.head_detector import HeadDetectorConfig, run
from ml.training.fit import FitConfig
from ml.training.optim import OptimConfig
from ml.training.tracking import NullTracker
from tests.fixtures.recording_tracker import RecordingTracker
from tests.tiny_models.box_detector import TINY_RTDETR

CONFIG = HeadDetectorConfig(
    architecture=TINY_RTDETR,
    batch_size=4,
    dense_weight=2.0,
    optim=OptimConfig(
        kind="muon", muon_linear=True, lr=2e-3, weight_decay=1e-2, warmup_steps=40, ema_decay=0.99
    ),
    fit=FitConfig(epochs=2, precision="32-true"),
    max_drop_rate=0.1,
)


def scene(rng):
    """A bright disc on noise, and its box."""
    image = rng.integers(0, 90, (64, 64, 3), np.uint8)
    centre, radius = rng.integers(16, 48, 2), int(rng.integers(8, 14))
    cv2.circle(image, tuple(int(c) for c in centre), radius, (230, 180, 150), -1)
    return image, (centre[0] - radius, centre[1] - radius, 2 * radius + 1, 2 * radius + 1)


def make_workspace(root, num_train=12, num_val=4):
    ws = Workspace(root, seed=3, num_shards=1, shard_size=16, threads=1)
    rng = np.random.default_rng(0)
    scenes = [scene(rng) for _ in range(num_train + num_val)]
    with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
        for i, (image, _) in enumerate(scenes):
            writer.add(f"s{i}", {"jpg": encode_jpeg(image)})
    for split, ids in (("train", range(num_train)), ("val", range(num_train, len(scenes)))):
        write_coco(
            ws.stage_dir("labels") / f"{split}.json",
            CocoDataset(
                tuple(
                    CocoImage(i + 1, f"shard-00000/s{i}.jpg", 64, 64, "shard-00000", f"s{i}")
                    for i in ids
                ),
                tuple(CocoBox(i + 1, i + 1, tuple(float(v) for v in scenes[i][1])) for i in ids),
            ),
        )
    return ws


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    ws = make_workspace(tmp_path_factory.mktemp("run"))
    tracker = RecordingTracker()
    return ws, run(ws, CONFIG, tracker), tracker


def test_data_and_metrics_are_logged_under_names_with_a_group(finished):
    _, report, tracker = finished
    assert tracker.datasets == {
        "labels/train": {"images": 12, "heads": 12, "ignored": 0},
        "labels/val": {"images": 4, "heads": 4, "ignored": 0},
    }
    assert tracker.params["data.train_images"] == 12
    assert tracker.metrics["val/images"] == 4
    assert tracker.metrics["final/ap50"] == pytest.approx(report.metadata["ap50"], abs=1e-4)
    assert {name.partition("/")[0] for name in tracker.metrics} == {"cost", "final", "val"}


def test_it_writes_model_figures_curves_and_images(finished):
    ws, report, _ = finished
    out = ws.stage_dir("head_detector")
    assert (report.num_in, report.num_out, report.num_excluded) == (16, 16, 0)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"ap50", "ap50_95", "precision", "recall", "count_correct"} <= set(metrics)
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["val_heads"] == 4
    history = pd.read_csv(out / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert {"train/loss", "val/ap50", "val/ap50_95"} <= set(history.columns)
    pixels = cv2.imread(str(report.images["predictions"]))
    assert pixels.std() > 10
    assert report.metadata["weights_sha256"] == load_box_detector(out).sha256


def test_it_lists_what_it_used(finished):
    ws, _, _ = finished
    used = read_table(ws.stage_dir("head_detector") / SAMPLES_NAME, TRAINING_SAMPLES)
    for split in stage.SPLITS:
        labels = read_coco(ws.stage_dir("labels") / f"{split}.json")
        mine = used.loc[used["split"] == split, "sample_id"]
        assert mine.tolist() == [image.sample_id for image in labels.images]


def test_a_lost_image_is_named_before_the_training(tmp_path, monkeypatch):
    ws = make_workspace(tmp_path)
    read = stage.read_labelled_images

    def loses_one(ws, truth, *arguments):
        fewer = replace(truth, images=truth.images[1:], boxes=truth.boxes[1:])
        return read(ws, fewer, *arguments)

    monkeypatch.setattr(stage, "read_labelled_images", loses_one)
    with pytest.raises(LostSamples, match=r"neither used nor excluded: s0, s12$"):
        run(ws, CONFIG, NullTracker())


def test_the_unfinished_work_is_gone(finished):
    ws, *_ = finished
    assert not list((ws.root / "data" / ".work").rglob("*.ckpt"))


def test_killed_after_an_epoch_it_ends_in_the_same_bytes(finished, tmp_path, monkeypatch):
    whole, *_ = finished
    ws = make_workspace(tmp_path)

    class Killed(Exception):
        pass

    original = stage.BoxDetectorModule.training_step

    def killed_in_second_epoch(self, batch, batch_idx):
        if self.trainer.current_epoch == 1 and batch_idx == 1:
            raise Killed
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(stage.BoxDetectorModule, "training_step", killed_in_second_epoch)
        with pytest.raises(Killed):
            run(ws, CONFIG, NullTracker())
    assert list((ws.root / "data" / ".work").rglob("*.ckpt"))
    run(ws, CONFIG, NullTracker())
    for name in ("model/model.safetensors", "metrics.json", "history.csv"):
        ours = (ws.stage_dir("head_detector") / name).read_bytes()
        assert ours == (whole.stage_dir("head_detector") / name).read_bytes(), name


def test_a_few_damaged_images_are_excluded_with_reason(tmp_path):
    ws = make_workspace(tmp_path)
    tar = ws.stage_dir("images") / "shard-00000.tar"
    tar.write_bytes(tar.read_bytes()[:-12000])
    lax = CONFIG.model_copy(update={"max_drop_rate": 0.9, "fit": FitConfig(epochs=1)})
    report = run(ws, lax, NullTracker())
    assert report.num_in == 16
    assert report.num_excluded > 0
    table = read_table(ws.stage_dir("head_detector") / "all.exclusions.parquet", EXCLUSIONS)
    assert len(table) == report.num_excluded
    assert set(table["reason"]) <= {"damaged_shard", "damaged_image"}


def test_too_many_damaged_images_stop_the_stage(tmp_path):
    ws = make_workspace(tmp_path)
    tar = ws.stage_dir("images") / "shard-00000.tar"
    tar.write_bytes(tar.read_bytes()[:4096])
    with pytest.raises(TooManyExcluded, match="labelled images of split train excluded"):
        run(ws, CONFIG, NullTracker())


def test_it_learns(tmp_path):
    ws = make_workspace(tmp_path, num_train=24, num_val=8)
    config = CONFIG.model_copy(update={"fit": FitConfig(epochs=8, validate_every_epochs=8)})
    history = run(ws, config, NullTracker()).tables["history"]
    assert history["train/loss"].iloc[-1] < 0.7 * history["train/loss"].iloc[0]
    torch.set_num_threads(1)

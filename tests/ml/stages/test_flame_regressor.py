import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from ml.annotation.augment import CropAugmentConfig
from ml.annotation.crop_data import STAGE, CropDataset, CropExamples, load_crops
from ml.annotation.regressor import RegressorArchitecture, load_regressor
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.imaging.io import encode_jpeg
from ml.records.exclusions import Exclusions, LostSamples
from ml.records.shards import shard_writer
from ml.records.tables import (
    CROPS,
    EXCLUSIONS,
    SAMPLES_NAME,
    TRAINING_SAMPLES,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages import flame_regressor as stage
from ml.stages.flame_regressor import FlameRegressorConfig, run, shape_metrics
from ml.training.determinism import SampleKey
from ml.training.fit import FitConfig
from ml.training.tracking import NullTracker
from tests.fixtures.recording_tracker import RecordingTracker

ARCHITECTURE = RegressorArchitecture(crop_size=32, num_shape=2, num_expression=1)
CONFIG = FlameRegressorConfig(
    architecture=ARCHITECTURE,
    fit=FitConfig(epochs=2, precision="32-true", validate_every_epochs=1),
    batch_size=8,
    preview_crops=2,
)


@pytest.fixture(scope="session")
def head_model(ball_head: HeadModel) -> HeadModel:
    return ball_head


def write_crops(ws: Workspace, head_model: HeadModel, damaged: tuple[str, ...] = ()) -> None:
    """Two shards of balls with a dark spot: 24 to train on, 8 held out."""
    geometry = HeadGeometry(head_model)
    for shard_index in range(2):
        shard = f"crops-{shard_index:05d}"
        rows = []
        with shard_writer(ws.stage_dir("crops") / f"{shard}.tar") as writer:
            for index in range(16 * shard_index, 16 * shard_index + 16):
                rng = np.random.default_rng(index)
                flame = np.zeros((1, 413), np.float32)
                flame[:, 403:409] = [1, 0, 0, 0, -1, 0]
                flame[:, 409:411] = 36 + rng.uniform(-4, 4, 2)
                flame[:, 412] = rng.uniform(140, 200)
                points = geometry.vertices_px(flame)[0]
                low, high = points.min(axis=0), points.max(axis=0)
                image = np.full((72, 72, 3), 30, np.uint8)
                # In sixteenths of a pixel; OpenCV's pixel centres lie at integers.
                centre = np.round(16 * (flame[0, 409:411] - 0.5)).astype(int).tolist()
                radius = round(16 * float(high[0] - low[0]) / 2)
                cv2.circle(image, centre, radius, (220, 180, 160), -1, cv2.LINE_AA, 4)
                crop_id = f"crop-{index:06d}"
                data = encode_jpeg(image, 95)
                writer.add(crop_id, {"jpg": data[:99] if crop_id in damaged else data})
                rows.append(
                    {
                        "crop_id": crop_id,
                        "split": "val" if index % 4 == 0 else "train",
                        "shard": shard,
                        "width": 72,
                        "height": 72,
                        "bbox_xywh": np.concatenate([low, high - low]),
                        "flame": flame[0],
                        "visible": 1.0,
                        "seed": index,
                    }
                )
        write_table(ws.table_path("crops", shard), pd.DataFrame(rows), CROPS)


@pytest.fixture
def ws(tmp_path: Path, head_model: HeadModel) -> Workspace:
    head_model.save(tmp_path / "data/head_model/head_model.npz")
    return Workspace(tmp_path, seed=3, num_shards=1, shard_size=1, threads=1)


def test_shape_is_measured_without_pose_and_beside_the_mean_head(open_head: HeadModel) -> None:
    geometry = HeadGeometry(open_head)
    true = np.zeros((300, 413), np.float32)
    true[:, 403:409], true[:, 412] = [1, 0, 0, 0, -1, 0], 150.0
    true[:, :3] = np.random.default_rng(0).normal(0, 1, (300, 3))
    posed = true.copy()
    posed[:, 403:409], posed[:, 409:411], posed[:, 412] = [0, 0, 1, 0, -1, 0], 70.0, 40.0
    right = shape_metrics(posed, true, geometry)
    assert right["nme_aligned"] == pytest.approx(0, abs=1e-3)
    assert right["nme_aligned_mean_head"] > 0.3
    posed[:, :3] = 0.0
    same = shape_metrics(posed, true, geometry)
    assert same["nme_aligned"] == pytest.approx(right["nme_aligned_mean_head"], rel=1e-6)
    posed[:, :3] = -true[:, :3]
    assert shape_metrics(posed, true, geometry)["nme_aligned"] > 1.5 * same["nme_aligned"]


def test_run_writes_a_regressor_that_loads_and_what_a_person_looks_at(
    ws: Workspace, head_model: HeadModel
) -> None:
    write_crops(ws, head_model, damaged=("crop-000005",))
    tracker = RecordingTracker()
    report = run(ws, CONFIG, tracker)
    assert (report.num_in, report.num_out, report.num_excluded) == (32, 31, 1)
    assert tracker.datasets == {"crops/train": {"crops": 23}, "crops/val": {"crops": 8}}
    assert (tracker.params["data.train_crops"], tracker.metrics["val/crops"]) == (23, 8)
    assert tracker.metrics["final/rotation_deg"] == report.metadata["rotation_deg"]
    assert {name.partition("/")[0] for name in tracker.metrics} == {"cost", "final", "val"}
    folder = ws.stage_dir(STAGE)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_train_crops"] == 23
    assert metrics["num_val_crops"] == 8
    assert metrics["rotation_frontal_deg"] == pytest.approx(0, abs=0.1)
    assert metrics["nme_bbox"] < 50
    assert 0 < metrics["nme_aligned"] < 5
    assert metrics["nme_aligned_mean_head"] == pytest.approx(0, abs=1e-4), "all crops show it"
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert {"train/loss", "train/reprojection", "val/rotation_deg"} <= set(history.columns)
    exclusions = read_table(folder / "exclusions.parquet", EXCLUSIONS)
    assert exclusions[["sample_id", "reason"]].to_numpy().tolist() == [
        ["crop-000005", "damaged_image"]
    ]
    assert "crops-00000.tar/crop-000005.jpg" in exclusions["detail"].iloc[0]
    used = read_table(folder / SAMPLES_NAME, TRAINING_SAMPLES)
    assert used["split"].value_counts().to_dict() == {"train": 23, "val": 8}
    assert "crop-000005" not in set(used["sample_id"])
    assert all(path.is_file() for path in report.images.values())
    regressor = load_regressor(folder)
    assert regressor.sha256 == report.metadata["sha256"]
    assert regressor.predict(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).isfinite().all()
    first = (folder / "regressor.safetensors").read_bytes()
    run(ws, CONFIG, NullTracker())
    assert (folder / "regressor.safetensors").read_bytes() == first


def test_lost_crops_are_named_before_the_training(
    ws: Workspace, head_model: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_crops(ws, head_model)

    def loses_val(ws: Workspace, split: str, exclusions: Exclusions, cache_mb: int) -> CropExamples:
        found = load_crops(ws, split, exclusions, cache_mb)
        return replace(found, crop_ids=found.crop_ids[1:]) if split == "val" else found

    monkeypatch.setattr(stage, "load_crops", loses_val)
    with pytest.raises(LostSamples, match=r"neither used nor excluded: crop-000000$"):
        run(ws, CONFIG, NullTracker())


def test_crops_come_back_with_their_split_and_box(ws: Workspace, head_model: HeadModel) -> None:
    write_crops(ws, head_model)
    val = load_crops(ws, "val", Exclusions(STAGE))
    assert val.crop_ids == [f"crop-{index:06d}" for index in range(0, 32, 4)]
    points = HeadGeometry(head_model).vertices_px(val.flame)
    np.testing.assert_allclose(val.boxes_xyxy[:, :2], points.min(axis=1), atol=1e-3)
    np.testing.assert_allclose(val.boxes_xyxy[:, 2:], points.max(axis=1), atol=1e-3)


def test_crops_beyond_the_cache_are_decoded_again(ws: Workspace, head_model: HeadModel) -> None:
    write_crops(ws, head_model)
    cached = load_crops(ws, "train", Exclusions(STAGE)).images_rgb
    decoded = load_crops(ws, "train", Exclusions(STAGE), cache_mb=0).images_rgb
    assert cached[3] is cached[3]
    assert decoded[3] is not decoded[3]
    np.testing.assert_array_equal(cached[3], decoded[3])


def test_items_depend_on_crop_and_epoch_only(ws: Workspace, head_model: HeadModel) -> None:
    write_crops(ws, head_model)
    train = load_crops(ws, "train", Exclusions(STAGE))
    data = CropDataset(train, ARCHITECTURE, CropAugmentConfig(), head_model, seed=1)
    again = CropDataset(train, ARCHITECTURE, CropAugmentConfig(), head_model, seed=1)
    again[SampleKey(3, 0)]
    np.testing.assert_array_equal(data[SampleKey(5, 2)].crop_rgb, again[SampleKey(5, 2)].crop_rgb)
    assert (data[SampleKey(5, 2)].crop_rgb != data[SampleKey(5, 3)].crop_rgb).any()


def test_labels_follow_the_pixels(ws: Workspace, head_model: HeadModel) -> None:
    """The drawn ball's centre lies at the translation of the augmented parameters."""
    write_crops(ws, head_model)
    train = load_crops(ws, "train", Exclusions(STAGE))
    moves = CropAugmentConfig(
        occlusion=0, truncation=0, low_resolution=0, look=None, shift=0.05, zoom=0.1
    )
    data = CropDataset(train, ARCHITECTURE, moves, head_model, seed=1)
    for index in range(len(data)):
        item = data[SampleKey(index, 0)]
        rows, columns = np.nonzero(item.crop_rgb[..., 0] > 125)
        centre = [columns.mean() + 0.5, rows.mean() + 0.5]
        np.testing.assert_allclose(item.flame[409:411], centre, atol=0.4)
        area = len(rows)
        radius = 0.1 * item.flame[412]
        assert area == pytest.approx(np.pi * radius**2, rel=0.1)


def test_no_crops_says_which_stage_to_run(ws: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage crops"):
        load_crops(ws, "train", Exclusions(STAGE))

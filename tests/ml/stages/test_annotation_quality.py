"""Label quality where there is nothing to compare with."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ml.evaluation.samples import read_samples
from ml.flame.head_model import HeadModel
from ml.imaging.io import encode_jpeg
from ml.records.exclusions import LostSamples
from ml.records.shards import shard_writer
from ml.records.tables import (
    EXCLUSIONS,
    HEADS,
    IMAGES,
    TRUTH,
    empty_table,
    read_table,
    write_table,
)
from ml.records.workspace import Workspace
from ml.stages import annotation_quality as stage
from ml.stages.annotation_quality import STAGE, AnnotationQualityConfig, run
from tests.fixtures.tiny_world import ball_model


def test_images_without_truth_are_recorded_as_such(tmp_path):
    ws = Workspace(tmp_path, seed=1, num_shards=2, shard_size=4)
    for shard in ws.shards:
        write_table(ws.table_path("truth", shard), empty_table(TRUTH), TRUTH)
    report = run(ws, AnnotationQualityConfig())
    assert (report.num_in, report.num_out) == (0, 0)
    assert str(report.metadata["truth"]).startswith("none: the images' generator")
    folder = ws.stage_dir(STAGE)
    assert json.loads((folder / "metrics.json").read_text()) == {}
    assert not len(read_table(folder / f"{STAGE}.exclusions.parquet", EXCLUSIONS))


def frontal(x):
    """A frontal head of 120 px per metre at x, and its box."""
    flame = np.zeros(413, np.float32)
    flame[[403, 407]] = 1, -1
    flame[409:413] = x, 50, 0, 120
    return flame, np.array([x - 12, 38, 24, 24], np.float32)


@pytest.fixture
def measured_labels(tmp_path):
    """Two images of two heads: one label exact, one missing, two without parameters."""
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=2)
    ball_model().save(ws.stage_dir("head_model") / "head_model.npz")
    model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    true, found, images = [], [], []
    with shard_writer(ws.stage_dir("images") / "shard-00000.tar") as writer:
        for name in ("a", "b"):
            data = encode_jpeg(np.full((100, 160, 3), 90, np.uint8))
            writer.add(name, {"jpg": data, "json": b"{}"})
            images.append({"sample_id": name, "sha256": name * 64, "size": len(data)})
            for head, x in enumerate((40.0, 110.0)):
                flame, box = frontal(x)
                row = {"sample_id": name, "head_id": head, "bbox_xywh": box, "flame": flame}
                true.append(row)
                if name == "b":
                    found.append({**row, "flame": None, "flame_status": "non_finite"})
                elif head == 0:
                    found.append({**row, "flame_status": "ok"})
    shared = {"split": "test", "head_model": model.sha256}
    look = {"skin_tone": 5, "hair_style": "bob", "glasses": "none", "hat": "none"}
    write_table(
        ws.table_path("truth", "shard-00000"),
        pd.DataFrame(true).assign(
            **shared, **look, visible=1.0, inside=1.0, person_id=lambda f: f["head_id"]
        ),
        TRUTH,
    )
    write_table(
        ws.table_path("annotations", "shard-00000"),
        pd.DataFrame(found).assign(
            **shared, score=0.9, teacher="t", threshold=0.5, source="pseudo"
        ),
        HEADS,
    )
    write_table(
        ws.table_path("images", "shard-00000"),
        pd.DataFrame(images).assign(
            pose_id=lambda f: "pose-" + f["sample_id"], split="test", shard="shard-00000",
            width=160, height=100, offset=512, seed=1, generator="renderer", num_people=2,
            mean_luma=90.0,
        ),
        IMAGES,
    )  # fmt: skip
    run(ws, AnnotationQualityConfig(resamples=200))
    return json.loads((ws.stage_dir(STAGE) / "metrics.json").read_text())


def test_a_test_image_that_is_not_measured_is_named(measured_labels, tmp_path, monkeypatch):
    ws = Workspace(tmp_path, seed=1, num_shards=1, shard_size=2)
    monkeypatch.setattr(stage, "read_samples", lambda *given: read_samples(*given)[1:])
    with pytest.raises(LostSamples, match=r"neither used nor excluded: a$"):
        run(ws, AnnotationQualityConfig(resamples=2))


def test_labels_without_parameters_are_failures_and_no_other_error(measured_labels):
    metrics = measured_labels
    assert metrics["num_heads"] == 4
    assert metrics["recall"] == 0.75
    # One is missed and two have no parameters; the fourth is exact.
    assert metrics["failure_rate"] == metrics["failure_rate_10"] == 0.75
    assert metrics["nme_bbox"] == pytest.approx(0, abs=1e-5)
    # Drawn again, there are images of which one head fails, and some of which both do.
    assert (metrics["failure_rate_low"], metrics["failure_rate_high"]) == (0.5, 1.0)
    # Where image b alone is drawn there is no vertex error: the interval is that of the others.
    assert metrics["nme_bbox_high"] == pytest.approx(0, abs=1e-5)


def test_a_metric_that_is_no_number_stays_in_the_file(measured_labels):
    assert "yaw_mae_deg" in measured_labels
    assert all(value is None or np.isfinite(value) for value in measured_labels.values())

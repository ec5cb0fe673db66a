"""Commands on the dataset, as a user gives them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from dagster_project import cli
from dagster_project.pipeline import Pipeline
from dagster_project.stages import ROOT, STAGES
from ml.labels.coco import read_coco
from ml.records.tables import IMAGES, POSES, read_stage, write_table
from ml.records.workspace import Workspace


@pytest.fixture
def project(dataset: Workspace) -> Pipeline:
    """The small dataset as a project of the demo, with skeletons."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["run"] |= {"num_shards": 2, "shard_size": 4, "seed": 1}
    (dataset.root / "params.yaml").write_text(yaml.safe_dump(values))
    points = np.ones((17, 3))
    points[:5, :2] = [[50, 40], [54, 38], [46, 38], [58, 40], [42, 40]]
    for shard in dataset.shards:
        images = read_stage(dataset, "images", IMAGES, [shard])
        columns = ("joints_m", "head_rotation", "scale_px_per_m", "shift_px", "head_centre_m")
        people = [
            {
                **dict.fromkeys(columns),
                "pose_id": row["pose_id"],
                "person_id": 0,
                "split": row["split"],
                "width": 120,
                "height": 90,
                "num_people": 1,
                "layout": "portrait",
                "depth": 0,
                "keypoints": points.reshape(-1),
            }
            for row in images.to_dict("records")
        ]
        frame = pd.DataFrame(people).astype({"scale_px_per_m": "float64"})
        write_table(dataset.table_path("poses", shard), frame, POSES)
    return Pipeline(dataset.root, STAGES)


def give(project: Pipeline, *arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments], project)


def test_the_first_labels_go_out_without_verdicts_and_come_back(
    project: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in project.stage_dir("filtered_dataset").glob("*.parquet"):
        path.unlink()
    assert give(project, "label-export", tmp_path / "first", "--count", 20) == 0
    assert "6 images, 6 boxes" in capsys.readouterr().out
    file = tmp_path / "first" / "cvat/annotations/instances_default.json"
    assert give(project, "label-import", file, "--name", "heads.json") == 0
    said = capsys.readouterr().out
    assert "train: 4 images, 4 boxes" in said
    assert "val: 2 images, 2 boxes" in said
    assert "file: labels/heads.json" in said
    assert (project.root / "labels" / "heads.json").read_bytes() == file.read_bytes()


def test_verdicts_choose_later_rounds_and_rounds_are_joined(
    project: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, later = tmp_path / "first", tmp_path / "later"
    assert give(project, "label-export", first, "--first", "--boxes", "none") == 0
    assert "6 images, 0 boxes" in capsys.readouterr().out
    assert give(project, "label-export", later, "--count", 2, "--worst", 1) == 0
    assert "worst agreement first" in (later / "index.html").read_text()
    name = "cvat/annotations/instances_default.json"
    assert give(project, "label-import", first / name, "--name", "heads.json") == 0
    onto = ("--name", "heads.json", "--onto", "heads.json")
    assert give(project, "label-import", later / name, *onto) == 0
    joined = read_coco(project.root / "labels" / "heads.json")
    newer = read_coco(later / name)
    assert len(joined.images) == 6
    assert len(joined.boxes) == len(newer.boxes) > 0
    corrected = {image.sample_id for image in newer.images}
    with_boxes = {i.sample_id for i in joined.images if joined.boxes_of(i.image_id)}
    assert with_boxes <= corrected
    assert "6 boxes" not in capsys.readouterr().out
    assert give(project, "label-import", later / name, "--onto", "none.json") == 2
    assert "none.json" in capsys.readouterr().err


def test_faces_need_a_face_detector(
    project: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((project.root / "params.yaml").read_text())
    values["filtered_dataset"]["face_check"] = {"backend": "none"}
    (project.root / "params.yaml").write_text(yaml.safe_dump(values))
    assert give(project, "label-export", tmp_path / "first", "--boxes", "faces") == 2
    assert "filtered_dataset.face_check.backend" in capsys.readouterr().err
    values["filtered_dataset"]["face_check"] = {"backend": "haar"}
    (project.root / "params.yaml").write_text(yaml.safe_dump(values))
    assert give(project, "label-export", tmp_path / "first", "--boxes", "faces") == 0
    tasks = json.loads((tmp_path / "first" / "label_studio.json").read_text())
    assert {t["predictions"][0]["model_version"] for t in tasks} == {"opencv-haar-frontalface-alt2"}

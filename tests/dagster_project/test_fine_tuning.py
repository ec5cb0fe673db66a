"""The profile finetune from one's own boxes to the report, as a command and as Dagster's job."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import torch
import yaml

import ml.stages.head_model
from dagster_project import cli, preflight, project_commands
from dagster_project.definitions import build_definitions
from dagster_project.pipeline import Pipeline
from dagster_project.profiles import read_profile
from dagster_project.stages import ROOT, STAGES
from ml.flame.head_model import HeadModel
from ml.imaging.io import decode_image
from ml.inference.loading import read_detector, save_detector
from ml.model.building import build_detector, model_config
from ml.model.postprocess import PostprocessConfig
from ml.records.config import overlay
from ml.records.shards import ShardReader
from ml.records.tables import DATASET_HEADS, TRUTH, read_table, stack
from tests.fixtures.tiny_world import make_world
from tests.rehearsal import copy_project
from tests.tiny_models.dad import build_dad
from tests.tiny_models.flame import build_flame

NUM_IMAGES = 30
RELEASED = ("released_dataset", "released_model", "released_benchmark")
SMALL = {
    # Of that profile no check asks what random models measure.
    "run": {"profile": "research_tiny", "seed": 1, "num_shards": 1, "shard_size": 1, "threads": 1},
    "head_model": {"source_asset": "open-head"},
    "annotations": {"device": "cpu", "regressor": {"model": {"asset": "random-weights"}}},
    "trained_model": {
        "size": "nano",
        "initial_weights": "models/own",
        "source_asset": "random-weights",
        "loader": {"image_size": 64, "batch_size": 4, "num_workers": 0},
        "loss": {"num_vertices": 50},
        "optim": {"lr": 1e-6},
        "fit": {
            **{"epochs": 1, "precision": "32-true", "accelerator": "cpu", "devices": 1},
            "checkpoint_every_steps": 0,
        },
        "num_grid_images": 2,
        "registered_name": "",
    },
    "released_benchmark": {"resamples": 3, "num_images": 2},
}


def write_own(folder: Path) -> None:
    """Draw images, and write their boxes as a labelling tool does."""
    ws = make_world(folder / "drawn", ("train",) * NUM_IMAGES)
    truth = read_table(ws.table_path("truth", "shard-00000"), TRUTH)
    (folder / "photos").mkdir()
    images, boxes = [], []
    with ShardReader(ws.stage_dir("images") / "shard-00000.tar") as reader:
        for number, (sample_id, heads) in enumerate(truth.groupby("sample_id"), start=1):
            name = f"{sample_id}.jpg"
            (folder / "photos" / name).write_bytes(reader.read(str(sample_id)))
            images.append({"id": number, "file_name": name, "width": 96, "height": 96})
            boxes += [
                {"image_id": number, "category_id": 2, "bbox": box, "iscrowd": 0, "area": 1.0}
                for box in stack(heads["bbox_xywh"]).tolist()
            ]
    coco = {
        "images": images,
        "annotations": [{**box, "id": number} for number, box in enumerate(boxes, start=1)],
        "categories": [{"id": 2, "name": "person head"}],
    }
    (folder / "boxes.json").write_text(json.dumps(coco))


@pytest.fixture
def project(tmp_path: Path, open_head: HeadModel, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A checkout of its own with the profile finetune, tiny models and drawn images."""
    root = tmp_path / "project"
    copy_project(root)
    values = overlay(dict(read_profile(ROOT, "finetune").values), SMALL)
    every = {name: values.get(name) or {} for name in ("run", *STAGES)}
    (root / "params.yaml").write_text(yaml.safe_dump(every, sort_keys=False))
    build_flame(root / "models" / "flame-2020", open_head)
    build_dad(root / "models" / "dad_3dheads.trcd")
    torch.manual_seed(3)
    network = build_detector(model_config("nano"))
    save_detector(root / "models" / "own", network, 64, PostprocessConfig(), "", {})
    write_own(root)
    # Another interpreter would import everything once more; `test_preflight` starts a real one.
    monkeypatch.setattr(
        preflight, "_in_own_process", lambda project, names: preflight.look(project, names).problems
    )
    # Of the head model, which `test_head_model` draws.
    monkeypatch.setattr(ml.stages.head_model, "_images", lambda *_: {})
    monkeypatch.setenv("DAGSTER_HOME", str(root / ".dagster"))
    monkeypatch.chdir(root)
    return Pipeline(root, STAGES)


def run_job(project: Pipeline) -> dg.ExecuteInProcessResult:
    """Run the job on the images of the project."""
    asked = {"images": "photos", "boxes": "boxes.json", "labels": ["person head"]}
    job = build_definitions(project).resolve_job_def("fine_tune_job")
    return job.execute_in_process(
        run_config={"ops": {"fine_tune_on_own_boxes": {"config": asked}}}, raise_on_error=False
    )


def test_the_job_runs_the_command_in_a_process_of_its_own(project: Pipeline) -> None:
    # Stands for the command line, whose own work the next test does in this process.
    command = project.root / "dagster_project" / "cli.py"
    command.write_text("import os, sys\nprint(os.getcwd(), *sys.argv[1:], flush=True)\n")
    result = run_job(project)
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    report = Path(result.output_for_node("fine_tune_on_own_boxes"))
    assert report == project.stage_dir("released_benchmark") / "report.html"
    command.write_text(command.read_text() + "sys.exit(3)\n")
    result = run_job(project)
    assert not result.success
    told = " ".join(
        str(event.step_failure_data.user_failure_data or event.step_failure_data.error)
        for event in result.all_events
        if event.is_step_failure
    )
    assert f"{project.root} fine-tune photos boxes.json --label person head" in told


@pytest.mark.rehearsal
def test_one_command_labels_trains_and_measures(project: Pipeline) -> None:
    root = project.root
    assert cli.main(["fine-tune", "photos", "boxes.json", "--label", "person head"], project) == 0
    report = project.stage_dir("released_benchmark") / "report.md"
    assert "held-out pseudo-labels" in report.read_text()

    # s3 is damaged: one image is left out, and said.
    out = pd.read_csv(root / "sources" / "own" / "exclusions.csv")
    assert out[["sample_id", "reason"]].values.tolist() == [["s3", "damaged_image"]]
    counts = json.loads((project.stage_dir("released_dataset") / "metrics.json").read_text())
    assert counts["num_images"] == NUM_IMAGES - 1
    assert all(counts[f"num_{split}"] > 0 for split in ("train", "val", "test"))
    heads = read_table(project.stage_dir("released_dataset") / "heads.parquet", DATASET_HEADS)
    boxes = json.loads((root / "boxes.json").read_text())["annotations"]
    assert len(heads) == len([box for box in boxes if box["image_id"] != 24])
    assert stack(heads["flame"])[:, 412].std() > 1, "the teacher sees each head"

    trained = read_detector(project.stage_dir("released_model"))
    start = read_detector(root / "models" / "own")
    for mine, given in zip(trained.network.parameters(), start.network.parameters(), strict=True):
        torch.testing.assert_close(mine, given, atol=1e-3, rtol=0)
    assert decode_image(project.stage_dir("released_dataset") / "previews" / "boxes.jpg").std() > 5
    assert not {"head_model", *RELEASED} & set(Pipeline(root, STAGES).stale())


def test_missing_inputs_are_reported_before_anything_starts(
    project: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "models" / "dad_3dheads.trcd").write_bytes(b"no TorchScript")
    command = ["fine-tune", "photos", "boxes.json", "--label", "person head"]
    assert cli.main(command, project) == 1
    said = capsys.readouterr().out
    assert "annotations: annotations.regressor: " in said
    assert "released_dataset" not in said, "which the command itself makes"
    assert not project.stage_dir("head_model").exists()


def test_our_own_teacher_is_trained_first(
    project: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((project.root / "params.yaml").read_text())
    values["annotations"]["regressor"] = {"backend": "own"}
    (project.root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    made, looked = [], []

    def make(pipeline: Pipeline, options: argparse.Namespace) -> int:
        made.append(options.stage)
        return int(options.stage == "flame_regressor")

    monkeypatch.setattr(project_commands, "materialize", make)
    monkeypatch.setattr(preflight, "ensure", lambda _, stages: looked.extend(stages))
    assert cli.main(["fine-tune", "photos", "boxes.json"], Pipeline(project.root, STAGES)) == 1
    assert made == ["head_model", "flame_regressor"]
    assert looked == [*made, "annotations", "released_model"]

"""Trainings side by side: each variant trains, is measured, is in the table, and resumes."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from dagster_project.comparing import compare
from ml.flame.head_model import HeadModel
from ml.inference.loading import save_detector
from ml.records.exclusions import LostSamples
from ml.records.heads import Heads
from ml.records.tables import DATASET_HEADS, IMAGES, VERDICTS, read_table
from ml.stages import annotations
from ml.studies import wider_dataset
from ml.studies.running import read_generators, run_study, wider_name
from ml.studies.seeds import run_seeds, skin_tones, summary
from ml.studies.variants import ABLATION, Variant, run_variants
from ml.training.tracking import mlflow_run
from tests.benchmark_sets.boxes import WIDER_FACES, write_wider
from tests.fixtures.tiny_world import make_world
from tests.ml.inference.conftest import LOOSE, network

__all__ = ["network"]

SPLITS = ("train", "train", "train", "train", "val", "test", "test")
VALUES = {
    "trained_model": {
        "initial_encoder": None,
        "loader": {"image_size": 96, "batch_size": 2},
        "loss": {"num_vertices": 50},
        "fit": {"epochs": 1, "validate_every_epochs": 1, "precision": "32-true"},
        "num_grid_images": 1,
    },
    "benchmark": {"resamples": 2, "num_images": 1},
    "benchmark_scores": {"resamples": 2},
}
VARIANTS = (ABLATION[0], ABLATION[1])
AnnotationsConfig = partial(annotations.AnnotationsConfig, min_side_px=14.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    ws = make_world(tmp_path_factory.mktemp("world"), SPLITS)
    quality = dict.fromkeys(("recall", "precision", "nme_bbox", "rotation_deg", "small_share"), 0.5)
    path = ws.stage_dir("annotation_quality") / "metrics.json"
    path.parent.mkdir()
    path.write_text(json.dumps(quality))
    return ws


def opener(ws, opened):
    def open_run(title, tags):
        opened.append(title)
        return mlflow_run(ws.root / "mlruns", "vggheads", title, tags)

    return open_run


@pytest.fixture
def without_training(monkeypatch, network):
    """Writes an untrained detector and the values it was asked for in place of a training."""

    def run(ws, config, tracker):
        head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
        told = config.model_dump(mode="json")
        save_detector(ws.stage_dir("trained_model"), network, 96, LOOSE, head_model.sha256, told)

    monkeypatch.setattr("ml.studies.variants.trained_model.run", run)


def test_every_variant_is_measured_once_and_stands_in_the_table(world, without_training):
    opened = []
    folder = run_variants("ablation", world, VALUES, VARIANTS, opener(world, opened))
    assert opened == ["ablation: all losses", "ablation: without rotation loss"]
    with (folder / "table_07.csv").open() as file:
        rows = {row["Model"]: row for row in csv.DictReader(file) if row["Origin"] == "ours"}
    assert list(rows) == ["all losses", "without rotation loss"]
    assert all(float(row["VGGHeads val FR ↓"]) >= 0 for row in rows.values())
    told = [
        (folder / v.slug / "data" / "trained_model" / "config.json").read_text() for v in VARIANTS
    ]
    assert ['"rotation_weight": 0.0' in text for text in told] == [False, True]

    from mlflow import MlflowClient

    from ml.training.tracking import sqlite_uri

    client = MlflowClient(sqlite_uri(world.root / "mlruns" / "mlflow.db"))
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.data.tags["variant"] for run in runs} == {v.name for v in VARIANTS}
    assert all(run.data.metrics["test/num_images"] == 2 for run in runs)
    assert {run.data.tags["dvc.stage"] for run in runs} == {"trained_model"}
    found = compare(*runs)
    assert set(found.params) == {"trained_model.loss.rotation_weight"}, "what differs is shown"
    assert "benchmark/ap50" in found.metrics
    assert runs[0].data.params["run.seed"] == "5"

    run_variants("ablation", world, VALUES, VARIANTS, opener(world, opened))
    assert len(opened) == 2, "what is finished is not made again"
    run_variants("ablation", replace(world, seed=6), VALUES, VARIANTS[:1], opener(world, opened))
    assert len(opened) == 3, "another seed is another result"


@pytest.mark.rehearsal
def test_seeds_repeat_the_training_and_tell_medians_and_ranges(world, monkeypatch, network):
    seeds = []

    def run(ws, config, tracker):
        seeds.append(ws.seed)
        head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
        save_detector(ws.stage_dir("trained_model"), network, 96, LOOSE, head_model.sha256, {})

    monkeypatch.setattr("ml.studies.variants.trained_model.run", run)
    run(world, None, None)  # the pipeline's own training
    opened = []
    folder = run_seeds(world, VALUES, opener(world, opened))
    assert seeds == [world.seed, world.seed + 1, world.seed + 2], "its own is not made again"
    assert opened == [f"seeds: seed {seed}" for seed in seeds]
    text = (folder / "seeds.md").read_text()
    assert "# 3 trainings on the same data" in text
    assert "## pseudo_labels\n" in text
    assert "## always_frontal\n" in text
    (heads,) = re.findall(r"\| 1 to 3 \((\d+) heads\), rotation deg ↓ \|", text)
    assert int(heads) > 0
    run_seeds(world, VALUES, opener(world, opened))
    assert len(opened) == 3, "what is finished is not made again"
    (world.stage_dir("trained_model") / "config.json").write_text(
        (world.stage_dir("trained_model") / "config.json").read_text() + "\n"
    )
    run_seeds(world, VALUES, opener(world, opened))
    assert opened[3:] == [f"seeds: seed {world.seed}"], "a new training of its own is measured"


def test_medians_and_ranges_by_hand():
    found = {
        "seed 1": {"num_images": 3.0, "m.ap50": 0.9, "m.ap50_low": 0.1, "m.num_missed": None},
        "seed 2": {"num_images": 3.0, "m.ap50": 0.7, "m.ap50_low": 0.1, "m.num_missed": None},
        "seed 3": {"num_images": 3.0, "m.ap50": 0.75, "m.ap50_low": 0.1, "m.num_missed": 4.0},
    }
    lines = summary(found).splitlines()
    assert "| | median | lowest | highest | seed 1 | seed 2 | seed 3 |" in lines
    assert "| AP50 ↑ | 0.750 | 0.700 | 0.900 | 0.900 | 0.700 | 0.750 |" in lines
    assert "| missed heads ↓ | n/a | n/a | n/a | n/a | n/a | 4 |" in lines


def test_errors_by_skin_tone_over_the_seeds_by_hand():
    first = pd.DataFrame(
        {
            "group": ["1 to 3", "7 to 10"],
            "heads": ["66", "86"],
            "NME %": ["6.9 [6.0, 8.0]", "n/a"],
            "rotation deg": ["11.3 [9.0, 14.0]", "17.7 [9.0, 24.0]"],
        }
    )
    second = first.assign(**{"NME %": ["7.9 [7.0, 9.0]", "n/a"]})
    lines = skin_tones({"seed 1": first, "seed 2": second}).splitlines()
    assert "| 1 to 3 (66 heads), NME % ↓ | 7.4 | 6.9 | 7.9 | 6.9 | 7.9 |" in lines
    assert "| 7 to 10 (86 heads), NME % ↓ | n/a | n/a | n/a | n/a | n/a |" in lines
    assert "| 7 to 10 (86 heads), rotation deg ↓ | 17.7 | 17.7 | 17.7 | 17.7 | 17.7 |" in lines
    assert skin_tones({"seed 1": pd.DataFrame()}) == "", "photographs say nothing of tones"


def test_a_missing_input_is_named(world):
    wrong = Variant("elsewhere", dataset=world.root / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere/images: not found; materialise 'images'"):
        run_variants("datasets", world, VALUES, [wrong], opener(world, []))


def test_what_a_study_needs_is_asked_for(world, tmp_path):
    with pytest.raises(ValueError, match="study: expected one of ablation, datasets"):
        run_study("tables", world, VALUES, tmp_path)
    with pytest.raises(ValueError, match="datasets: name the folder of WIDER FACE"):
        run_study("datasets", world, VALUES, tmp_path)
    with pytest.raises(ValueError, match="generators: name reference, inception"):
        run_study("generators", world, VALUES, tmp_path, generators=tmp_path / "g.yaml")
    (tmp_path / "g.yaml").write_text("SDXL:\n  image: {backend: sdxl-t2i}\n")
    with pytest.raises(ValueError, match="SDXL: expected `images`"):
        read_generators(tmp_path / "g.yaml")


# ------------------------------------------------------------------ WIDER FACE
class CountingRegressor:
    """Answers with frontal heads, and remembers how many it was asked for."""

    name, sha256, crop_size = "counting", "0", 32

    def __init__(self):
        self.asked = 0

    def predict(self, crops):
        import torch

        self.asked += len(crops)
        flame = torch.zeros(len(crops), 413)
        flame[:, 403], flame[:, 407], flame[:, 412] = 1.0, -1.0, 100.0
        flame[:, 409:411] = 16.0
        return flame


def label_wider(world, root, monkeypatch, parts=("val",)):
    """The dataset, its report, the regressor, and the boxes that it was shown."""
    source = write_wider(root / "wider")
    named = {e: {f"{n}0": rows for n, rows in files.items()} for e, files in WIDER_FACES.items()}
    train = write_wider(root / "train", named, mat=False)
    split = "wider_face_split/wider_face_{}_bbx_gt.txt"
    (train / split.format("val")).rename(source / split.format("train"))
    (train / "WIDER_val").rename(source / "WIDER_train")
    regressor = CountingRegressor()
    monkeypatch.setattr(wider_dataset, "load_flame_regressor", lambda *given: regressor)
    cut = []
    monkeypatch.setattr(
        "ml.stages.annotations.cut_crops",
        lambda r, image, boxes: (
            cut.append(boxes),
            (np.zeros((len(boxes), 32, 32, 3), np.uint8), np.tile([0.0, 0, 1], (len(boxes), 1))),
        )[1],
    )
    monkeypatch.setattr(
        "ml.annotation.estimates.crop_to_image", lambda predicted, frames, size: predicted
    )
    out = root / "dataset"
    report = wider_dataset.make_wider_dataset(world, source, out, AnnotationsConfig(), parts)
    return out, report, regressor, np.concatenate(cut)


@pytest.fixture
def labelled(world, tmp_path, monkeypatch):
    return label_wider(world, tmp_path, monkeypatch)


def test_true_faces_of_wider_become_labels_by_a_quarter_larger_boxes(labelled):
    out, report, regressor, boxes = labelled
    heads = read_table(out / "filtered_dataset/heads.parquet", DATASET_HEADS)
    verdicts = read_table(out / "filtered_dataset/verdicts.parquet", VERDICTS)
    images = read_table(out / "images/shard-00000.parquet", IMAGES)
    assert len(images) == len(verdicts) == report.num_out == 3
    assert set(images["split"]) == {"val"}
    # of 10, 10, 40, 50 a quarter outwards, cut at the image's border
    first = heads[heads["sample_id"].str.endswith("465")].iloc[0]
    np.testing.assert_allclose(first["bbox_xywh"], [0, 0, 60, 72.5])
    # the third face, 8 x 9 px and so 13.5 px when it is larger, is too small to be labelled
    assert list(heads["flame_status"].value_counts().items()) == [
        ("ok", regressor.asked),
        ("small", 1),
    ]
    assert len(boxes) == regressor.asked
    assert set(heads["teacher"]) == {"true_face_boxes: + counting:0"}
    empty = verdicts[verdicts["sample_id"].str.contains("Protesters")].iloc[0]
    assert empty["num_heads"] == 0


def test_an_image_of_wider_that_is_lost_is_named(world, tmp_path, monkeypatch):
    add = wider_dataset._add
    monkeypatch.setattr(
        wider_dataset,
        "_add",
        lambda sample, *rest: None if "Protesters" in sample.sample_id else add(sample, *rest),
    )
    with pytest.raises(LostSamples, match=r"neither used nor excluded: .*Protesters"):
        label_wider(world, tmp_path, monkeypatch)


def test_labels_of_another_teacher_are_another_dataset(world, tmp_path):
    (tmp_path / "list.txt").write_text("0--Parade")
    name = partial(wider_name, world)
    first = name(tmp_path, AnnotationsConfig())
    assert first == name(tmp_path, AnnotationsConfig())
    model = {"path": "dad.trcd", "asset": "dad-3dnet"}
    others = [
        name(tmp_path, AnnotationsConfig(min_side_px=15.0)),
        name(tmp_path, AnnotationsConfig(regressor={"backend": "dad", "model": model})),
    ]
    (tmp_path / "list.txt").write_text("1--Handshaking")
    others.append(name(tmp_path, AnnotationsConfig()))
    assert len({first, *others}) == 4


def test_what_is_written_is_read_by_the_training(labelled, world):
    from ml.flame.geometry import HeadGeometry
    from ml.flame.head_model import HeadModel
    from ml.records.exclusions import Exclusions
    from ml.stages.trained_model import TrainedModelConfig, read_labels, read_samples
    from ml.studies.links import link
    from ml.training_data.samples import kept_images

    out, *_ = labelled
    place = replace(world, root=out.parent / "place")
    for name in ("images", "truth", "filtered_dataset"):
        link(place.stage_dir(name), out / name)
    geometry = HeadGeometry(HeadModel.load(world.stage_dir("head_model") / "head_model.npz"))
    exclusions = Exclusions("test")
    labels = read_labels(place, TrainedModelConfig(), geometry)
    samples = read_samples("val", *kept_images(place, "val"), labels, 1, exclusions)
    assert len(samples) == 3
    assert not len(exclusions)
    assert isinstance(Heads.empty(), Heads)
